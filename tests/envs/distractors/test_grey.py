"""Distractors on grey frames: a third of the bytes, and not another pixel."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs.distractors import KINDS, SPLITS, Distraction, Distractor, Screen, parse_distractors
from rims_rl.envs.distractors.distraction import suit_grey
from rims_rl.envs.distractors.looks import grey_of
from rims_rl.envs.emulator import typical_screens

SUITED = ("balls", "sprites", "salt-and-pepper", "drop", "curtain", "shake")


class TestGreyFrames:
    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("intensity", [0.2, 0.5, 1.0])
    @pytest.mark.parametrize("kind", SUITED)
    def test_altered_are_altered_frames_turned_grey(self, kind, intensity, split):
        screens = typical_screens("seaquest")
        specs = (Distractor(kind, intensity, split=split),)
        colour, grey = (Distraction(specs, Screen(210, 160, "seaquest", is_grey)) for is_grey in (False, True))
        for episode in (3, 5):
            colour.start(episode), grey.start(episode)
            for time in range(60):
                screen = screens[time % len(screens)]
                np.testing.assert_array_equal(grey(grey_of(screen)), grey_of(colour(screen)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_serve_the_kinds_that_only_cover_and_move_pixels(self, kind):
        assert suit_grey((Distractor(kind, 0.5),)) == (kind in SUITED)

    def test_serve_where_no_distractor_that_is_seen_needs_colours(self):
        assert suit_grey(())
        assert suit_grey(parse_distractors("balls:0.5+noise:0"))
        assert not suit_grey(parse_distractors("balls:0.5+noise:0.1"))
