"""Videos: playable, one picture per step, and showing what happened."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rims_rl.cli import main
from rims_rl.config import TrainConfig
from rims_rl.drawing import HEIGHT, WIDTH, Painter
from rims_rl.errors import ConfigError
from rims_rl.evaluation import View
from rims_rl.playback import play
from rims_rl.recording import check_encoder, film, note_of, subtitle_of, title_of
from tests.cartpole_player import RUN, cartpole
from tests.pong_run import files_of


class TestFilm:
    def test_the_video_is_playable_and_has_one_picture_per_step(self, tmp_path: Path) -> None:
        policy, env = cartpole()
        path = tmp_path / "episode.mp4"
        recorded = film(play(policy, env, seed=5), Painter("CartPole", "RIM"), path, fps=15, max_steps=500)
        env.close()
        video = cv2.VideoCapture(str(path))
        pictures = [image for good, image in iter(video.read, (False, None)) if good]
        assert recorded.ended
        assert len(pictures) == recorded.frames == recorded.score
        assert pictures[0].shape == (HEIGHT, WIDTH, 3)
        assert video.get(cv2.CAP_PROP_FPS) == 15

    def test_it_stops_at_the_limit(self, tmp_path: Path) -> None:
        policy, env = cartpole()
        recorded = film(play(policy, env), Painter("CartPole", "RIM"), tmp_path / "a.mp4", fps=15, max_steps=3)
        env.close()
        assert (recorded.frames, recorded.score, recorded.ended) == (3, 3.0, False)

    def test_a_still_is_written_beside_it(self, tmp_path: Path) -> None:
        policy, env = cartpole()
        film(play(policy, env), Painter("CartPole", "RIM"), tmp_path / "a.mp4", 15, 3, still=tmp_path / "still.png")
        env.close()
        still = cv2.imread(str(tmp_path / "still.png"))
        assert still is not None
        assert still.shape == (HEIGHT, WIDTH, 3)

    def test_what_fails_half_way_leaves_no_file(self, tmp_path: Path) -> None:
        def failing() -> Any:
            policy, env = cartpole()
            yield next(play(policy, env))
            env.close()
            raise KeyError

        with pytest.raises(KeyError):
            film(failing(), Painter("CartPole", "RIM"), tmp_path / "a.mp4", 15, 10)
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_encoder_is_one_line_that_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
        with pytest.raises(ConfigError, match=r'pip install "rims-rl\[video\]"'):
            check_encoder()


class TestWords:
    def test_games_are_called_as_one_calls_them(self) -> None:
        assert title_of(TrainConfig(env="ALE/MsPacman-v5")) == "Ms Pacman"
        assert title_of(TrainConfig(env="CartPole-v1")) == "CartPole"

    def test_the_subtitle_says_who_plays(self) -> None:
        assert subtitle_of(RUN, 30_720) == "RIM memory: 5 units, 2 active at a time  |  trained for 30,720 steps"
        assert subtitle_of(replace(RUN, core="lstm"), 7) == "lstm memory  |  trained for 7 steps"

    def test_the_note_says_what_is_changed_about_the_game(self) -> None:
        run = TrainConfig(env="pong", distractor="balls:0.5+noise:0.2")
        assert note_of(TrainConfig(env="pong")) == ""
        assert note_of(run) == "balls 0.5  +  noise 0.2   split train"
        assert note_of(run, View("none")) == ""
        assert note_of(run, View(split="held-out")) == "balls 0.5  +  noise 0.2   split held-out"
        assert note_of(run, View("digits:1", variant="mode:1")) == "digits 1   split train   variant mode:1"
        assert note_of(TrainConfig(env="pong", env_kwargs={"distractor": "shake"})) == "shake 0.5   split train"

    def test_the_note_names_both_splits_where_there_are_two(self) -> None:
        run = TrainConfig(env="pong", distractor="balls:0.5:held-out+noise:0.2")
        assert note_of(run) == "balls 0.5  +  noise 0.2   split held-out   split train"

    def test_the_note_names_the_variant_of_the_training_too(self) -> None:
        run = TrainConfig(env="pong", route="gym", env_kwargs={"variant": "lazy_enemy"})
        assert note_of(run) == "variant lazy_enemy"


class TestADistractedRun:
    @pytest.mark.parametrize(
        ("options", "video", "has_note"),
        [
            ([], "final_3.mp4", True),
            (["--distractor", "none"], "final_3_distractor-none.mp4", False),
            (["--distractor-split", "held-out", "--variant", "mode:1"], "final_3_held-out_mode-1.mp4", True),
        ],
    )
    def test_each_view_has_its_own_video_with_a_note_on_what_is_changed(
        self, distracted_run: Path, tmp_path: Path, options: list[str], video: str, has_note: bool
    ) -> None:
        before, still = set(files_of(distracted_run)), tmp_path / "still.png"
        options = [*options, "--seed", "3", "--max-steps", "2", "--frame", str(still)]
        assert main(["record", str(distracted_run), *options]) == 0
        assert set(files_of(distracted_run)) - before == {f"videos/{video}"}
        picture = np.asarray(cv2.imread(str(still)))
        assert bool((picture[:45] != picture[0, 0]).any()) is has_note  # above the game
        assert picture[118:202, 1156:1240].std() > 5  # what the agent sees
