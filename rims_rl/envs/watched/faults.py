"""What can go wrong with a copy of an environment, in words."""

from __future__ import annotations

import signal
import traceback
from textwrap import shorten
from typing import Any, NamedTuple

_LONGEST_ACTION, _LONGEST_REASON = 60, 300


class Trouble(NamedTuple):
    """Stands in the place of an answer."""

    reason: str
    """What it did: "died with exit code 3"."""
    is_lost: bool = True
    """Whether its process is of no more use: dead, hanging, or not to be understood."""
    traceback: str = ""
    """The worker's own, where it raised."""
    error: Exception | None = None
    """What it raised, where that could be sent."""


def culprit(index: int, seed: int | None, action: Any, restarts: int = 0) -> str:
    """Return which copy of the environments it is, as "environment 3 (seed 10, last action 2, 1 restart)"."""
    known = [
        "no seed" if seed is None else f"seed {seed}",
        "no action yet" if action is None else f"last action {shorten(str(action), _LONGEST_ACTION)}",
    ]
    if restarts:
        known.append(f"{restarts} restart{'s' if restarts > 1 else ''}")
    return f"environment {index} ({', '.join(known)})"


def last_line(error: BaseException) -> str:
    """Return the end of an error's traceback as one line: "ZeroDivisionError: division by zero"."""
    return shorten("".join(traceback.format_exception_only(error)), _LONGEST_REASON)


def death(code: int | None) -> Trouble:
    """Return what befell a process that ended with this exit code; None: it lives, but doesn't listen."""
    if code is None:
        return Trouble("closed its connection")
    known = {-number.value: f" ({number.name})" for number in signal.Signals}
    return Trouble(f"died with exit code {code}{known.get(code, '')}")


def silence(seconds: float) -> Trouble:
    """Return what befell a process that has not answered in time."""
    return Trouble(f"gave no answer within {seconds:g} s")
