"""Who is measured: the agents of trained runs, grouped by what they are compared as."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rims_rl.config import TrainConfig
from rims_rl.envs import is_atari, resolve_game
from rims_rl.errors import ConfigError
from rims_rl.runs import load_config, open_run

RANDOM = "random"
"""What stands for uniformly random actions in place of a run."""


@dataclass(frozen=True)
class Subject:
    """One trained run."""

    path: Path
    """Its folder."""
    run: TrainConfig = field(compare=False)
    """Its settings."""
    label: str
    """What it is compared as: runs that differ in nothing but environment and seed share it."""

    @property
    def env(self) -> str:
        """What it plays: an Atari game's rom name, or a Gymnasium id."""
        return resolve_game(self.run.env) if is_atari(self.run.env) else self.run.env

    @property
    def world(self) -> str:
        """What it plays and by which rules: agents are compared in equal worlds alone."""
        rules = f" ({self.run.protocol})" if is_atari(self.run.env) and self.run.protocol != "nature" else ""
        return self.env + rules

    @property
    def key(self) -> str:
        """A name for files that no other run's folder has."""
        return f"{self.path.resolve().name}-{zlib.crc32(str(self.path.resolve()).encode()):08x}"


def read_subjects(paths: Sequence[Path]) -> list[Subject]:
    """Return the runs with their labels.

    Raises:
        ConfigError: for a folder without a run, or one that is given twice.
    """
    runs: dict[Path, TrainConfig] = {}
    for path in paths:
        if path.resolve() in {known.resolve() for known in runs}:
            raise ConfigError(f"{path} is given twice")
        runs[path] = load_config(open_run(path))
    traits = [_traits(run) for run in runs.values()]
    return [Subject(path, run, label(run, traits)) for path, run in runs.items()]


def _traits(run: TrainConfig) -> dict[str, Any]:
    """Return what tells agents apart beside their environment and seed."""
    return {
        "core": run.core, **run.core_kwargs, "parameters": run.core_parameters, "encoder": run.encoder,
        "trained with": run.distractor or run.env_kwargs.get("distractor"), "steps": run.total_timesteps,
    }  # fmt: skip


def label(run: TrainConfig, every: Sequence[dict[str, Any]]) -> str:
    """Return a run's core, and of its other settings those in which runs with the same core differ.

    Args:
        run: the run.
        every: the traits of all runs that it is compared with.
    """
    own = _traits(run)
    alike = [traits for traits in every if traits["core"] == run.core]
    names = dict.fromkeys(name for traits in alike for name in traits)
    differ = [name for name in names if any(traits.get(name) != alike[0].get(name) for traits in alike)]
    return ", ".join([run.core, *(_told(name, own.get(name)) for name in differ)])


def _told(name: str, value: Any) -> str:
    """Return a setting as one reads it."""
    if name == "trained with":
        return f"trained with {value}" if value else "trained clean"
    return f"{name}={value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{name}={value}"
