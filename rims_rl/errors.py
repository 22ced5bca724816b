"""The errors that rims_rl raises on purpose: one line each, what was wrong and what would be right."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_LONGEST_NAME = 100
_LONGEST_LINE = 2_000
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80


class RimsError(Exception):
    """Base of every error that rims_rl raises on purpose; the command line prints it as one line and exits with 2."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(RimsError, ValueError):
    """A setting that cannot work: out of range, not dividing, or contradicting another one."""


class UnknownNameError(ConfigError):
    """A name that is not known (game, core, preset, option); the message holds the nearest names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        options = tuple(known)
        super().__init__(f"unknown {kind} {shortened(name)}; {nearest_names(name[:_LONGEST_NAME], options)}")
        self._made_of = (kind, name, options)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...]]]:
        """Let it be pickled, as an error of a worker process is."""
        return type(self), self._made_of


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


class EnvironmentFault(RimsError):  # noqa: N818 - it is an environment's, found by whoever asked it
    """A copy of an environment raised, died or hung; the message says which, its seed and its last action."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback
        """The traceback of what it raised, from whichever process; empty where it raised nothing."""


def printable(text: str, most: int = _LONGEST_LINE) -> str:
    """Return a text as one line of bearable length that does nothing to a terminal, whoever wrote it."""
    if len(text) > most:
        text = f"{text[: most - 3]}..."
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def shortened(value: object) -> str:
    """Return a value as Python writes it, in one line of some hundred characters at most, however large it is."""
    try:
        text = " ".join(_SHORT.repr(value).split())
    except (ValueError, RecursionError):  # a number of more digits than Python writes out, or a structure too deep
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 2 * _LONGEST_NAME else f"{text[: 2 * _LONGEST_NAME]}..."


def said(error: BaseException) -> str:
    """Return what an error says as one short line; its kind where it says nothing."""
    what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    text = " ".join(what.split())
    return printable(text, 2 * _LONGEST_NAME) or type(error).__name__


def nearest_names(name: str, known: Iterable[str], most: int = 5) -> str:
    """Return 'did you mean ...?' with the nearest of `known`, or the list of all when nothing is near."""
    options = sorted(set(known))
    folded = {option.lower(): option for option in options}
    near = [folded[match] for match in get_close_matches(name.lower(), folded, n=most, cutoff=0.5)]
    if near:
        return "did you mean " + " or ".join(repr(option) for option in near) + "?"
    shown = ", ".join(options[:40]) + (", ..." if len(options) > 40 else "")
    return f"known names: {shown}"
