"""What lies on top of the game: curtains that hide it, and counters that look like scores."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.distractor import SPLITS
from rims_rl.envs.distractors.effect import Effect, bounced
from rims_rl.envs.distractors.looks import Frame, Stamp, pick_colours, put_translucent, stamp_of

_GLYPHS: dict[str, tuple[str, ...]] = {
    "train": (
        "7 5 5 5 7", "2 6 2 2 7", "7 1 7 4 7", "7 1 3 1 7", "5 5 7 1 1",
        "7 4 7 1 7", "7 4 7 5 7", "7 1 2 2 2", "7 5 7 5 7", "7 5 7 1 7",
    ),
    "held-out": (
        "0e 11 13 15 19 11 0e", "04 0c 04 04 04 04 0e", "0e 11 01 02 04 08 1f", "1f 02 04 02 01 11 0e",
        "02 06 0a 12 1f 02 02", "1f 10 1e 01 01 11 0e", "06 08 10 1e 11 11 0e", "1f 01 02 04 08 08 08",
        "0e 11 11 0e 11 11 0e", "0e 11 11 0f 01 02 0c",
    ),
}  # fmt: skip


class Curtain(Effect):
    """Bars that sweep over the screen and hide what is behind: upright in training, lying held out."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw the bars' colours, places and speeds."""
        across = self.screen.width if self.is_train else self.screen.height
        count = 1 + round(2 * self.spec.intensity)
        self._thick = max(round(across * 0.36 * self.spec.intensity / count), 1)
        self._span = across - self._thick
        self._colours = self.as_seen(pick_colours(self.spec.split, count, generator))
        speeds = (0.35, 0.8) if self.is_train else (0.9, 1.4)
        self._speeds = (generator.uniform(*speeds, count) * self.screen.unit).tolist()
        self._starts = (generator.random(count) * 2 * self._span).tolist()

    def apply(self, frame: Frame, time: int) -> None:
        """Draw the bars at their places."""
        turned = frame.swapaxes(0, 1) if self.is_train else frame
        for colour, start, speed in zip(self._colours, self._starts, self._speeds, strict=True):
            edge = int(bounced(start + speed * time, self._span))
            turned[edge : edge + self._thick] = colour


class Digits(Effect):
    """Counters that look like scores: digits of 3 x 5 blocks in training, of 5 x 7 held out."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw where the counters stand, in which colours, what they show and how they count."""
        count = 1 + round(3 * self.spec.intensity)
        self._block = max(round(self.screen.unit * ((1.5 if self.is_train else 1.2) + self.spec.intensity)), 1)
        self._colours = self.as_seen(pick_colours(self.spec.split, count, generator))
        tops = (np.arange(count) + 0.7 * generator.random(count)) / count * self.screen.height
        lefts = generator.random(count) * 0.7 * self.screen.width
        self._places = np.stack([tops, lefts], axis=1).astype(int).tolist()
        self._values = generator.integers(100, 1000, count).tolist()
        self._rises = generator.integers(*((1, 20) if self.is_train else (20, 90)), count).tolist()
        self._waits = generator.integers(*((10, 30) if self.is_train else (30, 60)), count).tolist()
        self._shown: list[tuple[int, Stamp | None]] = [(-1, None)] * count

    def apply(self, frame: Frame, time: int) -> None:
        """Stamp the counters."""
        for index, (top, left) in enumerate(self._places):
            value = (self._values[index] + time // self._waits[index] * self._rises[index]) % 1000
            shown, stamp = self._shown[index]
            if stamp is None or shown != value:
                stamp = stamp_of(_number(value, self.spec.split, self._block), self._colours[index])
                self._shown[index] = (value, stamp)
            put_translucent(frame, stamp, top, left, 0.5 + 0.5 * self.spec.intensity)


def _number(value: int, split: str, block: int) -> NDArray[np.bool_]:
    """Return three digits side by side, blocks wider than high as on the console."""
    glyphs = np.concatenate([np.pad(glyphs_of(split)[int(digit)], ((0, 0), (0, 1))) for digit in f"{value:03}"], axis=1)
    return glyphs.repeat(block, 0).repeat(block, 1)


@lru_cache(maxsize=2)
def glyphs_of(split: str) -> list[NDArray[np.bool_]]:
    """Return the split's ten digits as blocks (rows, columns)."""
    width, base = (3, 8) if split == "train" else (5, 16)
    return [_glyph(rows.split(), width, base) for rows in _GLYPHS[split]]


def _glyph(rows: list[str], width: int, base: int) -> NDArray[np.bool_]:
    """Return one digit from a number per row, whose bits are the blocks."""
    return np.array([[int(row, base) >> (width - 1 - column) & 1 for column in range(width)] for row in rows], bool)
