"""What interrupts this process is no fault of a worker's, and leaves nothing half done behind."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import pytest

from rims_rl.envs.watched import WatchedVecEnv, crew
from rims_rl.envs.watched.faults import Trouble
from rims_rl.envs.watched.worker import Worker
from tests.envs.watched.worlds import Told

pytestmark = pytest.mark.faults
INTERRUPTED = Trouble("was interrupted by this process")


def interrupt() -> None:
    raise KeyboardInterrupt


def time_out() -> None:
    """Raise what signal handlers for deadlines raise, which is an OSError."""
    raise TimeoutError("my own deadline")


class Interrupting:
    """Interrupts whoever unpickles it."""

    def __init__(self, by: Callable[[], None]) -> None:
        self.by = by

    def __reduce__(self) -> Any:
        return self.by, ()


class TestAnAnswer:
    @pytest.mark.parametrize(("by", "kind"), [(interrupt, KeyboardInterrupt), (time_out, TimeoutError)])
    def test_that_is_unpickled_when_the_interrupt_comes_is_useless(self, pair, by, kind):
        worker, theirs = pair
        theirs.send_bytes(pickle.dumps((Interrupting(by), None)))
        with pytest.raises(kind):
            worker.listen(is_readable=True)
        assert (worker.owes, worker.outcome) == (False, INTERRUPTED)

    def test_that_is_read_when_the_caller_s_time_is_up_is_useless(self, pair, monkeypatch):
        worker, _ = pair
        monkeypatch.setattr(worker.connection, "recv_bytes", time_out, raising=False)
        with pytest.raises(TimeoutError, match="my own deadline"):
            worker.listen(is_readable=True)
        assert (worker.owes, worker.outcome) == (False, INTERRUPTED)


class TestAStart:
    def test_that_is_interrupted_by_the_caller_s_deadline_is_no_fault(self, monkeypatch):
        def start(_: BaseProcess) -> None:
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(1)

        before = signal.signal(signal.SIGUSR1, lambda *_: time_out())
        monkeypatch.setattr(BaseProcess, "start", start)
        try:
            with pytest.raises(TimeoutError, match="my own deadline"):
                WatchedVecEnv([Told])
        finally:
            signal.signal(signal.SIGUSR1, before)


class TestAStep:
    def test_whose_action_cannot_be_pickled_is_taken_by_no_copy(self, watch):
        env = watch({}, {})
        env.reset()
        actions = np.empty(2, object)
        actions[:] = [1, lambda: 0]
        with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
            env.step(actions)
        assert env.step([1, 1])[0][:, 2].tolist() == [1, 1]

    def test_that_is_interrupted_between_two_copies_is_taken_once_by_each(self, watch, monkeypatch):
        env = watch({}, {})
        env.reset()
        original = Worker.send_step

        def send(worker: Worker, *given: Any) -> None:
            original(worker, *given)
            monkeypatch.setattr(Worker, "send_step", original)
            raise KeyboardInterrupt

        monkeypatch.setattr(Worker, "send_step", send)
        with pytest.raises(KeyboardInterrupt):
            env.step([1, 1])
        assert env.step_wait()[0][:, 2].tolist() == [1, 1]
        assert env.step([1, 1])[0][:, 2].tolist() == [2, 2]


class TestAReset:
    def test_whose_options_cannot_be_pickled_is_made_by_no_copy(self, watch):
        env = watch({}, {})
        env.reset()
        env.set_options([{}, {"how": lambda: 0}])
        with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
            env.reset()
        assert env.step([1, 1])[0][:, 1].tolist() == [0, 0]


class TestClose:
    def test_that_is_interrupted_ends_the_processes_at_once(self, watch, monkeypatch):
        env = watch({}, {})
        os.kill(env.processes[0].pid, signal.SIGSTOP)
        join = crew._join

        def interrupted(*given: Any) -> None:
            monkeypatch.setattr(crew, "_join", join)
            raise KeyboardInterrupt

        monkeypatch.setattr(crew, "_join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            env.close()
        assert not any(process.is_alive() for process in env.processes)
