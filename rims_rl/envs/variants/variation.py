"""What a RAM variation is, and the view of the console through which it reads and changes a running game.

Variations act once after every emulated frame: what they write is what the game computes and draws the next frame from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ale_py import ALEInterface
from numpy.typing import NDArray

from rims_rl.envs.random_state import dump_generator, load_generator
from rims_rl.envs.screen import FrameHook
from rims_rl.envs.snapshots import MOST, entry, text, whole_number
from rims_rl.errors import ConfigError

LEVELS = range(1, 6)
_STREAM = 0x7A11  # keeps this random stream apart from the environment's own under the same seed


class Console:
    """The console's 128 bytes of RAM by address, and what variations need to keep between frames.

    `frame` counts emulated frames since the game's start, `memory` holds whole numbers until the next start, `random`
    is a stream of its own: under one seed the start and the sticky actions are the same with and without variations.
    """

    def __init__(self, ale: ALEInterface) -> None:
        self.frame = 0
        self.memory: dict[str, int] = {}
        self.random = np.random.default_rng()
        self._ale = ale
        self._ram: NDArray[np.uint8] = ale.getRAM()

    def __getitem__(self, address: int) -> int:
        return int(self._ram[address])

    def __setitem__(self, address: int, value: int) -> None:
        self._ram[address] = value & 0xFF
        self._ale.setRAM(address, value & 0xFF)

    def seed(self, seed: int) -> None:
        """Start the random stream anew."""
        self.random = np.random.default_rng([_STREAM, seed])

    def begin(self) -> None:
        """Forget the last game."""
        self.frame = 0
        self.memory.clear()

    def advance(self, changes: Sequence[tuple[Change, int]]) -> None:
        """Apply the changes, each with its level, to the frame that was just emulated."""
        self._ram = self._ale.getRAM()
        for change, level in changes:
            change(self, level)
        self.frame += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the counters and the random stream; the RAM belongs to the emulator's state."""
        return {"frame": self.frame, "memory": dict(self.memory), "random": dump_generator(self.random)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned; raises ConfigError when it is damaged."""
        memory = entry(snapshot, "memory")
        if not isinstance(memory, dict):
            raise ConfigError("this snapshot is damaged: its memory is no mapping")
        self.frame = whole_number(snapshot, "frame")
        self.memory = {str(name): whole_number(memory, name, -MOST) for name in memory}
        load_generator(self.random, text(snapshot, "random"))


Change = Callable[[Console, int], None]


@dataclass(frozen=True)
class Variation:
    """One named change of a game."""

    name: str
    """HackAtari's name where the meaning is the same."""
    effect: str
    """What the player meets, in one sentence."""
    subjects: tuple[str, ...]
    """What it sets; two variations with a common subject contradict each other."""
    change: Change | None = None
    """Called after each emulated frame, with the level (0 where there is none)."""
    paint: FrameHook | None = None
    """Alters a raw RGB frame (H, W, 3) instead, where the RAM holds nothing that would do."""
    default_level: int = 0
    """Level 1 to 5 when none is given; 0 for a variation without levels."""


def write(values: dict[int, int]) -> Change:
    """Return the change that sets these addresses to these values in every frame."""

    def change(console: Console, level: int) -> None:
        for address, value in values.items():
            console[address] = value

    return change
