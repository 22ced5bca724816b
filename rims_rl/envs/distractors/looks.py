"""What the two splits draw from: colours, and small pictures that are stamped onto frames.

The splits share nothing. Colours differ in grey as well, since agents see grey. Axes: H rows, W columns.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.distractor import SPLITS

Frame = NDArray[np.uint8]

COLOURS: dict[str, NDArray[np.uint8]] = {
    "train": np.array(
        [(200, 72, 72), (214, 134, 60), (236, 214, 96), (88, 182, 84), (240, 160, 150), (156, 110, 40)], np.uint8
    ),
    "held-out": np.array(
        [(150, 84, 206), (92, 130, 250), (84, 206, 216), (228, 104, 196), (60, 110, 150), (206, 190, 250)], np.uint8
    ),
}
"""RGB colours per split (6, 3): warm ones and greens, cold ones and purples."""

TRAIN = SPLITS[0]


class Stamp(NamedTuple):
    """A small picture with holes."""

    picture: Frame
    """Its RGB pixels (H, W, 3), or grey ones (H, W)."""
    mask: Frame
    """255 where it covers, 0 where it has a hole (H, W)."""


def pick_colours(split: str, count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw colours of a split (count, 3), all different before one comes again."""
    colours = COLOURS[split]
    rounds = [generator.permutation(len(colours)) for _ in range(-(-count // len(colours)))]
    return colours[np.concatenate(rounds)[:count]] if count else colours[:0]


def grey_of(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB colours (..., 3) in grey (...), as agents see them."""
    row = np.ascontiguousarray(colours).reshape(1, -1, 3)
    return np.asarray(cv2.cvtColor(row, cv2.COLOR_RGB2GRAY), np.uint8).reshape(colours.shape[:-1])


def stamp_of(mask: NDArray[np.bool_], colour: NDArray[np.uint8]) -> Stamp:
    """Return a stamp of one colour (3,), or one grey (), from where it covers (H, W)."""
    picture = np.empty((*mask.shape, *colour.shape), np.uint8)
    picture[:] = colour
    return Stamp(picture, mask.astype(np.uint8) * 255)


def put(frame: Frame, stamp: Stamp, top: int, left: int) -> None:
    """Stamp onto a frame (H, W, 3) or (H, W), in place; what lies beyond its edges is cut off."""
    height, width = stamp.mask.shape
    if 0 <= top <= frame.shape[0] - height and 0 <= left <= frame.shape[1] - width:  # most are whole
        cv2.copyTo(stamp.picture, stamp.mask, frame[top : top + height, left : left + width])
        return
    up, before = max(-top, 0), max(-left, 0)
    down, after = min(height, frame.shape[0] - top), min(width, frame.shape[1] - left)
    if down > up and after > before:
        target = frame[top + up : top + down, left + before : left + after]
        cv2.copyTo(stamp.picture[up:down, before:after], stamp.mask[up:down, before:after], target)


def put_translucent(frame: Frame, stamp: Stamp, top: int, left: int, opacity: float) -> None:
    """Stamp onto a frame (H, W, 3) or (H, W), in place, so that what is below shines through."""
    height, width = stamp.mask.shape
    up, before = max(-top, 0), max(-left, 0)
    down, after = min(height, frame.shape[0] - top), min(width, frame.shape[1] - left)
    if down > up and after > before:
        target = frame[top + up : top + down, left + before : left + after]
        mixed = cv2.addWeighted(stamp.picture[up:down, before:after], opacity, target, 1 - opacity, 0.0)
        cv2.copyTo(mixed, stamp.mask[up:down, before:after], target)
