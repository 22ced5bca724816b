"""What is put behind the game: where, and from which folder."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rims_rl.envs.distractors import Distraction, Distractor, Screen
from rims_rl.envs.distractors.modal import background_colours, game_background, short_numbers
from rims_rl.envs.distractors.videos import MOST_FRAMES, clip_files, load_clip
from rims_rl.envs.emulator import typical_screens
from rims_rl.errors import ConfigError


class TestBackgroundColours:
    @pytest.mark.parametrize(
        ("game", "colours"),
        [
            ("pong", [(144, 72, 17)]),
            ("breakout", [(0, 0, 0)]),
            ("freeway", [(142, 142, 142)]),
            ("seaquest", [(0, 28, 136), (45, 50, 184)]),
        ],
    )
    def test_are_what_fills_the_games_screen(self, game, colours):
        assert game_background(game).tolist() == [list(colour) for colour in colours]

    def test_a_colour_counts_that_fills_a_band_of_rows_and_not_one_that_is_scattered(self):
        screens = np.zeros((2, 100, 40, 3), np.uint8)
        screens[:, 80:95] = (10, 20, 30)  # 15 rows
        screens[:, :80:3] = (90, 0, 0)  # 27 rows, none beside another
        assert background_colours(screens).tolist() == [[0, 0, 0], [10, 20, 30]]

    def test_all_of_an_ataris_colours_are_told_apart(self):
        games = ("seaquest", "pong", "enduro", "ms_pacman", "qbert")
        pixels = np.concatenate([typical_screens(game).reshape(-1, 3) for game in games])
        colours = np.unique(pixels.astype(np.int32) @ np.array([65_536, 256, 1]))
        pictures = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)[None]
        assert len(colours) > 40
        assert len(np.unique(short_numbers(pictures))) == len(colours)


class TestTheBackground:
    @pytest.mark.parametrize("game", ["pong", "seaquest"])
    def test_changes_no_pixel_of_the_game_itself(self, game):
        frame = typical_screens(game)[5]
        distraction = Distraction((Distractor("background", 1.0),), Screen(210, 160, game))
        distraction.start(3)
        behind = (frame[:, :, None] == game_background(game)).all(axis=-1).any(axis=-1)
        changed = (distraction(frame) != frame).any(axis=2)
        assert not (changed & ~behind).any()
        assert changed[behind].mean() > 0.95

    def test_elsewhere_the_first_frame_tells_what_is_background(self):
        frame = np.full((60, 80, 3), (9, 90, 30), np.uint8)
        frame[20:30, 20:30] = 255
        distraction = Distraction((Distractor("background", 1.0),), Screen(60, 80))
        distraction.start(3)
        altered = distraction(frame)
        assert (altered[20:30, 20:30] == 255).all()
        assert (altered[:20] != frame[:20]).any(axis=2).mean() > 0.95


class TestAFolder:
    def test_gives_each_split_its_own_files(self, two_images):
        frame = np.zeros((210, 160, 3), np.uint8)
        for split, channel in (("train", 0), ("held-out", 2)):
            spec = Distractor("background", 1.0, split=split, folder=str(two_images))
            distraction = Distraction((spec,), Screen(210, 160, "breakout"))
            for seed in range(5):
                distraction.start(seed)
                altered = distraction(frame)
                assert (altered[..., channel] > 200).all()
                assert not np.delete(altered, channel, axis=2).any()

    def test_splits_files_by_the_order_of_their_names(self, tmp_path):
        for name in ("d.mp4", "a.png", "c.JPG", "b.png", "notes.txt", "e.gif"):
            (tmp_path / name).touch()
        names = {split: [path.name for path in clip_files(tmp_path, split)] for split in ("train", "held-out")}
        assert names == {"train": ["a.png", "c.JPG", "e.gif"], "held-out": ["b.png", "d.mp4"]}

    def test_a_videos_first_frames_are_its_clip_in_rgb(self, tmp_path):
        path = tmp_path / "film.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
        for _ in range(MOST_FRAMES + 5):
            writer.write(np.full((48, 64, 3), (200, 40, 20), np.uint8))
        writer.release()
        clip = load_clip(path, 21, 16)
        assert clip.shape == (MOST_FRAMES, 21, 16, 3)
        np.testing.assert_allclose(clip[7, 5, 5], (20, 40, 200), atol=6)

    def test_a_picture_is_cut_to_the_screens_proportions_and_not_squeezed(self, tmp_path):
        wide = np.zeros((40, 120, 3), np.uint8)
        wide[:, 40:80] = 255
        cv2.imwrite(str(tmp_path / "wide.png"), wide)
        assert (load_clip(tmp_path / "wide.png", 20, 20) == 255).all()


class TestABadFolder:
    def test_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"there is no folder .*nowhere; folder must hold videos or images"):
            Distractor("background", folder=str(tmp_path / "nowhere"))

    def test_with_too_few_files_is_told_what_it_needs(self, tmp_path):
        (tmp_path / "only.png").touch()
        with pytest.raises(ConfigError, match=r"holds 1 videos or images; it must hold 2 or more, .*\.png.*\.mp4"):
            Distractor("background", folder=str(tmp_path))

    @pytest.mark.parametrize("name", ["a.png", "a.mp4"])
    def test_with_a_broken_file_is_told_which(self, tmp_path, name, capfd):
        cv2.imwrite(str(tmp_path / "z.png"), np.zeros((9, 9, 3), np.uint8))
        (tmp_path / name).write_bytes(b"not a picture")
        with pytest.raises(ConfigError, match=f"{name} can't be read as a video or an image"):
            Distractor("background", folder=str(tmp_path))

    def test_one_that_is_broken_later_is_told_when_it_is_shown(self, two_images, capfd):
        distraction = Distraction((Distractor("background", folder=str(two_images)),), Screen(210, 160, "pong"))
        for path in two_images.iterdir():
            path.write_bytes(b"not a picture any more")
        load_clip.cache_clear()
        with pytest.raises(ConfigError, match="can't be read as a video or an image"):
            distraction.start(3)
