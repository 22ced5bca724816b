"""Environments that raise, die or hang when they are told to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

from rims_rl.errors import ConfigError


class Stubborn(Exception):  # noqa: N818
    """An exception that can't be pickled back."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def _complain() -> None:
    raise Stubborn("salt", "pepper")


def _refuse() -> None:
    raise ConfigError("no such action; actions are 0 to 2")


def _leave_a_child() -> None:
    if os.fork() == 0:
        time.sleep(4)  # with the connection in its hands
    os._exit(3)


FAULTS: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(3),
    "leave a child": _leave_a_child,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleep": lambda: time.sleep(1000),
    "nap": lambda: time.sleep(0.3),
    "raise": lambda: 1 // 0,
    "quit": lambda: sys.exit(5),
    "complain": _complain,
    "refuse": _refuse,
}


class Told(gym.Env[Any, Any]):
    """Shows its seed, its episode, its step and a random number; an episode has 5 steps, every second is truncated.

    Args:
        plan: pairs of a place ("build", "reset", "step", or "step 3": the third since it was made) and a fault.
        record: a file that holds how many faults there were, for all processes of this copy. With it they happen in
            their order, each once; without it, every time.
    """

    action_space = spaces.Discrete(3)
    observation_space = spaces.Box(-1, 2**32, (4,), np.float64)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012 - Gymnasium's own form
    secret = staticmethod(lambda: "no pickle")

    def __init__(
        self, plan: Sequence[tuple[str, str]] = (), record: Path | None = None, render_mode: str | None = None
    ) -> None:
        self.plan, self.record, self.render_mode = list(plan), record, render_mode
        self.seed, self.episode, self.steps = -1, 0, 0
        self.resets = self.all_steps = 0
        self.options: list[Any] = []
        self._meet("build")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets += 1
        self.options.append(options)
        self._meet(f"reset {self.resets}", "reset")
        self.seed, self.episode = (self.seed, self.episode + 1) if seed is None else (seed, 0)
        self.steps = 0
        return self._seen(), {"episode number": self.episode}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.all_steps += 1
        self._meet(f"step {self.all_steps}", "step")
        is_over, is_odd = self.steps == 5, self.episode % 2 == 1
        return self._seen(), self.steps + float(action) / 10, is_over and not is_odd, is_over and is_odd, {"a": action}

    def render(self) -> Any:
        return np.full((3, 5, 3), self.steps, np.uint8)

    def double(self, number: int = 1, *, plus: int = 0) -> int:
        return 2 * number + plus

    def call(self, fault: str) -> str:
        self._meet(fault)
        return "well"

    def look_up(self, name: str) -> int:
        return {"known": 1}[name]

    def _meet(self, *places: str) -> None:
        """Do what is planned for one of these places."""
        for place, fault in self._next():
            if place in places:
                if self.record is not None:
                    self.record.write_text(f"{self._count() + 1}")
                FAULTS[fault]()
                return

    def _next(self) -> list[tuple[str, str]]:
        return self.plan if self.record is None else self.plan[self._count() :][:1]

    def _count(self) -> int:
        assert self.record is not None
        return int(self.record.read_text()) if self.record.exists() else 0

    def _seen(self) -> np.ndarray:
        return np.array([self.seed, self.episode, self.steps, self.np_random.random()])


class Odd(Told):
    """Gives from its third step on what can't be pickled, here or there, or what its space doesn't hold."""

    def __init__(self, odd: str) -> None:
        super().__init__()
        self.odd = odd

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.all_steps >= 3:
            observation = np.zeros(3) if self.odd == "shape" else observation
            info |= {"here": {"what": (i for i in ())}, "there": {"what": _stranger()}}.get(self.odd, {})
        return observation, reward, terminated, truncated, info


def _stranger() -> Any:
    """Return an object of a class that this process alone knows."""
    module = sys.modules["known_here_alone"] = ModuleType("known_here_alone")
    module.Stranger = type("Stranger", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    return module.Stranger()


class _Dying(gym.Wrapper[Any, Any, Any, Any]):
    """Ends its process in one step, once."""

    def __init__(self, env: gym.Env[Any, Any], at: int, record: Path) -> None:
        super().__init__(env)
        self.left, self.record = at, record

    def step(self, action: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.record.exists():
            self.record.touch()
            os._exit(3)
        return self.env.step(action)


def dying(at: int, record: Path) -> Monitor:
    """Return an environment with random observations that ends its process in the step `at`, once."""
    from tests.agents.small_worlds import ShortEpisodes  # which imports torch

    return Monitor(_Dying(ShortEpisodes(), at, record))
