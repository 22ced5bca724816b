"""Sequences of bouncing balls as a data set: what is kept are paths, pictures are drawn when a batch is made.

Fifty thousand sequences of 51 pictures would take 10 GB, their paths take 160 MB. Pictures are black and white as those
of van Steenkiste et al. (2018). Every set has a seed of its own, so that all trials see the same data.

Axes: S sequences, T time, N balls, B batch, H rows, C columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rims_rl.envs.bouncing_balls import hide, render, sample_balls, sample_curtains, scene, simulate, window
from rims_rl.experiments.trial import stream_seed

Purpose = Literal["train", "validation", "test"]


class Sequences(NamedTuple):
    """The paths of balls."""

    name: str
    """The scene, a name of `bouncing_balls.SCENES`."""
    positions: NDArray[np.float32]
    """Centres (S, T, N, 2)."""
    radii: NDArray[np.float32]
    """(S, N); 0 for no ball."""
    curtains: NDArray[np.float32]
    """Left, top, right and bottom edge of what is hidden (S, 4)."""

    @property
    def total(self) -> int:
        """Number of sequences (S)."""
        return len(self.positions)

    def pictures(self, which: Tensor, size: int) -> Tensor:
        """Draw some sequences.

        Args:
            which: numbers of the sequences (B,).
            size: rows of a picture.

        Returns:
            Pictures (T, B, H, C), each pixel 0 or 1: 1 where balls cover at least half of it.
        """
        positions = self.positions[which.numpy()].swapaxes(0, 1)  # (T, B, N, 2)
        length, batch = positions.shape[:2]
        on, radii = window(scene(self.name), size), np.tile(self.radii[which.numpy()], (length, 1))
        drawn = render(positions.reshape(length * batch, *positions.shape[2:]), radii, on)
        if scene(self.name).curtain:
            drawn = hide(drawn, np.tile(self.curtains[which.numpy()], (length, 1)), on)
        return torch.from_numpy((drawn >= 0.5).astype(np.float32)).view(length, batch, *drawn.shape[1:])


@lru_cache(maxsize=16)
def make_sequences(name: str, purpose: Purpose, count: int, length: int) -> Sequences:
    """Return S sequences of T pictures of a scene, the same ones whenever they are asked for.

    Raises:
        UnknownNameError: for an unknown scene.
    """
    of, generator = scene(name), np.random.default_rng(stream_seed("bouncing balls", name, purpose))
    balls = sample_balls(of, count, generator)
    positions = simulate(balls, length, of.width).astype(np.float32)
    curtains = sample_curtains(of, count, generator).astype(np.float32)
    return Sequences(name, positions, balls.radii.astype(np.float32), curtains)
