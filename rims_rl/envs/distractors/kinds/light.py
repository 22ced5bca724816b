"""Changes of the whole screen's light: flicker, lost frames, tints, contrast.

Axes: L levels, H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.distractor import SPLITS
from rims_rl.envs.distractors.effect import Effect
from rims_rl.envs.distractors.kinds.pixels import salt_patterns
from rims_rl.envs.distractors.looks import COLOURS, TRAIN, Frame

_LEVELS = 16
_GREYS = np.arange(256, dtype=np.float64)


def _table(curves: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return brightness curves (L, 256) as look-up tables."""
    return np.clip(np.rint(curves), 0, 255).astype(np.uint8)


def _swing(time: int, period: float, phase: float) -> float:
    """Return a number that swings between 0 and 1."""
    return 0.5 - 0.5 * float(np.cos(2 * np.pi * (time / period + phase)))


class Flicker(Effect):
    """Brightness that pulses: the screen goes dark at a stroke in training, glows up and down held out."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw how fast and from which moment on."""
        periods = (8, 12, 20) if self.is_train else (10, 16, 26)  # in frames, of which an agent's step has two
        self._period = int(generator.choice(periods))
        self._phase = float(generator.random())
        strength = np.linspace(0, self.spec.intensity, _LEVELS)[:, None]
        dark, bright = _GREYS * (1 - 0.85 * strength), _GREYS + (255 - _GREYS) * 0.65 * strength
        self._tables = _table(dark if self.is_train else bright)

    def apply(self, frame: Frame, time: int) -> None:
        """Darken or brighten the frame."""
        swing = _swing(time, self._period, self._phase)
        level = round((float(swing > 0.5) if self.is_train else swing) * (_LEVELS - 1))
        if level:
            cv2.LUT(frame, self._tables[level], dst=frame)


class Drop(Effect):
    """Frames that are lost, up to every second one: black in training, television snow held out."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw which frames are lost: some in a row, so that the maximum over two frames does not bring them back."""
        self._row = 4 if self.is_train else 6
        self._lost = (generator.random(509) < 0.5 * self.spec.intensity).tolist()
        self._snow = self.as_seen(salt_patterns(self.spec.split, 1.0, self.screen.height, self.screen.width)[0])

    def apply(self, frame: Frame, time: int) -> None:
        """Blank the frame if it is one of the lost."""
        if not self._lost[time // self._row % len(self._lost)]:
            return
        if self.is_train:
            frame[:] = 0
        else:
            top = time * 29 % 61
            frame[:] = self._snow[top : top + frame.shape[0], : frame.shape[1]]


class Colour(Effect):
    """The screen seen through coloured glass: each split has its own colours."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw the colour and how fast its strength swings."""
        colours = COLOURS[self.spec.split]
        colour = self.as_seen(colours[generator.integers(len(colours))])
        self._tint = np.empty((self.screen.height, self.screen.width, *colour.shape), np.uint8)
        self._tint[:] = colour
        self._period = float(generator.uniform(*((90, 160) if self.is_train else (170, 300))))
        self._phase = float(generator.random())

    def apply(self, frame: Frame, time: int) -> None:
        """Mix the colour into the frame."""
        swing = _swing(time, self._period, self._phase) if self.spec.dynamic else 1.0
        share = 0.7 * self.spec.intensity * (0.5 + 0.5 * swing)
        cv2.addWeighted(frame, 1 - share, self._tint, share, 0.0, dst=frame)


class Contrast(Effect):
    """Contrast and brightness that are off: everything pale in training, gamma too low or too high held out."""

    grey_splits = (TRAIN,)  # a gamma curve over a grey is not the grey of three curves over colours

    def begin(self, generator: np.random.Generator) -> None:
        """Draw towards which brightness or gamma, and how fast its strength swings."""
        strength = self.spec.intensity * np.linspace(0.5, 1, _LEVELS)[:, None]
        if self.is_train:
            towards = generator.choice((70.0, 120.0, 170.0))
            self._tables = _table(_GREYS + 0.8 * strength * (towards - _GREYS))
        else:
            power = 1 + 1.6 * strength
            power = power if generator.random() < 0.5 else 1 / power
            inverted = 60 * strength  # so that black and white, which gamma leaves alone, change too
            self._tables = _table(inverted + (255 - 2 * inverted) * (_GREYS / 255) ** power)
        self._period = float(generator.uniform(*((70, 130) if self.is_train else (140, 260))))
        self._phase = float(generator.random())

    def apply(self, frame: Frame, time: int) -> None:
        """Change the frame's brightness."""
        swing = _swing(time, self._period, self._phase) if self.spec.dynamic else 1.0
        cv2.LUT(frame, self._tables[round(swing * (_LEVELS - 1))], dst=frame)
