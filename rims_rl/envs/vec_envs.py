"""The two ways to run one environment per copy, in this process or in others, made to speak like the vector route."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from rims_rl.envs.watched import TellingDummyVecEnv, WatchedVecEnv


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


class AtariDummyVecEnv(_LikeTheVectorRoute, TellingDummyVecEnv):
    """`AtariGymEnv` copies in this process, one after the other."""


class AtariWatchedVecEnv(_LikeTheVectorRoute, WatchedVecEnv):
    """`AtariGymEnv` copies, each in a process of its own, which may be replaced; then "episode" is in no info."""


def _with_next_lives(step: VecEnvStepReturn, reset_infos: list[dict[str, Any]]) -> VecEnvStepReturn:
    """Where a game has ended or broken off, put the new game's lives into the info, as the vector route has them."""
    for info, reset_info in zip(step[3], reset_infos, strict=True):
        if "episode" in info or "worker_restarted" in info:
            info["lives"] = reset_info["lives"]
    return step
