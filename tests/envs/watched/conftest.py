"""What the tests of watched environments share: a limit in time, and environments that are closed in the end."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from rims_rl.envs.watched import Patience, WatchedVecEnv
from rims_rl.envs.watched.worker import Worker
from tests.envs.watched.worlds import Told

SECONDS_PER_TEST = 60
Watch = Callable[..., WatchedVecEnv]


class TooLong(BaseException):
    """A test hangs; nothing catches this."""


@pytest.fixture(autouse=True)
def _wall_limit() -> Iterator[None]:
    """Let a test that hangs fail."""

    def fail(*_: object) -> None:
        raise TooLong(f"the test took more than {SECONDS_PER_TEST} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS_PER_TEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def watch(_wall_limit: None) -> Iterator[Watch]:
    """Return a function that makes watched copies of `Told`, one per dictionary of keywords."""
    with ExitStack() as stack:

        def make(*settings: dict[str, Any], kind: type[Any] = Told, seed: int | None = 10, **patience: Any) -> Any:
            env = WatchedVecEnv([partial(kind, **each) for each in settings], Patience(**patience))
            stack.callback(env.close)
            if seed is not None:
                env.seed(seed)
            return env

        yield make


class FakeProcess:
    """Lives until it is killed."""

    exitcode: int | None = None

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        self.exitcode = -9

    def join(self, seconds: float) -> None:
        self.exitcode = 3


@pytest.fixture
def pair():
    """A worker that waits for an answer, and the other end of its connection."""
    worker: Any = Worker(0, Told)
    worker.connection, theirs = multiprocessing.Pipe()
    worker.process, worker.owes = FakeProcess(), True
    worker.allow(0.25)
    yield worker, theirs
    worker.connection.close()
    theirs.close()
