"""A camera that doesn't hold still."""

from __future__ import annotations

import numpy as np

from rims_rl.envs.distractors.distractor import SPLITS
from rims_rl.envs.distractors.effect import Effect
from rims_rl.envs.distractors.looks import Frame

_FARTHEST = 14  # pixels along each axis, at intensity 1


class Shake(Effect):
    """The picture moves as a whole, slowly in training and nervously held out; its edges are repeated outwards.

    Up and down it moves by even numbers of pixels in training, by odd ones held out, so no picture is in both.
    """

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw the motion along both axes."""
        periods = (60, 120) if self.is_train else (14, 40)
        self._turns = 2 * np.pi / generator.uniform(*periods, 2)
        self._phases = generator.uniform(0, 2 * np.pi, 2)
        self._held = generator.choice((-1.0, 1.0), 2)
        self._reach = _FARTHEST * self.screen.unit * self.spec.intensity

    def apply(self, frame: Frame, time: int) -> None:
        """Move the picture."""
        swing = np.sin(self._phases + self._turns * time) if self.spec.dynamic else self._held
        far, right = (swing * self._reach).tolist()
        down, right = (2 * round(far / 2) if self.is_train else 2 * int(far // 2) + 1), round(right)
        down, right = _within(down, frame.shape[0]), _within(right, frame.shape[1])
        before = frame.copy()
        (rows, from_rows), (columns, from_columns) = (
            _places(size, by) for size, by in zip(frame.shape, (down, right), strict=False)
        )
        frame[rows, columns] = before[from_rows, from_columns]
        _repeat_edge(frame, down)
        _repeat_edge(frame.swapaxes(0, 1), right)


def _within(by: int, size: int) -> int:
    """Return how far to move so that a pixel of an axis is still seen."""
    return max(min(by, size - 1), 1 - size)


def _places(size: int, by: int) -> tuple[slice, slice]:
    """Return where along an axis the moved picture lies, and which part of it is still seen."""
    return slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size - max(by, 0))


def _repeat_edge(frame: Frame, by: int) -> None:
    """Fill what came in along the first axis with the picture's edge, in place."""
    if by > 0:
        frame[:by] = frame[by]
    elif by < 0:
        frame[by:] = frame[by - 1]
