"""The errors that rims_rl raises on purpose: one line each, what was wrong and what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class RimsError(Exception):
    """Base of every error that rims_rl raises on purpose; the command line prints it as one line and exits with 2."""


class ConfigError(RimsError, ValueError):
    """A setting that cannot work: out of range, not dividing, or contradicting another one."""


class UnknownNameError(ConfigError):
    """A name that is not known (game, core, preset, option); the message holds the nearest names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}; {nearest_names(name, known)}")


class CheckpointError(RimsError):
    """A file that is not a checkpoint of ours, is damaged, or does not fit; the message holds its path."""


class RunExistsError(ConfigError):
    """A run folder that already holds a run and would be overwritten."""


class NonFiniteError(RimsError):
    """NaN or infinity where a finite number is needed; the message names the quantity."""

    def __init__(self, message: str, evidence: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.evidence: dict[str, Any] = dict(evidence or {})
        """Tensors that the numbers came from, by name; empty where the message says it all."""


class OutOfMemory(RimsError):  # noqa: N818 - torch's own OutOfMemoryError is another thing
    """Memory is used up, on a GPU or in the machine; the message names the settings to turn down."""


def nearest_names(name: str, known: Iterable[str], most: int = 5) -> str:
    """Return 'did you mean ...?' with the nearest of `known`, or the list of all when nothing is near."""
    options = sorted(set(known))
    folded = {option.lower(): option for option in options}
    near = [folded[match] for match in get_close_matches(name.lower(), folded, n=most, cutoff=0.5)]
    if near:
        return "did you mean " + " or ".join(repr(option) for option in near) + "?"
    shown = ", ".join(options[:40]) + (", ..." if len(options) > 40 else "")
    return f"known names: {shown}"
