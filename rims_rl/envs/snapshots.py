"""Checks of an environment's snapshot that may have lain in a stranger's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rims_rl.errors import ConfigError, shortened

MOST = 2**62
"""No counter comes near it, and twice as much still is a number of 64 bits."""


def whole_number(snapshot: Any, name: str, least: int = 0, most: int = MOST) -> int:
    """Return an entry that must be a whole number from `least` to `most`, or raise ConfigError."""
    value = entry(snapshot, name)
    if type(value) is not int or not least <= value <= most:
        raise _damaged(name, value, f"a whole number from {least} to {most}")
    return value


def flag(snapshot: Any, name: str) -> bool:
    """Return an entry that must be True or False, or raise ConfigError."""
    value = entry(snapshot, name)
    if not isinstance(value, bool):
        raise _damaged(name, value, "True or False")
    return value


def text(snapshot: Any, name: str) -> str:
    """Return an entry that must be a text, or raise ConfigError."""
    value = entry(snapshot, name)
    if not isinstance(value, str):
        raise _damaged(name, value, "a text")
    return value


def array(snapshot: Any, name: str, shape: tuple[int, ...] | None, dtype: type[np.generic]) -> NDArray[Any]:
    """Return an entry that must be an array of finite numbers of this type and shape, or raise ConfigError.

    Args:
        snapshot: where it lies.
        name: under which name.
        shape: its shape; None for any.
        dtype: its type.
    """
    value = entry(snapshot, name)
    is_array = isinstance(value, np.ndarray) and value.dtype == dtype and shape in (None, value.shape)
    if not is_array or not np.isfinite(value).all():
        raise _damaged(name, value, f"finite numbers of type {np.dtype(dtype)} and shape {shape or 'any'}")
    found: NDArray[Any] = value
    return found


def entry(snapshot: Any, name: str) -> Any:
    """Return an entry of any kind, or raise ConfigError where there is none."""
    if not isinstance(snapshot, Mapping) or name not in snapshot:
        raise ConfigError(f"this snapshot is damaged: it lacks {_told(name)}")
    return snapshot[name]


def _damaged(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"this snapshot is damaged: its {_told(name)} is {shortened(value)}, expected {expected}")


def _told(name: str) -> str:
    """Return an entry's name in one line: it may come from the file, too."""
    return shortened(name).strip("'\"")
