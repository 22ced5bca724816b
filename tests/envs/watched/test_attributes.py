"""What `set_attr` has set is set again, as it was, in the process that takes a worker's place."""

from __future__ import annotations

import os
import pickle
import signal
from typing import Any

import pytest

from rims_rl.envs.watched import WatchedVecEnv
from tests.envs.watched.worlds import Told

pytestmark = pytest.mark.faults


class Picky(Told):
    """Has a level, which it may refuse to set."""

    def __init__(self, refuses: bool) -> None:
        super().__init__()
        self.refuses, self._level = refuses, 0

    @property
    def level(self) -> int:
        return self._level

    @level.setter
    def level(self, level: int) -> None:
        if self.refuses:
            raise ValueError("not me")
        self._level = level


@pytest.fixture
def env(watch):
    env = watch({"refuses": False}, {"refuses": True}, kind=Picky)
    env.reset()
    return env


def replace(env: WatchedVecEnv, index: int) -> None:
    os.kill(env.processes[index].pid, signal.SIGKILL)
    env.has_attr("steps")


def test_a_later_change_of_the_value_is_not_taken_along(env):
    value: list[Any] = [1]
    env.set_attr("mood", value)
    value.append(2)
    replace(env, 0)
    assert env.get_attr("mood") == [[1], [1]]


def test_copies_that_took_it_keep_it_where_another_refused(env):
    with pytest.raises(ValueError, match="not me"):
        env.set_attr("level", 5)
    replace(env, 0)
    replace(env, 1)
    assert env.get_attr("level") == [5, 0]
    assert env.restarts == [1, 1]


def test_what_cannot_be_pickled_is_not_kept(env):
    with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
        env.set_attr("mood", lambda: 0)
    replace(env, 0)
    assert not env.has_attr("mood")
