"""What a worker's process does: one environment, and all that can be asked of it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env.patch_gym import _patch_env

from rims_rl.envs.watched.serving import Raised, as_data


class Built(NamedTuple):
    """What a VecEnv must know of its environments."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    metadata: dict[str, Any]


Step = tuple[Any, float, bool, dict[str, Any], dict[str, Any] | Raised | None]
"""Observation, reward, done, info, and of a reset after it the info or the failure."""


class Host:
    """An environment, and all that can be asked of it."""

    env: gym.Env[Any, Any]

    def build(self, make: bytes, attributes: Mapping[str, bytes]) -> Built:
        """Make the environment by the pickled function and set these attributes, whose values are pickled."""
        self.env = _patch_env(pickle.loads(make).var())
        for name, value in attributes.items():
            self.set_attr(name, pickle.loads(value))
        return Built(self.env.observation_space, self.env.action_space, self.env.metadata)

    def reset(self, seed: int | None, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the first observation and the info of a new episode."""
        observation, info = self.env.reset(seed=seed, **({"options": options} if options else {}))
        return observation, info

    def step(self, action: Any) -> Step:
        """Return observation, reward, done, info, and where done the info or the failure of the reset that followed."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info["TimeLimit.truncated"] = truncated and not terminated
        if not (terminated or truncated):
            return observation, float(reward), False, info, None
        info["terminal_observation"] = observation
        try:
            observation, reset_info = self.env.reset()
        except BaseException as error:
            return observation, float(reward), True, info, as_data(error)
        return observation, float(reward), True, info, reset_info

    def render(self) -> Any:
        """Return the rendered frame."""
        return self.env.render()

    def env_method(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call a method of the environment or of a wrapper."""
        return self.env.get_wrapper_attr(name)(*arguments, **keywords)

    def get_attr(self, name: str) -> Any:
        """Return an attribute of the environment or of a wrapper."""
        return self.env.get_wrapper_attr(name)

    def has_attr(self, name: str) -> bool:
        """Tell whether there is such an attribute."""
        try:
            self.env.get_wrapper_attr(name)
        except AttributeError:
            return False
        return True

    def set_attr(self, name: str, value: Any) -> None:
        """Set an attribute of the outermost wrapper, as SB3 does."""
        setattr(self.env, name, value)

    def is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]]) -> bool:
        """Tell whether the environment is so wrapped."""
        return is_wrapped(self.env, wrapper_class)

    def close(self) -> None:
        """Close the environment, if there is one."""
        if hasattr(self, "env"):
            self.env.close()
