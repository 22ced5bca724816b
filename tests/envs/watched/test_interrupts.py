"""What interrupts this process is no fault of a worker's, and leaves nothing half done behind."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from typing import Any

import pytest

from rims_rl.envs.watched import crew
from rims_rl.envs.watched.faults import Trouble

pytestmark = pytest.mark.faults
INTERRUPTED = Trouble("was interrupted by this process")


def interrupt() -> None:
    raise KeyboardInterrupt


class Interrupting:
    """Interrupts whoever unpickles it."""

    def __init__(self, by: Callable[[], None]) -> None:
        self.by = by

    def __reduce__(self) -> Any:
        return self.by, ()


class TestAnAnswer:
    def test_that_is_unpickled_when_the_interrupt_comes_is_useless(self, pair):
        worker, theirs = pair
        theirs.send_bytes(pickle.dumps((Interrupting(interrupt), None)))
        with pytest.raises(KeyboardInterrupt):
            worker.listen(is_readable=True)
        assert (worker.owes, worker.outcome) == (False, INTERRUPTED)


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
