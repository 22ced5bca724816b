"""The worker's side: one environment in a process of its own, which does as it is asked.

A request is a pickled (method of `Host`, arguments), its answer a pickled (value, None) or (None, `Raised`).
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env.patch_gym import _patch_env

from rims_rl.envs.watched.faults import last_line

PICKLE_PROTOCOL = 5
_SECONDS_WITHOUT_PARENT = 3.0


class Built(NamedTuple):
    """What a VecEnv must know of its environments."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    metadata: dict[str, Any]


class Raised(NamedTuple):
    """An exception, as data that can be pickled."""

    line: str
    """The end of the traceback."""
    traceback: str
    error: bytes | None
    """The exception itself, pickled; None where it cannot be."""


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
            return observation, float(reward), True, info, _as_data(error)
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


def serve(connection: Connection) -> None:
    """Do as asked until the other end of the connection is closed, then close the environment."""
    _set_up_process()
    host = Host()
    with suppress(EOFError, OSError):
        while True:
            connection.send_bytes(_answer(host, connection.recv_bytes()))
    if hasattr(host, "env"):
        host.env.close()


def _answer(host: Host, request: bytes) -> bytes:
    """Return the pickled answer to a request; whatever is raised on the way is an answer, too."""
    try:
        name, arguments = pickle.loads(request)
        return pickle.dumps((getattr(host, name)(*arguments), None), PICKLE_PROTOCOL)
    except BaseException as error:
        return pickle.dumps((None, _as_data(error)), PICKLE_PROTOCOL)


def _as_data(error: BaseException) -> Raised:
    return Raised(last_line(error), "".join(traceback.format_exception(error)), _pickled(error))


def _pickled(error: BaseException) -> bytes | None:
    """Return an exception as bytes, or None unless they give back one of the same type."""
    with suppress(Exception):
        data = pickle.dumps(error, PICKLE_PROTOCOL)
        if isinstance(error, Exception) and type(pickle.loads(data)) is type(error):
            return data
    return None


def _set_up_process() -> None:
    """Leave Ctrl-C and SIGTERM to the process that trains, end with it, and tell where native code fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _do_nothing)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _let_go_of_the_fork_server()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(RuntimeError, OSError):  # there may be no stderr
        faulthandler.enable()


def _do_nothing(*_: object) -> None:
    """Handle a signal; one that is ignored would be ignored by an environment's own processes as well."""


def _let_go_of_the_fork_server() -> None:
    """Close what every child of the fork server holds, as it would live as long as the last of them."""
    held = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if held is not None:
        os.close(held)


def _end_with_parent() -> None:
    """Wait for the parent's end, then end this process, even if its environment hangs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(_SECONDS_WITHOUT_PARENT)  # in which an idle worker closes its environment and ends by itself
        os._exit(1)
