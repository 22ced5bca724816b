"""From raw frames to observations."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py import ALEInterface

from rims_rl.envs import game_names
from rims_rl.envs.gym_route import load_emulator
from rims_rl.envs.screen import Screen, capture


class TestScreen:
    def test_the_newest_frame_comes_last_and_the_stack_starts_with_zeros(self):
        screen = Screen((210, 160), frame_stack=3)
        for value in (11, 13):
            screen.newest[:] = value
            screen.push()
        assert screen.stack[:, 5, 7].tolist() == [0, 11, 13]

    def test_a_pixel_is_the_brighter_one_of_two_frames(self):
        screen = Screen((210, 160), frame_stack=1)
        screen.newest[:100], screen.previous[100:] = 200, 100
        screen.push()
        assert (screen.stack[0, 0, 0], screen.stack[0, -1, 0]) == (200, 100)

    def test_clear_leaves_nothing_of_the_game_before(self):
        screen = Screen((210, 160), frame_stack=2)
        screen.newest[:], screen.previous[:] = 5, 7
        screen.push()
        screen.clear()
        screen.newest[:] = 3
        screen.push()
        assert screen.stack[:, 0, 0].tolist() == [0, 3]

    def test_a_snapshot_is_a_copy_that_brings_everything_back(self):
        screen = Screen((210, 160), frame_stack=2)
        screen.newest[:], screen.previous[:] = 5, 7
        screen.push()
        snapshot = screen.snapshot()
        screen.newest[:], screen.previous[:] = 91, 93
        screen.push()
        screen.restore(snapshot)
        assert (screen.newest[0, 0], screen.previous[0, 0]) == (7, 7)
        assert screen.stack[:, 0, 0].tolist() == [0, 7]


class TestCapture:
    @pytest.mark.parametrize("game", game_names()[::11])
    def test_grey_from_an_unchanged_rgb_frame_is_the_console_palettes_grey(self, game):
        ale = _running(game)
        plain, hooked = np.zeros(ale.getScreenDims(), np.uint8), np.zeros(ale.getScreenDims(), np.uint8)
        capture(ale, None, plain)
        capture(ale, lambda frame: frame, hooked)
        assert plain.max() > 0
        np.testing.assert_array_equal(hooked, plain)

    def test_what_the_hook_returns_is_what_is_seen(self):
        ale = _running("pong")
        target = np.zeros((210, 160), np.uint8)
        capture(ale, lambda frame: np.full_like(frame, 137), target)
        assert (target == 137).all()


def _running(game) -> ALEInterface:
    ale = load_emulator(game)
    ale.reset_game()
    for _ in range(29):
        ale.act(1)
    return ale
