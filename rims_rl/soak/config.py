"""The settings of `rims-rl soak`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from rims_rl.config import Int, OptionalPath
from rims_rl.errors import ConfigError
from rims_rl.storage.plain_files import check_target, expanded

SHORTEST_MINUTES = 0.25


@dataclass(frozen=True)
class SoakConfig:
    """Train while processes are killed, stopped and starved of disk, and compare with a training without faults."""

    minutes: Annotated[float, arg(metavar="FLOAT")] = 10.0
    """How long faults are injected; what is under way then is brought to its end."""
    env: str = "pong"
    """Atari game, or an environment whose resume is exact: what is trained on."""
    seed: Int = 0
    """Seed of the training and of which fault comes when."""
    output: OptionalPath = None
    """Folder for the runs, which are kept then; by default a temporary one, kept only when something was lost."""
    json: OptionalPath = None
    """File for the counts; none by default."""

    def check(self) -> None:
        """Raise ConfigError for the first setting that can't work."""
        if not sys.platform.startswith("linux"):
            raise ConfigError(
                f"soak needs Linux, whose /proc tells which processes are workers; this is {sys.platform}"
            )
        if not SHORTEST_MINUTES <= self.minutes < float("inf"):
            raise ConfigError(f"--minutes must be at least {SHORTEST_MINUTES}, got {self.minutes}")
        if self.seed < 0:
            raise ConfigError(f"--seed must be at least 0, got {self.seed}")
        if self.output is not None and expanded(self.output).exists() and any(self.output.iterdir()):
            raise ConfigError(f"{self.output} is not empty; choose another --output")
        if self.json is not None:
            check_target("--json", self.json)
