"""The parent's side: one worker, as the process that trains sees it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from rims_rl.envs.watched.faults import culprit, last_line
from rims_rl.envs.watched.host import Host
from rims_rl.envs.watched.process import WatchedProcess, request_for
from rims_rl.envs.watched.serving import PICKLE_PROTOCOL
from rims_rl.envs.watched.starting import Role
from rims_rl.errors import EnvironmentFault


class Worker(WatchedProcess):
    """A process with one environment, and what is known of both; a new process may take its place."""

    def __init__(self, index: int, make: Callable[[], gym.Env[Any, Any]]) -> None:
        super().__init__()
        self.index = index
        self.restarts = 0
        self.earlier_restarts = 0
        """Those before the run was resumed."""
        self.attributes: dict[str, bytes] = {}
        """Pickled; set anew in every process that takes the place of another."""
        self.observation: Any = None
        """The last one that was seen."""
        self.gap: str | None = None
        """Why the episode broke off, until the learner has been told; None: it did not."""
        self._make = pickle.dumps(CloudpickleWrapper(make), PICKLE_PROTOCOL)
        self._given_seed: int | None = None
        self._seed: int | None = None
        self._action: Any = None

    @property
    def culprit(self) -> str:
        """Which copy it is, with its seed and its last action."""
        return culprit(self.index, self._seed, self._action, self.restarts)

    @property
    def next_seed(self) -> int | None:
        """The seed after the present restart, below 2**31: from the copy's given seed, its index and all restarts."""
        if self._given_seed is None:
            return None
        made_of = [self._given_seed, self.index, self.earlier_restarts + self.restarts]
        return int(np.random.SeedSequence(made_of).generate_state(1)[0] >> 1)

    def start(self, seconds: float | None) -> None:
        """Start a process and ask it to build the environment, for which it may take so long."""
        self._action = None
        self._seed = self.next_seed if self.restarts else None
        request = request_for("build", self._make, self.attributes)
        self.begin(Role(f"environment {self.index}", Host), seconds, request)

    def send_reset(self, seed: int | None, request: bytes) -> None:
        """Ask for a new episode as the caller of the VecEnv wants it."""
        if seed is not None:
            self._seed = self._given_seed = seed
        self._action = None
        self.send(request)

    def ask_first_reset(self, options: dict[str, Any]) -> None:
        """Ask a process that has taken the place of another for its first episode."""
        self.send(request_for("reset", self._seed, options))

    def send_step(self, action: Any, request: bytes) -> None:
        """Ask for a step, or where the last episode broke off for a new one."""
        if self.gap is None:
            self._action = action
            self.send(request)
        else:
            self.send(request_for("reset", None, {}))

    def misfit(self, error: Exception) -> EnvironmentFault:
        """Return the fault that the last observation doesn't fit into its space."""
        return EnvironmentFault(f"{self.culprit} gave an observation that does not fit its space: {last_line(error)}")
