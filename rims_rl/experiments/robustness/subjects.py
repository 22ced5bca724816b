"""Who is measured: the agents of trained runs, grouped by what they are compared as."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rims_rl.config import RESUMABLE, TrainConfig
from rims_rl.envs import is_atari, resolve_game
from rims_rl.envs.make import ALIASES
from rims_rl.errors import ConfigError
from rims_rl.runs import load_config, open_run

RANDOM = "random"
"""What stands for uniformly random actions in place of a run."""
_TRAINING_ONLY = frozenset({"terminal_on_life_loss", "clip_rewards"})
_SAME_GAME = _TRAINING_ONLY | {
    "distractor", "distractor_split", "subprocess", "step_timeout", "env_restarts", "max_frames",
}  # fmt: skip
_NOT_TRAINING = RESUMABLE | {
    "config", "env", "seed", "output", "name", "core", "core_kwargs", "core_parameters", "encoder", "encoder_kwargs",
    "frame_stack", "distractor", "distractor_split", "env_kwargs", "protocol", "route",
}  # fmt: skip


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
        return env_of(self.run)

    @property
    def world(self) -> str:
        """What it plays and by which rules: agents are compared in equal worlds alone."""
        return world_of(self.run)

    @property
    def plays_the_game_itself(self) -> bool:
        """Whether its training's Atari game is unchanged, so that its scores can be compared with a human's."""
        return not {"mode", "difficulty", "variant"} & {name for name, _ in _rules(self.run)}

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
        run = load_config(open_run(path))
        if path.resolve() in {known.resolve() for known in runs}:
            raise ConfigError(f"{path} is given twice")
        runs[path] = run
    return [Subject(path, run, label(run, list(runs.values()))) for path, run in runs.items()]


def env_of(run: TrainConfig) -> str:
    """Return an Atari game's rom name, or a Gymnasium id."""
    return resolve_game(run.env) if is_atari(run.env) else ALIASES.get(run.env.lower(), run.env)


def world_of(run: TrainConfig) -> str:
    """Return what a run plays and by which rules, as one reads it; equal texts, equal games."""
    protocol = [run.protocol] if is_atari(run.env) and run.protocol != "nature" else []
    rules = [*protocol, *(f"{name}={value}" for name, value in _rules(run))]
    return env_of(run) + (f" ({', '.join(rules)})" if rules else "")


def _rules(run: TrainConfig) -> list[tuple[str, Any]]:
    """Return the settings of the environment that change the game, and not only what is seen or what counts as done."""
    return sorted((name, value) for name, value in run.env_kwargs.items()
                  if name not in _SAME_GAME and value is not None)  # fmt: skip


def label(run: TrainConfig, others: Sequence[TrainConfig]) -> str:
    """Return a run's core, and of its other settings those in which runs with the same core differ.

    How it was trained (step sizes and the like) tells it only from runs in the same world.

    Args:
        run: the run.
        others: all runs that it is compared with, it may be among them.
    """
    alike = [other for other in others if other.core == run.core]
    neighbours = [other for other in alike if world_of(other) == world_of(run)]
    differ = _differing(_traits, run, alike) | _differing(_training, run, neighbours)
    return ", ".join([run.core, *(_told(name, value) for name, value in differ.items())])


def _differing(
    settings: Callable[[TrainConfig], dict[str, Any]], run: TrainConfig, others: Sequence[TrainConfig]
) -> dict[str, Any]:
    """Return those of a run's settings in which the others are not all alike."""
    own, every = settings(run), [settings(other) for other in others]
    names = dict.fromkeys(name for one in every for name in one)
    return {name: own.get(name) for name in names if any(one.get(name) != every[0].get(name) for one in every)}


def _traits(run: TrainConfig) -> dict[str, Any]:
    """Return what an agent is, beside its core's name, and what it saw."""
    seen = run.distractor or run.env_kwargs.get("distractor")
    split = run.distractor_split or run.env_kwargs.get("distractor_split")
    return {
        **run.core_kwargs, "parameters": run.core_parameters, "encoder": run.encoder,
        **{f"encoder {name}": value for name, value in run.encoder_kwargs.items()}, "frame_stack": run.frame_stack,
        "trained with": f"{seen}, {split}" if seen and split else seen, "steps": run.total_timesteps,
    }  # fmt: skip


def _training(run: TrainConfig) -> dict[str, Any]:
    """Return how an agent was trained."""
    settings = {name: value for name, value in vars(run).items() if name not in _NOT_TRAINING}
    return settings | {name: value for name, value in run.env_kwargs.items() if name in _TRAINING_ONLY}


def _told(name: str, value: Any) -> str:
    """Return a setting as one reads it."""
    if name == "trained with":
        return f"trained with {value}" if value else "trained clean"
    return f"{name}={value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{name}={value}"
