"""From raw Atari frames to observations, step for step as ale-py's C++ vector environment does it.

Grey through the console's palette, maximum of the last two frames (sprites flicker), area-averaging to 84x84, a stack
that starts filled with zeros. Axis legend: H, W the raw screen (210 x 160 in most games), S the stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from ale_py import ALEInterface
from numpy.typing import NDArray

from rims_rl.envs.distractors.distraction import suit_grey
from rims_rl.envs.distractors.distractor import Distractors
from rims_rl.envs.native_screen import native_push
from rims_rl.envs.protocols import SCREEN_SIZE
from rims_rl.envs.snapshots import array
from rims_rl.errors import ConfigError

FOREIGN_GREYS = frozenset({"air_raid"})
"""Games whose greys in ALE do not belong to their colours: Air Raid's rom is for PAL."""


def alter_grey(game: str, distractors: Distractors) -> bool:
    """Tell whether distractors alter the game's frames in grey, a third of the bytes, rather than in RGB.

    Raises:
        ConfigError: for distractors that need colours where the grey of a game's colours is not what agents see.
    """
    in_grey = suit_grey(distractors)
    if not in_grey and game in FOREIGN_GREYS:
        raise ConfigError(
            f"{game}: ALE's greys do not belong to its colours, so noise, background and held-out contrast, which need "
            "colours, would show another picture; choose other kinds"
        )
    return in_grey


FrameHook = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


class Screen:
    """The last two raw frames in grey and the stack of observations made from them."""

    def __init__(self, shape: tuple[int, int], frame_stack: int) -> None:
        self.newest: NDArray[np.uint8] = np.zeros(shape, np.uint8)  # (H, W)
        self.previous: NDArray[np.uint8] = np.zeros(shape, np.uint8)  # (H, W)
        self.stack: NDArray[np.uint8] = np.zeros((frame_stack, SCREEN_SIZE, SCREEN_SIZE), np.uint8)  # (S, 84, 84)
        self._native_push = native_push(*shape)

    def clear(self) -> None:
        """Forget everything: a new game starts from a stack of zeros."""
        self.previous[:] = 0
        self.stack[:] = 0

    def push(self) -> None:
        """Put the maximum of the two frames, resized, at the end of the stack."""
        # In place, as in C++: a game that ends within a step shows this maximum once more instead of its last frames.
        if self._native_push is not None:
            self._native_push(self.newest, self.previous, self.stack)
            return
        np.maximum(self.newest, self.previous, out=self.newest)
        self.stack[:-1] = self.stack[1:]
        cv2.resize(self.newest, (SCREEN_SIZE, SCREEN_SIZE), dst=self.stack[-1], interpolation=cv2.INTER_AREA)

    def snapshot(self) -> dict[str, Any]:
        """Return copies of the frames (H, W) and the stack (S, 84, 84)."""
        return {"newest": self.newest.copy(), "previous": self.previous.copy(), "stack": self.stack.copy()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned; raises ConfigError when it is of other sizes."""
        for name in ("newest", "previous", "stack"):
            own: NDArray[np.uint8] = getattr(self, name)
            own[...] = array(snapshot, name, own.shape, np.uint8)


def capture(ale: ALEInterface, hook: FrameHook | None, target: NDArray[np.uint8]) -> None:
    """Write the present screen in grey into `target` (H, W); a `hook` alters its RGB form (H, W, 3) before that."""
    if hook is None:
        ale.getScreenGrayscale(target)
    else:
        to_grey(hook(ale.getScreenRGB()), target)


def to_grey(frame: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Write an RGB frame (H, W, 3) in grey into `target` (H, W)."""
    # On the console's own colours this gives its own grey levels, but for one of them, (168, 72, 158), seen in Laser
    # Gates, which gets one level more. Air Raid's greys differ more, see FOREIGN_GREYS.
    cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY, dst=target)
