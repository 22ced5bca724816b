"""The versions that a result depends on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from contextlib import suppress

from rims_rl import __version__

COUNTED = ("torch", "numpy", "stable-baselines3", "sb3-contrib", "gymnasium", "ale-py")
"""The packages whose other version may give other numbers."""


def versions(packages: Sequence[str] = (*COUNTED, "wandb")) -> dict[str, str]:
    """Return the versions of Python, of this package and of those of the given ones that are installed."""
    found = {"python": platform.python_version(), "rims-rl": __version__}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
