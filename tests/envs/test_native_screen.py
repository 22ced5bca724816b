"""The shrinking of screens in C against OpenCV, and what happens without a compiler."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from rims_rl.envs import native_screen
from rims_rl.envs.native_screen import native_push
from rims_rl.envs.screen import Screen

needs_compiler = pytest.mark.skipif(native_screen.library() is None, reason="no compiler for the shrinking in C")


def _frames(height, width, rng):
    """Return pairs of frames: noise, noise in double rows as Atari draws them, and few levels of grey."""
    noise = rng.integers(256, size=(6, height, width), dtype=np.uint8)
    doubled = noise[2:4].repeat(2, axis=1)[:, :height]
    return [noise[:2], doubled, noise[4:] // 64 * 85]


class TestThePictureMadeInC:
    @needs_compiler
    @pytest.mark.parametrize(
        ("height", "width"), [(210, 160), (250, 160), (230, 160), (85, 85), (97, 131), (223, 167), (512, 509)]
    )
    def test_is_opencvs_bit_for_bit(self, height, width):
        rng, push = np.random.default_rng(7), native_push(height, width)
        stack = rng.integers(256, size=(3, 84, 84), dtype=np.uint8)
        for newest, previous in _frames(height, width, rng):
            newest, previous, before = newest.copy(), previous.copy(), stack.copy()
            brighter = np.maximum(newest, previous)
            push(newest, previous, stack)
            np.testing.assert_array_equal(newest, brighter)
            np.testing.assert_array_equal(stack[:-1], before[1:])
            np.testing.assert_array_equal(stack[-1], cv2.resize(brighter, (84, 84), interpolation=cv2.INTER_AREA))

    @needs_compiler
    @pytest.mark.parametrize("grey", [0, 1, 127, 128, 254, 255])
    def test_of_one_grey_is_of_that_grey(self, grey):
        frame, stack = np.full((210, 160), grey, np.uint8), np.zeros((1, 84, 84), np.uint8)
        native_push(210, 160)(frame, np.zeros_like(frame), stack)
        assert (stack == grey).all()

    @needs_compiler
    def test_is_not_made_of_arrays_in_another_order(self):
        frame, stack = np.zeros((160, 210), np.uint8).T, np.zeros((1, 84, 84), np.uint8)
        with pytest.raises((TypeError, ValueError, BufferError)):
            native_push(210, 160)(frame, frame, stack)

    @pytest.mark.parametrize(("height", "width"), [(84, 160), (210, 60), (168, 84), (168, 336), (513, 160)])
    def test_is_left_to_opencv_where_that_goes_other_ways(self, height, width):
        assert native_push(height, width) is None


class TestWithoutACompiler:
    @pytest.fixture(autouse=True)
    def _forgotten_library(self):
        native_screen.library.cache_clear()
        yield
        native_screen.library.cache_clear()

    @pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
    def test_the_pixels_are_the_same_and_it_is_said_once(self, monkeypatch, caplog, tmp_path, compiler):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", compiler)
        frame = np.random.default_rng(3).integers(256, size=(210, 160), dtype=np.uint8)
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            screens = [Screen((210, 160), frame_stack=2) for _ in range(2)]
        for screen in screens:
            screen.newest[:] = frame
            screen.push()
            np.testing.assert_array_equal(screen.stack[-1], cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA))
        (record,) = caplog.records
        assert "without compiled code" in record.getMessage()
        assert list((tmp_path / "rims_rl").iterdir()) == []
