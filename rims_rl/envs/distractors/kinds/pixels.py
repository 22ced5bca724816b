"""Noise on single pixels: drawn once for a larger area, of which every frame shows another part.

Axes: H rows, W columns, both with a margin.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.distractor import SPLITS, Distractor
from rims_rl.envs.distractors.effect import Effect, Screen
from rims_rl.envs.distractors.looks import Frame

_MARGIN, _PLACES = 64, 1021
_STRONGEST, _DENSEST = 80.0, 0.3  # standard deviation in grey levels, share of pixels


class _Grain(Effect):
    """A pair of patterns per frame, cut from a larger area at places that are drawn by chance."""

    def __init__(self, spec: Distractor, screen: Screen) -> None:
        super().__init__(spec, screen)
        self._up, self._down = self.patterns()

    def patterns(self) -> tuple[Frame, Frame]:
        """Return what is put on frames, with a margin of 64 pixels."""
        raise NotImplementedError

    def begin(self, generator: np.random.Generator) -> None:
        """Draw which part each frame shows."""
        self._places = generator.integers(_MARGIN, size=(_PLACES, 2)).tolist()

    def parts(self, time: int) -> tuple[Frame, Frame]:
        """Return the two patterns (H, W, 3), or (H, W) in grey, of a frame."""
        y, x = self._places[time % _PLACES if self.spec.dynamic else 0]
        place = np.s_[y : y + self.screen.height, x : x + self.screen.width]
        return self._up[place], self._down[place]


class Noise(_Grain):
    """Gaussian noise: fine and in colour in training, in grains of 2 x 2 pixels and grey held out."""

    def patterns(self) -> tuple[Frame, Frame]:
        """Return what is added and what is taken away."""
        return gaussian_patterns(self.spec.split, self.spec.intensity, self.screen.height, self.screen.width)

    def apply(self, frame: Frame, time: int) -> None:
        """Add the noise, cut off at black and white."""
        up, down = self.parts(time)
        cv2.add(frame, up, dst=frame)
        cv2.subtract(frame, down, dst=frame)


class SaltAndPepper(_Grain):
    """Pixels that are black or white: single ones in training, two side by side held out."""

    grey_splits = SPLITS

    def patterns(self) -> tuple[Frame, Frame]:
        """Return the least and the greatest value that every pixel may have."""
        salt, pepper = salt_patterns(self.spec.split, self.spec.intensity, self.screen.height, self.screen.width)
        return self.as_seen(salt), self.as_seen(pepper)

    def apply(self, frame: Frame, time: int) -> None:
        """Set the pixels."""
        salt, pepper = self.parts(time)
        cv2.max(frame, salt, dst=frame)
        cv2.min(frame, pepper, dst=frame)


@lru_cache(maxsize=8)
def gaussian_patterns(split: str, intensity: float, height: int, width: int) -> tuple[Frame, Frame]:
    """Return noise in two halves, what is added and what is taken away, each (H, W, 3)."""
    grain, channels = (1, 3) if split == "train" else (2, 1)
    values = _generator(split, 0).standard_normal(_shape(height, width, grain, channels), np.float32)
    levels = np.rint(_grown(values, grain, height, width) * (_STRONGEST * intensity))
    return np.clip(levels, 0, 255).astype(np.uint8), np.clip(-levels, 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def salt_patterns(split: str, intensity: float, height: int, width: int) -> tuple[Frame, Frame]:
    """Return salt, 255 at white pixels and else 0, and pepper, 0 at black pixels and else 255, each (H, W, 3)."""
    grain = 1 if split == "train" else 2
    values = _generator(split, 1).random(_shape(height, width, grain, 1), np.float32)
    values = _grown(values, grain, height, width)
    half = _DENSEST * intensity / 2
    return (values < half).astype(np.uint8) * 255, (values < 1 - half).astype(np.uint8) * 255


def _generator(split: str, of: int) -> np.random.Generator:
    return np.random.default_rng([SPLITS.index(split), of])


def _shape(height: int, width: int, grain: int, channels: int) -> tuple[int, int, int]:
    """Return the size of a pattern in grains."""
    return -(-(height + _MARGIN) // grain), -(-(width + _MARGIN) // grain), channels


def _grown(values: NDArray[np.float32], grain: int, height: int, width: int) -> NDArray[np.float32]:
    """Return values per grain as values per pixel and channel (H, W, 3)."""
    pixels = values.repeat(grain, 0).repeat(grain, 1)[: height + _MARGIN, : width + _MARGIN]
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
