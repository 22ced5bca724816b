"""What every kind of distractor is made of: an effect that draws a look per episode and alters frames.

A frame is altered as a function of the episode's look and the frame's number alone, so a place in an episode is two
numbers, and the same seed and episode give the same pixels whoever else is stepped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.distractor import Distractor
from rims_rl.envs.distractors.looks import Frame, grey_of


class Screen(NamedTuple):
    """The frames that are altered."""

    height: int
    """Rows (H); 210 on most Atari games."""
    width: int
    """Columns (W)."""
    game: str | None = None
    """The Atari game's rom name; None for any other environment."""
    is_grey: bool = False
    """Whether frames are grey (H, W) instead of RGB (H, W, 3); only for effects whose `grey_splits` say so."""

    @property
    def unit(self) -> float:
        """Pixels per pixel of an Atari screen: lengths are given for 210 rows."""
        return self.height / 210


class Effect(ABC):
    """One distractor at work on the frames of one environment."""

    grey_splits: ClassVar[tuple[str, ...]] = ()
    """Splits in which it may alter grey frames instead, as every channel is altered alike.

    Where pixels are covered or moved, that gives what altered RGB frames turned grey are; where they are mixed, as much
    but for rounding, at most one level of 255.
    """

    def __init__(self, spec: Distractor, screen: Screen) -> None:
        self.spec = spec
        self.screen = screen

    @property
    def is_train(self) -> bool:
        """Whether looks and motions are those of the train split."""
        return self.spec.split == "train"

    @abstractmethod
    def begin(self, generator: np.random.Generator) -> None:
        """Draw the look of an episode."""

    @abstractmethod
    def apply(self, frame: Frame, time: int) -> None:
        """Alter the episode's frame number `time` (H, W, 3), or (H, W) in grey, in place."""

    def follow(self, other: Effect) -> None:  # noqa: B027 - most have nothing to do here
        """Take over what another one of the same episode has learned from its frames."""

    def as_seen(self, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return RGB colours (..., 3) as frames show them: as they are, or in grey (...)."""
        return grey_of(colours) if self.screen.is_grey else colours


def bounced(position: float, span: float) -> float:
    """Return where something at `position` is when it turns at 0 and at `span`."""
    return span - abs(position % (2 * span) - span) if span else 0.0
