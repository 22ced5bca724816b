"""SB3's two ways to run one environment per copy, made to speak like the vector route."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn


class _LikeTheVectorRoute(VecEnv):
    """What both ways share: infos and answers as the vector route gives them."""

    def step_wait(self) -> VecEnvStepReturn:
        """Step as SB3 does; "lives" always belongs to the returned observation."""
        return _with_next_lives(super().step_wait(), self.reset_infos)  # type: ignore[safe-super]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell, per asked copy, whether it acts as if so wrapped: True for Monitor, as "episode" has raw scores."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class AtariDummyVecEnv(_LikeTheVectorRoute, DummyVecEnv):
    """`AtariGymEnv` copies in this process, one after the other."""


class AtariSubprocVecEnv(_LikeTheVectorRoute, SubprocVecEnv):
    """`AtariGymEnv` copies, each in a process of its own, which leaves Ctrl-C to the process that trains."""

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__([partial(_deaf_to_interrupts, make) for make in env_fns])


def _deaf_to_interrupts(make: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    """Build an environment in a worker that a terminal's Ctrl-C must not end in the middle of a rollout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return make()


def _with_next_lives(step: VecEnvStepReturn, reset_infos: list[dict[str, Any]]) -> VecEnvStepReturn:
    """Where a game has ended, put the new game's lives into the info, as the vector route has them."""
    for info, reset_info in zip(step[3], reset_infos, strict=True):
        if "episode" in info:
            info["lives"] = reset_info["lives"]
    return step
