"""What the tests of watched environments share: a limit in time, and environments that are closed in the end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from rims_rl.envs.watched import Patience, WatchedVecEnv
from tests.envs.watched.worlds import Told

SECONDS_PER_TEST = 60
Watch = Callable[..., WatchedVecEnv]


@pytest.fixture(autouse=True)
def _wall_limit() -> Iterator[None]:
    """Let a test that hangs fail."""

    def fail(*_: object) -> None:
        raise TimeoutError(f"the test took more than {SECONDS_PER_TEST} s")

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
