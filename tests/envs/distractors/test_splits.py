"""The two splits share nothing."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs.distractors import KINDS, SPLITS, Distraction, Distractor, Screen
from rims_rl.envs.distractors.kinds.covers import glyphs_of
from rims_rl.envs.distractors.kinds.movers import SPRITE_GAMES, ball_worlds, cut_sprites, other_sprites
from rims_rl.envs.distractors.kinds.pixels import gaussian_patterns, salt_patterns
from rims_rl.envs.distractors.looks import COLOURS
from rims_rl.envs.distractors.textures import TEXTURES


def _both(of):
    return (of(split) for split in SPLITS)


class TestNothingIsShared:
    def test_no_colour_and_no_grey(self):
        train, held_out = (COLOURS[split].astype(float) @ (0.2989, 0.5870, 0.1140) for split in SPLITS)
        assert np.abs(train[:, None] - held_out).min() >= 1
        assert not {tuple(c) for c in COLOURS["train"].tolist()} & {tuple(c) for c in COLOURS["held-out"].tolist()}

    def test_no_digits_shape(self):
        train, held_out = _both(lambda split: {(g.shape, g.tobytes()) for g in glyphs_of(split)})
        assert len(train) == len(held_out) == 10
        assert not train & held_out

    def test_no_figure_of_another_game(self):
        train, held_out = _both(lambda split: {(s.mask.shape, s.mask.tobytes()) for s in other_sprites(split, None)})
        assert len(train) > 20
        assert len(held_out) > 20
        assert not train & held_out

    def test_no_texture(self):
        assert not set(TEXTURES["train"]) & set(TEXTURES["held-out"])

    def test_no_balls_motion(self):
        train, held_out = _both(lambda split: {w.tobytes() for w in ball_worlds(split, 3, 7.0, 210, 160)})
        assert len(train) == len(held_out) > 1
        assert not train & held_out

    @pytest.mark.parametrize("patterns", [gaussian_patterns, salt_patterns])
    def test_no_noise(self, patterns):
        train, held_out = _both(lambda split: patterns(split, 0.5, 210, 160)[0].astype(float).ravel())
        assert abs(np.corrcoef(train, held_out)[0, 1]) < 0.02

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_picture_in_which_something_is_seen(self, kind, seaquest_frame):
        seen = {split: set() for split in SPLITS}
        for split in SPLITS:
            distraction = Distraction((Distractor(kind, 0.75, split=split),), Screen(210, 160, "seaquest"))
            for seed in range(7):
                distraction.start(seed)
                seen[split] |= {distraction(seaquest_frame).tobytes() for _ in range(29)}
        untouched = seaquest_frame.tobytes()
        assert not seen["train"] & seen["held-out"] - {untouched}
        assert all(len(pictures - {untouched}) >= 1 for pictures in seen.values())


class TestSpritesOfOtherGames:
    @pytest.mark.parametrize("split", SPLITS)
    def test_never_include_the_games_own(self, split):
        game = SPRITE_GAMES[split][0]
        own = {id(stamp) for stamp in cut_sprites(game)}
        assert own
        assert not own & {id(stamp) for stamp in other_sprites(split, game)}
