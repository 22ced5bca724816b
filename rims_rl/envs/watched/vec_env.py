"""Each copy of an environment in a process that may raise, die or hang without taking the run along."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs, obs_space_info

from rims_rl.envs.watched.crew import Crew
from rims_rl.envs.watched.faults import Trouble
from rims_rl.envs.watched.host import Step
from rims_rl.envs.watched.patience import Patience
from rims_rl.envs.watched.process import request_for, told
from rims_rl.envs.watched.serving import PICKLE_PROTOCOL, Raised
from rims_rl.envs.watched.worker import Worker
from rims_rl.errors import ConfigError, RimsError


class WatchedVecEnv(VecEnv):
    """Copies of an environment, each in a process of its own, with the results of SB3's `DummyVecEnv`.

    A copy that raises, dies or gives no answer during a step is replaced: a new process makes a new environment and
    resets it, with a seed derived from the last one that the copy was given, its index and the number of its restarts
    (None without one), and the log has a warning. The step then returns the new episode's observation, reward 0, done,
    and an info {"TimeLimit.truncated": True, "terminal_observation": the last one that was returned,
    "worker_restarted": one line on what happened}, so that a learner bootstraps over the gap. The other copies' results
    are what they would have been. Where a reset goes wrong, the new environment's observation is all that is told; so
    it is where an episode ended as it should and the reset after it raises; a process that dies takes that end along.

    A copy that any other call finds dead or hanging is replaced as well; the call goes to the new environment,
    and the copy's next step tells of the gap instead of taking an action. What `set_attr` has set is set again in the
    new environment; what `env_method` has changed is lost.

    Errors of ours (`RimsError`), and whatever is raised by a method or an attribute, are the caller's: they pass with
    the worker's traceback as a note, and the worker lives on.

    Args:
        env_fns: one function per copy that makes its environment; pickled by cloudpickle.
        patience: when a copy counts as hanging, and how often it may be replaced.

    Raises:
        ConfigError: without any environment, or in a daemonic process, which can have no others.
        EnvironmentFault: for a fault before the end of the first reset, and for one more than may be mended; then all
            processes have been ended. Its traceback is the worker's.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]], patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._crew = Crew(env_fns, self.patience)
        self._is_stepping = False
        self._unsent: list[tuple[Worker, Any, bytes]] = []
        """What the step under way has yet to send."""
        with self._crew.ended_on_error():
            built = self._crew.build()
            self._keys, self._shapes, self._dtypes = obs_space_info(built.observation_space)
            super().__init__(len(env_fns), built.observation_space, built.action_space)
            self.metadata = built.metadata

    @property
    def restarts(self) -> list[int]:
        """How often each copy has been replaced, before a resume, too."""
        return [worker.earlier_restarts + worker.restarts for worker in self._crew.workers]

    @property
    def fault_state(self) -> dict[str, list[Any]]:
        """What a resumed run must know: the restarts, and the gaps that the next step will tell of (None: none)."""
        return {"restarts": self.restarts, "gaps": [worker.gap for worker in self._crew.workers]}

    def set_fault_state(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Go on counting restarts, and let the next step tell of gaps, as where this `fault_state` is from.

        Call it after the reset that a resumed run begins with. `Patience.restarts` is for the restarts from then on.
        """
        for worker, restarts, gap in zip(self._crew.workers, state["restarts"], state["gaps"], strict=True):
            worker.earlier_restarts, worker.gap = restarts, gap

    @property
    def processes(self) -> list[BaseProcess]:
        """The processes that the copies live in now."""
        return [worker.process for worker in self._crew.workers]

    def reset(self) -> VecEnvObs:
        """Begin a new episode in every copy; return their observations. A step that is under way is dropped."""
        self._be_free(drop_step=True)
        pairs = zip(self._seeds, self._options, strict=True)
        requests = [request_for("reset", seed, options) for seed, options in pairs]  # all, before any is sent
        for worker, seed, request in zip(self._crew.workers, self._seeds, requests, strict=True):
            worker.send_reset(seed, request)
        self._crew.catch_up()
        self._crew.settle(self._options)
        self._reset_seeds()
        self._reset_options()
        observations = self._buffers()
        for worker in self._crew.workers:
            worker.observation, self.reset_infos[worker.index] = worker.outcome
            worker.gap = None
            self._place(worker, observations)
        self._crew.may_mend = True
        return dict_to_obs(self.observation_space, observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Send every copy its action.

        Raises:
            ConfigError: unless there is one for each. What pickling one raises is raised, too, before any is sent.
        """
        self._be_free()
        if len(actions) != self.num_envs:
            raise ConfigError(f"step needs one action for each of {self.num_envs} environments, got {len(actions)}")
        requests = [request_for("step", action) for action in actions]  # all, before any is sent
        self._unsent = list(zip(self._crew.workers, actions, requests, strict=True))
        self._is_stepping = True
        self._send_steps()

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step; return observations, rewards (n,) float32, dones (n,) bool, infos."""
        self._crew.check_open()
        if not self._is_stepping:
            raise RimsError("step_wait() needs a step_async() before it")
        self._send_steps()
        self._crew.catch_up()
        self._is_stepping = False
        ended = [_with_failed_reset(worker) for worker in self._crew.workers]
        self._crew.settle()
        observations, infos = self._buffers(), []
        rewards, dones = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        for index, worker in enumerate(self._crew.workers):
            answer = worker.outcome if worker.gap is None else _over_the_gap(worker, ended[index])
            worker.observation, rewards[index], dones[index], info, reset_info = answer
            infos.append(info)
            if isinstance(reset_info, dict):
                self.reset_infos[index] = reset_info
            self._place(worker, observations)
        return dict_to_obs(self.observation_space, observations), rewards, dones, infos

    def close(self) -> None:
        """End all processes, within some seconds whatever they do; nothing happens the second time."""
        self._crew.end()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return what each copy renders, or None for each unless the render mode is rgb_array."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"images need the render mode rgb_array, but it is {self.render_mode}", stacklevel=2)
            return [None for _ in self._crew.workers]
        return self._ask(None, "render")

    def has_attr(self, attr_name: str) -> bool:
        """Tell whether every copy has this attribute, be it one that can be pickled or not."""
        return all(self._ask(None, "has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each asked copy."""
        return self._ask(indices, "get_attr", attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each asked copy, and of those that may take its place."""
        self._be_free()
        asked = [self._crew.workers[index] for index in dict.fromkeys(self._get_indices(indices))]
        kept = pickle.dumps(value, PICKLE_PROTOCOL)  # as it is now
        self._crew.ask(asked, request_for("set_attr", attr_name, value))
        for worker in asked:
            if not isinstance(worker.outcome, Trouble):
                worker.attributes[attr_name] = kept
        self._crew.outcomes(asked)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each asked copy, all at the same time; return what they return.

        Raises:
            EnvironmentFault: also in the place of an exception that cannot be pickled; then no process has been ended.
        """
        return self._ask(indices, "env_method", method_name, method_args, method_kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell, per asked copy, whether it is so wrapped."""
        return self._ask(indices, "is_wrapped", wrapper_class)

    def _ask(self, indices: VecEnvIndices, command: str, *arguments: Any) -> list[Any]:
        """Return the answers of some copies; one that is asked twice answers twice."""
        self._be_free()
        request = request_for(command, *arguments)
        asked = [self._crew.workers[index] for index in self._get_indices(indices)]
        if len(set(asked)) == len(asked):
            return self._crew.answers(asked, request)
        return [answer for worker in asked for answer in self._crew.answers([worker], request)]

    def _send_steps(self) -> None:
        """Send the actions, or after an interrupt those that were not sent."""
        while self._unsent:
            worker, action, request = self._unsent.pop(0)
            worker.send_step(action, request)

    def _be_free(self, *, drop_step: bool = False) -> None:
        """Leave no request unanswered."""
        self._crew.check_open()
        if self._is_stepping and not drop_step:
            raise RimsError("a step is under way; call step_wait() first")
        self._is_stepping = False
        self._unsent = []
        self._crew.catch_up()

    def _buffers(self) -> dict[Any, NDArray[Any]]:
        """Return new arrays (n, *shape) for the observations, by the keys of their space."""
        return {key: np.empty((self.num_envs, *self._shapes[key]), self._dtypes[key]) for key in self._keys}

    def _place(self, worker: Worker, buffers: dict[Any, NDArray[Any]]) -> None:
        """Put a copy's observation into its row, or end all workers and raise EnvironmentFault where it doesn't fit."""
        try:
            for key, rows in buffers.items():
                rows[worker.index] = worker.observation if key is None else worker.observation[key]
        except Exception as error:
            self.close()
            raise worker.misfit(error) from error


def _with_failed_reset(worker: Worker) -> Step | None:
    """Return a step that ended its episode where the reset after it failed, which becomes the worker's outcome."""
    if worker.gap is not None or isinstance(worker.outcome, Trouble) or not isinstance(worker.outcome[-1], Raised):
        return None
    step: Step = worker.outcome
    worker.outcome = told(worker.outcome[-1])
    return step


def _over_the_gap(worker: Worker, ended: Step | None) -> Step:
    """Return the step that tells of a new process's episode in the place of one that broke off, or had ended."""
    observation, reset_info = worker.outcome
    info = {"TimeLimit.truncated": True, "terminal_observation": worker.observation, "worker_restarted": worker.gap}
    worker.gap = None
    return (observation, 0.0, True, info, reset_info) if ended is None else (observation, *ended[1:4], reset_info)
