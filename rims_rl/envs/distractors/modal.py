"""Which colours of a game are its background: what fills most of the screen, or a broad band of it.

Axes: S screens, H rows, W columns, C colours.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.looks import Frame
from rims_rl.envs.emulator import typical_screens

_MOST = 3  # colours
_BAND = 0.11  # of the screen's height, in which a colour fills most of every row


@lru_cache(maxsize=32)
def game_background(game: str) -> NDArray[np.uint8]:
    """Return the background colours of an Atari game, RGB (C, 3) with C from 1 to 3."""
    return background_colours(typical_screens(game))


def background_colours(screens: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the most frequent colour of screens (S, H, W, 3) and those that fill a broad band of rows, (C, 3)."""
    packed = colour_numbers(screens)
    colours, counts = np.unique(packed, return_counts=True)
    order = colours[np.argsort(-counts, kind="stable")[: 2 * _MOST]].tolist()
    chosen = order[:1] + [colour for colour in order[1:] if _fills_a_band(packed == colour)]
    return np.array([(colour >> 16, colour >> 8 & 255, colour & 255) for colour in chosen[:_MOST]], np.uint8)


def colour_numbers(pictures: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return each pixel's colour (..., 3) as one number (...)."""
    numbers: NDArray[np.int32] = pictures.astype(np.int32) @ np.array([65_536, 256, 1], np.int32)
    return numbers


def _fills_a_band(covered: NDArray[np.bool_]) -> bool:
    """Tell whether the pixels (S, H, W) fill most of so many rows in a row."""
    longest = run = 0
    for filled in covered.mean(axis=(0, 2)) > 0.6:
        run = run + 1 if filled else 0
        longest = max(longest, run)
    return bool(longest >= _BAND * covered.shape[1])


def short_numbers(frame: Frame) -> NDArray[np.uint16]:
    """Return each pixel's colour (H, W, 3) as a number of 16 bits (H, W), all of an Atari's colours told apart."""
    packed = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR565), np.uint8)
    return packed.view(np.uint16)[..., 0]


def plain_picture(height: int, width: int, colour: NDArray[np.uint8]) -> Frame:
    """Return a picture (H, W, 3) of one colour (3,)."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = colour
    return picture
