"""Playing episodes with a recurrent policy, for evaluation during training and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.errors import ConfigError
from rims_rl.storage.random_states import untouched_random_state

MOST_SEED = 2**31
"""Seeds are below this."""


class Episode(NamedTuple):
    """One evaluation episode."""

    reward: float
    """Sum of the rewards, or the raw score where the environment tells it."""
    length: int
    """Steps."""
    truncated: bool
    """Whether it was cut by a limit, or lost with its process; `reward` and `length` are those so far."""


def run_episodes(
    policy: Any,
    env: VecEnv,
    episodes: int,
    most_steps: int,
    *,
    deterministic: bool = False,
    seed: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Episode]:
    """Play episodes with a recurrent policy, none longer than `most_steps`, each environment one after a fresh reset.

    Every copy that begins is waited for, so that short episodes aren't favoured over long ones. With a seed the
    outcome depends on it and on the policy alone; the global random generators are left as they were.

    Args:
        policy: anything with `predict(obs, state, episode_start, deterministic)`.
        env: evaluation environments: a done is a real end there, and rewards are not clipped.
        episodes: how many to play.
        most_steps: cap on the steps of an episode.
        deterministic: take the most likely action instead of sampling.
        seed: of the environments and of the sampled actions.
        should_stop: asked after every step; once it says so, what goes on is cut and no other episode begins.
    """
    if episodes < 1 or most_steps < 1:
        raise ConfigError(f"episodes and their step cap must be at least 1, got {episodes} and {most_steps}")
    played: list[Episode] = []
    with untouched_random_state():
        if seed is not None:
            env.seed(seed)
            torch.manual_seed(seed)
        while len(played) < episodes and not (played and should_stop()):
            wanted = min(env.num_envs, episodes - len(played))
            played += _play_one_each(policy, env, wanted, most_steps, deterministic, should_stop)
    return played


def _play_one_each(
    policy: Any, env: VecEnv, wanted: int, most_steps: int, deterministic: bool, should_stop: Callable[[], bool]
) -> list[Episode]:
    """Play one episode in each of the first `wanted` environments."""
    obs, state, starts = env.reset(), None, np.ones(env.num_envs, dtype=bool)
    rewards = np.zeros(env.num_envs)
    ended: dict[int, Episode] = {}
    step = 0
    while len(ended) < wanted and step < most_steps and not (step and should_stop()):
        step += 1
        actions, state = policy.predict(obs, state, starts, deterministic)
        obs, step_rewards, starts, infos = env.step(actions)
        rewards += step_rewards
        for index in range(wanted):
            if starts[index] and index not in ended:
                score = infos[index].get("episode", {}).get("r", rewards[index])
                ended[index] = Episode(float(score), step, "worker_restarted" in infos[index])
    return [ended.get(index, Episode(float(rewards[index]), step, True)) for index in range(wanted)]
