"""What other processes are asked to do: recipes must be found by their module's name."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass

from rims_rl.bench.measure import Work

MIB = 2**20


@dataclass(frozen=True)
class Holds:
    """Holds some memory while it is built, and some more during each turn."""

    built_mib: int
    turn_mib: int

    def __call__(self) -> Work:
        held = bytearray(self.built_mib * MIB)
        _touch(held)
        return lambda: (_touch(bytearray(self.turn_mib * MIB)), len(held))


@dataclass(frozen=True)
class HasWorker:
    """Starts a process that holds some memory."""

    mib: int

    def __call__(self) -> Work:
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        worker = context.Process(target=_hold, args=(self.mib, ready), daemon=True)
        worker.start()
        return lambda: ready.wait(60)


@dataclass(frozen=True)
class Dies:
    """Takes its process with it, as the system does when memory is used up."""

    def __call__(self) -> Work:
        os._exit(7)


def _hold(mib: int, ready: multiprocessing.synchronize.Event) -> None:  # type: ignore[name-defined]
    held = bytearray(mib * MIB)
    _touch(held)
    ready.set()
    time.sleep(60)


def _touch(block: bytearray) -> None:
    """Write to every page, without which it would not be there."""
    block[::4096] = b"x" * len(block[::4096])
