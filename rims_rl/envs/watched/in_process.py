"""The same telling without processes: all copies in this one, by SB3's `DummyVecEnv`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from rims_rl.envs.watched.faults import culprit, last_line
from rims_rl.errors import EnvironmentFault, RimsError


class TellingDummyVecEnv(DummyVecEnv):
    """SB3's `DummyVecEnv`, which says which copy raised, the seed of its last reset, and its last action.

    Raises:
        EnvironmentFault: from what a copy's step or reset raised. Errors of ours (`RimsError`) pass with a note.
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._finished = 0
        """How many copies have done their part of the present step or reset; the next one is at it."""
        self._last_seeds: list[int | None] = [None] * self.num_envs
        self._last_actions: dict[int, Any] = {}

    def reset(self) -> VecEnvObs:
        """Begin a new episode in every copy; return their observations."""
        self._last_actions = {}
        pairs = zip(self._seeds, self._last_seeds, strict=True)
        self._last_seeds = [last if seed is None else seed for seed, last in pairs]
        with self._telling():
            return super().reset()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._last_actions = dict(enumerate(actions))
        super().step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step every copy; return observations, rewards (n,) float32, dones (n,) bool, infos."""
        with self._telling():
            return super().step_wait()

    def _save_obs(self, env_idx: int, obs: VecEnvObs) -> None:
        super()._save_obs(env_idx, obs)
        self._finished = env_idx + 1

    @contextmanager
    def _telling(self) -> Iterator[None]:
        self._finished = 0
        try:
            yield
        except Exception as error:
            if self._finished == self.num_envs:  # no copy's fault
                raise
            if isinstance(error, RimsError):
                error.add_note(f"in {self._culprit()}")
                raise
            told = "".join(traceback.format_exception(error))
            raise EnvironmentFault(f"{self._culprit()} raised {last_line(error)}", told) from error

    def _culprit(self) -> str:
        index = self._finished
        return culprit(index, self._last_seeds[index], self._last_actions.get(index))
