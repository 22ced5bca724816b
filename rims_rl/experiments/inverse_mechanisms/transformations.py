"""The ten changes that experts learn to undo, and the letters on which they show what they learned.

Parascandolo et al. 2018, section 4: digits of 28x28 pixels are padded to 32x32, and each mechanism does one thing to
them: eight move a digit by four pixels, one swaps black and white, one adds noise.

Axes: N or B images, H rows and W columns; grey values lie in [0, 1], 0 is black ground.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rims_rl.experiments.mnist import SIDE

SHIFT = 4
"""Pixels by which a digit is moved, along each axis along which it is moved."""
NOISE_VARIANCE = 0.25
"""Variance of the noise, before grey values are clamped to [0, 1]."""
MARGIN = 2
"""Black pixels that are added on each side of a digit."""

Transformation = Callable[[Tensor], Tensor]


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Move images (..., H, W) down and right by pixels (negative: up and left); what leaves is lost, black enters."""
    height, width = images.shape[-2:]
    moved = torch.zeros_like(images)
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    old_rows, old_columns = slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))
    moved[..., rows, columns] = images[..., old_rows, old_columns]
    return moved


def inverted(images: Tensor) -> Tensor:
    """Swap black and white."""
    return 1.0 - images


def noisy(images: Tensor) -> Tensor:
    """Add Gaussian noise from the global generator, the same for no two pixels, and clamp to [0, 1]."""
    noise = torch.randn(images.shape).to(images.device)
    changed: Tensor = images + NOISE_VARIANCE**0.5 * noise
    return changed.clamp(0.0, 1.0)


TRANSFORMATIONS: dict[str, Transformation] = {
    "up": partial(shifted, down=-SHIFT, right=0),
    "up-right": partial(shifted, down=-SHIFT, right=SHIFT),
    "right": partial(shifted, down=0, right=SHIFT),
    "down-right": partial(shifted, down=SHIFT, right=SHIFT),
    "down": partial(shifted, down=SHIFT, right=0),
    "down-left": partial(shifted, down=SHIFT, right=-SHIFT),
    "left": partial(shifted, down=0, right=-SHIFT),
    "up-left": partial(shifted, down=-SHIFT, right=-SHIFT),
    "inversion": inverted,
    "noise": noisy,
}
"""The paper's ten, by name."""


def transformed(images: Tensor, which: Tensor, names: Sequence[str]) -> Tensor:
    """Put each image through its own transformation.

    Args:
        images: (B, 1, H, W).
        which: (B,) of numbers of `names`.
        names: transformations.
    """
    changed = torch.empty_like(images)
    for number, name in enumerate(names):
        mine = which == number
        changed[mine] = TRANSFORMATIONS[name](images[mine])
    return changed


def padded(images: NDArray[np.uint8]) -> Tensor:
    """Return digits of bytes (N, 28, 28) as grey values (N, 1, 32, 32)."""
    grey = torch.from_numpy(np.ascontiguousarray(images)).float() / 255.0
    return F.pad(grey, (MARGIN, MARGIN, MARGIN, MARGIN))[:, None]


# ---------------------------------------------------------------------- letters

# The lines of each letter: points "xy" on a grid of 0 to 9, x to the right and y down; " / " lifts the pen.
_STROKES = {
    "A": "09 50 99 / 26 76", "B": "00 60 82 64 04 / 64 97 69 09 00", "C": "92 70 30 03 06 39 79 97",
    "D": "00 60 93 96 69 09 00", "E": "90 00 09 99 / 04 74", "F": "90 00 09 / 04 74", "H": "00 09 / 90 99 / 04 94",
    "K": "00 09 / 90 05 99", "L": "00 09 99", "M": "09 00 55 90 99", "N": "09 00 99 90", "P": "09 00 70 92 75 05",
    "R": "09 00 70 92 75 05 / 45 99", "T": "00 90 / 50 59", "U": "00 06 39 69 96 90", "V": "00 59 90",
    "W": "00 29 43 79 90", "X": "00 99 / 90 09", "Y": "00 45 90 / 45 49",
}  # fmt: skip
LETTERS = "".join(_STROKES)
"""The letters that are drawn: those that no digit looks like."""

_FINE = 8  # a letter is drawn with this many dots per pixel and then scaled down, which smooths its edges
_BODY = 20  # MNIST's digits fill a box of 20x20 pixels, and so do the letters at most


def draw_letters(count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw letters in the manner of MNIST: light on dark, in a box of at most 20x20, their mass in the middle.

    Letter, width of letter and pen, slant, and how far each point of a line is off are drawn at random.

    Returns:
        Bytes (count, 28, 28).
    """
    return np.stack([_letter(generator) for _ in range(count)])


def _letter(generator: np.random.Generator) -> NDArray[np.uint8]:
    strokes = _STROKES[LETTERS[generator.integers(len(LETTERS))]]
    pen, slant = int(generator.integers(14, 27)), generator.uniform(-0.1, 0.35)
    width, height = _FINE * generator.uniform(9, 15), _FINE * generator.uniform(15, 18)
    canvas = np.zeros((_FINE * SIDE, _FINE * SIDE), np.uint8)
    for stroke in strokes.split(" / "):
        grid = np.array([[int(digit) for digit in point] for point in stroke.split()]) / 9 - 0.5  # (points, 2)
        x, y = (grid + generator.normal(0, 0.04, grid.shape)).T
        points = np.stack([x * width - y * height * slant, y * height], axis=1) + _FINE * SIDE / 2
        cv2.polylines(canvas, [np.rint(points).astype(np.int32)], False, 255, pen, cv2.LINE_AA)
    return _centred(cv2.resize(_within(canvas), (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _within(canvas: NDArray[Any]) -> NDArray[Any]:
    """Shrink what is larger than the box."""
    _, _, width, height = cv2.boundingRect(canvas)
    scale = min(1.0, _FINE * _BODY / max(width, height))
    middle = len(canvas) / 2 * (1 - scale)
    return cv2.warpAffine(canvas, np.array([[scale, 0, middle], [0, scale, middle]]), canvas.shape)


def _centred(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Move an image by whole pixels so that its centre of mass is in the middle."""
    place = np.arange(SIDE)
    down, right = (round((SIDE - 1) / 2 - (image.sum(axis=1 - a) * place).sum() / image.sum()) for a in (0, 1))
    return shifted(torch.from_numpy(image), down, right).numpy()
