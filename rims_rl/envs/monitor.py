"""SB3's Monitor with exact snapshots, for environments that offer their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor

from rims_rl.envs.distractors.wrappers import DistractorWrapper
from rims_rl.envs.snapshots import array, entry, flag, whole_number
from rims_rl.errors import ConfigError


class SnapshotMonitor(Monitor):
    """A Monitor whose `snapshot()` covers the environment, its time limit and the episode's statistics."""

    def snapshot(self) -> dict[str, Any]:
        """Return the whole chain's state as nested dictionaries of arrays, numbers and texts."""
        return {
            "env": self.env.get_wrapper_attr("snapshot")(),
            "rewards": np.array(self.rewards, np.float64),
            "needs_reset": self.needs_reset,
            "elapsed_steps": [limit._elapsed_steps for limit in self._time_limits()],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned, here or in another environment made alike.

        Raises:
            ConfigError: when it is damaged, or of an environment with other time limits.
        """
        limits, steps = list(self._time_limits()), entry(snapshot, "elapsed_steps")
        if not isinstance(steps, list) or len(steps) != len(limits):
            raise ConfigError(f"this snapshot is of other time limits: expected {len(limits)} of them")
        most = [limit._max_episode_steps for limit in limits]
        elapsed = [whole_number({"step": step}, "step", 0, last) for step, last in zip(steps, most, strict=True)]
        rewards = array(snapshot, "rewards", None, np.float64)
        self.env.reset()  # wrappers of a fresh environment refuse to step before their first reset
        self.env.get_wrapper_attr("restore")(entry(snapshot, "env"))
        self.rewards = rewards.ravel().tolist()
        self.needs_reset = flag(snapshot, "needs_reset")
        for limit, step in zip(limits, elapsed, strict=True):
            vars(limit).update(_elapsed_steps=step)

    def _time_limits(self) -> Iterator[TimeLimit[Any, Any]]:
        """Yield the TimeLimit wrappers below, outermost first."""
        env: gym.Env[Any, Any] = self.env
        while isinstance(env, gym.Wrapper):
            if isinstance(env, TimeLimit):
                yield env
            env = env.env


def monitored(env: gym.Env[Any, Any]) -> Monitor:
    """Wrap an environment in a Monitor, one with snapshots when the environment offers `snapshot` itself."""
    return SnapshotMonitor(env) if _tells_all(env) else Monitor(env)


def _tells_all(env: gym.Env[Any, Any]) -> bool:
    """Tell whether the environment's `snapshot` says all: what distractors around it show is in none."""
    if isinstance(env, DistractorWrapper):
        return False
    return _tells_all(env.env) if isinstance(env, gym.Wrapper) else hasattr(env, "snapshot")
