"""Digits as sequences of black and white pixels, and which of them are for training, validation and test.

Axes: N digits, T pixels of a digit, S rows and columns of an image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rims_rl.errors import ConfigError
from rims_rl.experiments.mnist import Digits
from rims_rl.experiments.trial import stream_seed

_WHITE = 128  # grey values are rounded at a half: 127 / 255 is below it, 128 / 255 above


class LabelledPixels(NamedTuple):
    """Digits as sequences."""

    pixels: Tensor
    """(T, N) of uint8: 0 black, 1 white."""
    labels: Tensor
    """(N,) of int64."""

    def chosen(self, which: Tensor) -> LabelledPixels:
        """Return the digits of the given numbers."""
        return LabelledPixels(self.pixels[:, which], self.labels[which])


def resize_nearest(images: Tensor, size: int) -> Tensor:
    """Resize square images (N, S, S) to (N, size, size): row and column i are taken from floor(i * S / size).

    This is the rule of `torch.nn.functional.interpolate` with mode "nearest", which the authors use.
    """
    source = torch.arange(size) * images.shape[-1] // size
    return images[:, source][:, :, source]


def pixel_sequences(images: NDArray[np.uint8], size: int) -> Tensor:
    """Return grey images (N, 28, 28) as sequences (size * size, N) of 0 and 1: rounded, then resized, row by row."""
    white = (torch.from_numpy(images) >= _WHITE).to(torch.uint8)
    return resize_nearest(white, size).flatten(1).T.contiguous()


def labelled_pixels(digits: Digits, size: int, device: torch.device) -> LabelledPixels:
    """Return digits as sequences of a resolution, on a device."""
    pixels = pixel_sequences(digits.images, size)
    return LabelledPixels(pixels.to(device), torch.from_numpy(digits.labels).to(device))


def shuffled(count: int, name: str) -> Tensor:
    """Return 0 .. count - 1 in a random order that `name` alone decides, the same for all trials and models."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(stream_seed(name)))


def split(count: int, limit: int | None, validation_share: float) -> tuple[Tensor, Tensor]:
    """Draw the digits that are trained on and those of the validation: plainly at random, not by class, and only once.

    Args:
        count: how many digits there are.
        limit: how many of them are used; None for all.
        validation_share: the part of those that is for validation, at least one digit.

    Raises:
        ConfigError: when there are fewer digits than asked for, or none is left for training.
    """
    used = shuffled(count, "mnist split")[: at_most(limit, count, "digits")]
    validation = max(1, round(validation_share * len(used)))
    if validation >= len(used):
        raise ConfigError(f"{len(used)} digits leave none for training; digits must be more, or validation_share less")
    return used[validation:], used[:validation]


def at_most(limit: int | None, count: int, name: str) -> int:
    """Return how many of `count` are used: `limit`, or all; raises ConfigError when there are fewer than asked for."""
    if limit is not None and limit > count:
        raise ConfigError(f"{name} is {limit:,}, but there are only {count:,} of them")
    return count if limit is None else limit
