"""SB3's Monitor with exact snapshots, for environments that offer their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor


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
        """Put back what `snapshot()` returned, here or in another environment made alike."""
        self.env.reset()  # wrappers of a fresh environment refuse to step before their first reset
        self.env.get_wrapper_attr("restore")(snapshot["env"])
        self.rewards = [float(reward) for reward in snapshot["rewards"]]
        self.needs_reset = bool(snapshot["needs_reset"])
        for limit, elapsed in zip(self._time_limits(), snapshot["elapsed_steps"], strict=True):
            limit._elapsed_steps = elapsed

    def _time_limits(self) -> Iterator[TimeLimit[Any, Any]]:
        """Yield the TimeLimit wrappers below, outermost first."""
        env: gym.Env[Any, Any] = self.env
        while isinstance(env, gym.Wrapper):
            if isinstance(env, TimeLimit):
                yield env
            env = env.env


def monitored(env: gym.Env[Any, Any]) -> Monitor:
    """Wrap an environment in a Monitor, one with snapshots when the environment offers `snapshot` itself."""
    return SnapshotMonitor(env) if hasattr(env.unwrapped, "snapshot") else Monitor(env)
