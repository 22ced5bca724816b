"""Procedural textures for the background, half of them held out.

Axes: H rows, W columns. Brightness goes from 0 to 1; coordinates are in pixels of a screen of 210 rows.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.looks import COLOURS, Frame

Field = NDArray[np.float64]
Texture = Callable[[Field, Field, np.random.Generator], Field]


def make_texture(split: str, height: int, width: int, unit: float, generator: np.random.Generator) -> Frame:
    """Draw a texture of the split (H, W, 3), between two of the split's colours."""
    y, x = np.mgrid[:height, :width] / unit
    known = TEXTURES[split]
    brightness = known[generator.integers(len(known))](y, x, generator)[..., None]
    pair = COLOURS[split][generator.permutation(len(COLOURS[split]))[:2]].astype(np.float64)
    dark, bright = sorted(pair, key=np.sum)
    mixed = np.rint(0.4 * dark + brightness * (bright - 0.4 * dark))
    return np.asarray(mixed, np.uint8)


def _waves(y: Field, x: Field, generator: np.random.Generator) -> Field:
    """Three waves across each other."""
    turns = generator.uniform(0, np.pi, 3)
    lengths = generator.uniform(24, 60, 3)
    phases = generator.uniform(0, 2 * np.pi, 3)
    waves = [
        np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / length + phase)
        for turn, length, phase in zip(turns, lengths, phases, strict=True)
    ]
    return np.asarray(0.5 + sum(waves) / 6)


def _checks(y: Field, x: Field, generator: np.random.Generator) -> Field:
    """A chessboard."""
    side = generator.uniform(14, 30)
    return np.asarray((y // side + x // side) % 2)


def _clouds(y: Field, x: Field, generator: np.random.Generator) -> Field:
    """Soft spots of many sizes."""
    total = np.zeros_like(y)
    for cells, weight in ((4, 0.55), (9, 0.3), (19, 0.15)):
        total += weight * cv2.resize(generator.random((cells, cells)), y.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(2 * total - 0.5, 0, 1)


def _rings(y: Field, x: Field, generator: np.random.Generator) -> Field:
    """Circles around a point."""
    centre = generator.random(2) * (y.max(), x.max())
    return np.asarray(
        0.5 + 0.5 * np.sin(np.hypot(y - centre[0], x - centre[1]) * 2 * np.pi / generator.uniform(20, 44))
    )


def _bricks(y: Field, x: Field, generator: np.random.Generator) -> Field:
    """A wall of bricks, each with a brightness of its own."""
    high = generator.uniform(12, 22)
    row = (y // high).astype(int)
    column = (x // (2 * high) + 0.5 * (row % 2)).astype(int)
    shades = generator.uniform(0, 1, (row.max() + 1, column.max() + 1))
    return np.asarray(shades[row, column])


def _zigzag(y: Field, x: Field, generator: np.random.Generator) -> Field:
    """Stripes that go up and down."""
    period, height = generator.uniform(24, 48, 2)
    return np.asarray(((y + np.abs(x % period - period / 2)) % height < height / 2) * 1.0)


TEXTURES: dict[str, tuple[Texture, ...]] = {
    "train": (_waves, _checks, _clouds),
    "held-out": (_rings, _bricks, _zigzag),
}
"""What each split draws from."""
