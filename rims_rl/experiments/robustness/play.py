"""Playing one cell of the grid: an agent, or random actions, in one condition."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.config import TrainConfig
from rims_rl.errors import ConfigError, NonFiniteError
from rims_rl.evaluation import check_spaces, evaluation_env, play_episodes
from rims_rl.experiments.robustness.conditions import Condition
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.mechanism import watch_onset
from rims_rl.loading import Agent, load_agent
from rims_rl.runs import open_run


class Cell(NamedTuple):
    """One thing to measure."""

    run: TrainConfig
    """The environment and the rules of the training."""
    path: Path | None
    """The run's folder; None for random actions."""
    condition: Condition
    """What is changed."""
    config: RobustnessConfig
    """How it is measured."""
    file: Path
    """Where the result belongs."""
    watches_mechanism: bool = False
    """Whether the memory is watched at the distractor's onset, in place of scores."""


class RandomPolicy:
    """Uniformly random actions, with the policies' way to predict."""

    def __init__(self, action_space: Space[Any], seed: int) -> None:
        self.action_space = action_space
        self.action_space.seed(seed)

    def predict(
        self, observations: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """Return an action for each of the (B,) episodes, and no memory."""
        return np.array([self.action_space.sample() for _ in range(len(episode_start))]), None


@lru_cache(maxsize=4)
def agent_of(path: Path, checkpoint: str | None, device: str) -> Agent:
    """Return the agent of a run's folder; raises as `load_agent` does."""
    return load_agent(open_run(path), checkpoint, device)


def world(cell: Cell, copies: int | None = None) -> VecEnv:
    """Return the environments of a cell, seeded; the same games in every condition with the same dynamics."""
    config, condition = cell.config, cell.condition
    run = cell.run if condition.env is None else replace(cell.run, env=condition.env, env_kwargs={})
    count = copies or min(config.n_envs, config.episodes)
    return evaluation_env(run, count, config.seed, max_steps=config.max_episode_steps, view=condition.view)


def play_cell(cell: Cell) -> dict[str, Any]:
    """Measure a cell and return the result as JSON-safe data.

    Raises:
        ConfigError: when the environment can't be made, or takes other actions than the agent.
        CheckpointError: when the weights can't be read.
        NonFiniteError: when the agent's output or a score is not finite.
    """
    began = time.monotonic()
    result = _watched(cell) if cell.watches_mechanism else _scored(cell)
    return {**result, "seconds": round(time.monotonic() - began, 2)}


def check_agent(cell: Cell, env: VecEnv, seen: Any) -> None:
    """Raise ConfigError when a cell's agent can't be loaded, or could not play in an environment that shows `seen`."""
    policy = _policy(cell, env)
    try:
        policy.obs_to_tensor(seen)
    except ValueError:
        raise ConfigError(
            f"{cell.path} was trained with observations {policy.observation_space}, but "
            f"{cell.condition.env or cell.run.env} shows {env.observation_space}"
        ) from None


def _scored(cell: Cell) -> dict[str, Any]:
    """Play full games and return their raw scores."""
    config, env = cell.config, world(cell)
    try:
        policy: Any = RandomPolicy(env.action_space, config.seed) if cell.path is None else _policy(cell, env)
        found = play_episodes(policy, env, config.episodes, deterministic=config.deterministic, seed=config.seed)
    finally:
        env.close()
    if not np.isfinite(found.scores).all():
        raise NonFiniteError("a game's score is not finite (NaN or infinity)")
    return {
        "scores": [game.score for game in found.episodes],
        "lengths": [game.length for game in found.episodes],
        "truncated": sum(game.truncated for game in found.episodes),
    }


def _watched(cell: Cell) -> dict[str, Any]:
    """Return what happens in the memory when the distractor appears, see `watch_onset`."""
    config = cell.config
    clean, disturbed = world(cell._replace(condition=cell.condition.dynamics)), world(cell)
    try:
        return watch_onset(_policy(cell, clean), clean, disturbed, config.onset, config.window, config.seed)
    finally:
        clean.close()
        disturbed.close()


def _policy(cell: Cell, env: VecEnv) -> Any:
    """Return the cell's policy, once its actions are those that the environment takes."""
    assert cell.path is not None
    policy = agent_of(cell.path, cell.config.checkpoint, cell.config.device).policy
    check_spaces(policy, env)
    return policy
