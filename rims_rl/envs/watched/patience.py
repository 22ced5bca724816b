"""How long workers may be silent, and how often they may be replaced."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rims_rl.envs.protocols import check_count
from rims_rl.errors import ConfigError

SECONDS_TO_START = 120.0
"""At least so long may all workers together take to start."""
_LONGEST_WAIT, _WAITS = 1.0, 10
"""Seconds that are waited at a time, and how often at least: each time, a stop of this process may cost as much."""
_Ready = TypeVar("_Ready")


@dataclass(frozen=True)
class Patience:
    """When a worker counts as hanging, and what its faults may cost.

    Raises:
        ConfigError: one line on what cannot work.
    """

    seconds: float | None = 60.0
    """Seconds in which all copies must have answered a step, a reset or a call; None waits for ever."""
    restarts: int = 3
    """How often each copy may be replaced in the life of its VecEnv; 0: its first fault is raised."""

    def __post_init__(self) -> None:
        """Check both fields."""
        if self.seconds is not None and not _is_a_time(self.seconds):
            raise ConfigError(
                f"seconds (step_timeout) must be a number above 0, or None to wait for ever, got {self.seconds!r}"
            )
        check_count("restarts (env_restarts)", self.restarts, 0)

    @property
    def seconds_to_start(self) -> float | None:
        """Seconds in which all copies must have been built."""
        return None if self.seconds is None else max(self.seconds, SECONDS_TO_START)


def asked_patience(subprocess: bool, step_timeout: float | None, env_restarts: int) -> Patience:
    """Return the patience that these settings of an environment mean; raises ConfigError where they mean nothing."""
    patience = Patience(step_timeout, env_restarts)
    asked = ["step_timeout"] * (patience.seconds != Patience.seconds)
    asked += ["env_restarts"] * (patience.restarts != Patience.restarts)
    if asked and not subprocess:
        raise ConfigError(
            f"{' and '.join(asked)}: only for environments in processes of their own, use subprocess=True"
        )
    return patience


def _is_a_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


class Clock:
    """Counts the seconds of waiting down; those in which this process was itself stopped (Ctrl-Z) hardly count."""

    def __init__(self, seconds: float | None) -> None:
        self.left = math.inf if seconds is None else seconds
        self._longest = min(_LONGEST_WAIT, self.left / _WAITS)

    def count(self, wait: Callable[[float], _Ready]) -> _Ready:
        """Return what `wait` returns, which is told how many seconds it may take."""
        longest, began = min(self.left, self._longest), time.monotonic()
        ready = wait(longest)
        self.left -= min(time.monotonic() - began, longest)
        return ready
