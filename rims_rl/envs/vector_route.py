"""The fast route: ale-py's C++ `AtariVectorEnv` behind Stable-Baselines3's `VecEnv`.

Emulation, preprocessing and the reset after a finished game happen in C++ threads. What C++ does not do, or does
differently from what agents in the literature were trained with, is done here: a lost life is told from a drop in lives
(the game goes on), scores are summed before rewards are clipped, and actions are checked, because C++ waits for ever
after one out of range.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from rims_rl.envs.distractors.distractor import Distractors
from rims_rl.envs.emulator import action_numbers, load_emulator, vector_emulators
from rims_rl.envs.protocols import FRAME_SKIP, SCREEN_SIZE, AtariSettings
from rims_rl.envs.raw_emulators import RawEmulators
from rims_rl.errors import ConfigError

_SEED_RANGE = 2**31  # the C++ side takes 32-bit signed seeds


class AtariVecEnv(VecEnv):
    """Copies of one Atari game, stepped together: observations (n, frame_stack, 84, 84) uint8, the newest frame last.

    `infos[i]` holds "lives" (of the observation returned beside it) and "life_lost" (True where done is only a lost
    life). Where done: "terminal_observation" and "TimeLimit.truncated"; at the real end of a game also "episode" with
    the raw score "r", the agent's steps "l" and the seconds "t" since this object was made.
    With distractors the copies play in processes that alter their frames, see `raw_emulators`.
    It cannot be saved and restored: the C++ side gives no access to the emulators' state, with distractors neither.
    """

    route = "vector"
    render_mode: str | None = None

    def __init__(self, settings: AtariSettings, n_envs: int, distractors: Distractors = ()) -> None:
        self.settings = settings
        self.protocol = settings.protocol
        self._emulators: AtariVectorEnv | RawEmulators
        if any(distractor.intensity > 0 for distractor in distractors):
            self._emulators = RawEmulators(settings, n_envs, distractors)
        else:
            self._emulators = _build_emulators(settings, n_envs)
        observations = Box(0, 255, (settings.frame_stack, SCREEN_SIZE, SCREEN_SIZE), np.uint8)
        self._action_count = len(action_numbers(load_emulator(settings.game), settings))
        super().__init__(n_envs, observations, Discrete(self._action_count))
        self._start_time = time.time()
        self._lives = np.zeros(n_envs, np.int32)
        self._returns = np.zeros(n_envs, np.float64)
        self._lengths = np.zeros(n_envs, np.int64)

    def reset(self) -> NDArray[np.uint8]:
        """Start a new game in every copy, with the seeds given to `seed()` if any; return (n, frame_stack, 84, 84)."""
        observations, info = self._emulators.reset(seed=self._reset_seeds_array())
        self._lives[:] = info["lives"]
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self.reset_infos = [{"lives": int(lives)} for lives in info["lives"]]
        self._reset_seeds()
        self._reset_options()
        return np.asarray(observations)

    def step_async(self, actions: NDArray[np.integer[Any]]) -> None:
        """Start one step with actions (n,); raises ConfigError, before anything is sent, when one is out of range."""
        self._emulators.send(self._checked(actions))

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step: observations, rewards (n,) float32, dones (n,) bool, infos; finished games are reset."""
        # The arrays are new in every step, and nobody touches returned ones again, so none is copied here.
        observations, raw_rewards, terminated, truncated, info = self._emulators.recv()
        ended = terminated | truncated
        lives: NDArray[np.int32] = info["lives"]
        life_lost = self._life_losses(lives, ended)
        self._returns += raw_rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [
            {"lives": int(left), "life_lost": bool(lost)} for left, lost in zip(lives, life_lost, strict=True)
        ]
        for index in np.flatnonzero(life_lost):
            infos[index] |= {"terminal_observation": observations[index].copy(), "TimeLimit.truncated": False}
        for index in np.flatnonzero(ended):
            cut = bool(truncated[index] and not terminated[index])
            infos[index] |= {"terminal_observation": info["final_obs"][int(index)].copy(), "TimeLimit.truncated": cut}
            infos[index]["episode"] = self._close_episode(int(index))
            self.reset_infos[index] = {"lives": int(lives[index])}
        rewards = np.sign(raw_rewards) if self.settings.rewards_are_signs else raw_rewards
        return observations, rewards.astype(np.float32), ended | life_lost, infos

    def close(self) -> None:
        """Stop the threads or processes; the object cannot be used afterwards."""
        if hasattr(self, "_emulators"):
            self._emulators.close()
            del self._emulators

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute, which all copies share, once per asked copy; AttributeError when there is none."""
        return [getattr(self, attr_name) for _ in self._asked(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: none of the copies' settings can be changed one by one."""
        raise AttributeError(
            f"{attr_name!r} can't be set on route='vector'; make the environment anew, or use route='gym'"
        )

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Refuse: the copies have no methods of their own."""
        raise AttributeError(f"route='vector' has no method {method_name!r} per copy; use route='gym'")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell, per asked copy, whether it acts as if so wrapped: True for Monitor, as "episode" has raw scores."""
        return [wrapper_class is Monitor for _ in self._asked(indices)]

    def _reset_seeds_array(self) -> NDArray[np.int64] | None:
        """Return the seeds (n,) for the next reset, or None to go on with the present random streams."""
        seeds = [seed for seed in self._seeds if seed is not None]
        return np.array(seeds, np.int64) % _SEED_RANGE if len(seeds) == self.num_envs else None

    def _checked(self, actions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the actions as int64 (n,), or raise ConfigError."""
        array = np.asarray(actions)
        if array.shape != (self.num_envs,) or array.dtype.kind not in "iu":
            raise ConfigError(f"actions must be {self.num_envs} integers, got shape {array.shape} of {array.dtype}")
        wrong = np.flatnonzero((array < 0) | (array >= self._action_count))
        if wrong.size:
            found = f"action {array[wrong[0]]} of environment {wrong[0]}"
            raise ConfigError(f"{found} is out of range: this game has actions 0 to {self._action_count - 1}")
        return array.astype(np.int64)

    def _life_losses(self, lives: NDArray[np.int32], ended: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return where done is only a lost life (n,), and remember the lives."""
        # At a game's end `lives` already belongs to the next game, so a drop there says nothing.
        lost = (lives < self._lives) & (lives > 0) & ~ended
        self._lives[:] = lives
        return lost if self.settings.life_loss_is_done else np.zeros_like(lost)

    def _close_episode(self, index: int) -> dict[str, float | int]:
        """Return the statistics of the game that copy `index` has finished, and start new ones."""
        seconds = round(time.time() - self._start_time, 6)
        episode = {"r": float(self._returns[index]), "l": int(self._lengths[index]), "t": seconds}
        self._returns[index] = 0.0
        self._lengths[index] = 0
        return episode

    def _asked(self, indices: VecEnvIndices) -> Iterable[int]:
        """Return the asked indices as a list."""
        return list(self._get_indices(indices))


def _build_emulators(settings: AtariSettings, n_envs: int) -> AtariVectorEnv:
    """Return the C++ environments, which preprocess as well."""
    return vector_emulators(
        settings,
        n_envs,
        img_height=SCREEN_SIZE,
        img_width=SCREEN_SIZE,
        grayscale=True,
        stack_num=settings.frame_stack,
        frameskip=FRAME_SKIP,
        maxpool=True,
    )
