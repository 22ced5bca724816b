"""Distractors on grey frames: a third of the bytes, and not another pixel."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs.distractors import KINDS, SPLITS, Distraction, Distractor, Screen, parse_distractors
from rims_rl.envs.distractors.distraction import suit_grey
from rims_rl.envs.distractors.looks import grey_of
from rims_rl.envs.emulator import typical_screens

COVERING = ("balls", "sprites", "salt-and-pepper", "drop", "curtain", "shake")
MIXING = ("blobs", "digits", "flicker", "colour")
IN_TRAINING_ALONE = ("contrast",)
SERVED = {
    **dict.fromkeys(COVERING + MIXING, SPLITS),
    **dict.fromkeys(IN_TRAINING_ALONE, SPLITS[:1]),
}


def _both_ways(kind, intensity, split):
    """Yield grey frames altered and RGB frames altered, turned grey, as whole numbers."""
    screens = typical_screens("seaquest")
    specs = (Distractor(kind, intensity, split=split),)
    colour, grey = (Distraction(specs, Screen(210, 160, "seaquest", is_grey)) for is_grey in (False, True))
    for episode in (3, 5):
        colour.start(episode), grey.start(episode)
        for time in range(60):
            screen = screens[time % len(screens)]
            yield grey(grey_of(screen)).astype(int), grey_of(colour(screen)).astype(int)


class TestGreyFrames:
    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("intensity", [0.2, 0.5, 1.0])
    @pytest.mark.parametrize("kind", COVERING)
    def test_altered_are_altered_frames_turned_grey(self, kind, intensity, split):
        for altered, turned in _both_ways(kind, intensity, split):
            np.testing.assert_array_equal(altered, turned)

    @pytest.mark.parametrize(("kind", "split"), [(k, s) for k in SERVED if k not in COVERING for s in SERVED[k]])
    @pytest.mark.parametrize("intensity", [0.2, 0.5, 1.0])
    def test_are_so_but_for_rounding_where_pixels_are_mixed(self, kind, split, intensity):
        for altered, turned in _both_ways(kind, intensity, split):
            assert np.abs(altered - turned).max() <= 1

    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_serve_the_kinds_that_alter_all_channels_alike(self, kind, split):
        assert suit_grey((Distractor(kind, 0.5, split=split),)) == (split in SERVED.get(kind, ()))

    def test_serve_where_no_distractor_that_is_seen_needs_colours(self):
        assert suit_grey(())
        assert suit_grey(parse_distractors("balls:0.5+noise:0"))
        assert not suit_grey(parse_distractors("balls:0.5+noise:0.1"))
