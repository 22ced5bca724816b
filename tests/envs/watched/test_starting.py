"""A process is started within a time, and again where the system refuses for a moment."""

from __future__ import annotations

import os
import signal
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from rims_rl.envs.watched import Patience, WatchedVecEnv, patience, starting
from rims_rl.errors import EnvironmentFault
from tests.envs.watched.worlds import Told

pytestmark = pytest.mark.faults


def server() -> int:
    return forkserver._forkserver._forkserver_pid


def refusals(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let as many starts fail."""
    original, left = BaseProcess.start, [number]

    def start(process: BaseProcess) -> None:
        if left[0]:
            left[0] -= 1
            raise ConnectionRefusedError("Connection refused")
        original(process)

    monkeypatch.setattr(BaseProcess, "start", start)


class TestAStart:
    def test_that_is_refused_for_a_moment_costs_no_restart(self, watch, monkeypatch):
        env = watch({}, restarts=1)
        env.reset()
        os.kill(env.processes[0].pid, signal.SIGKILL)
        refusals(monkeypatch, 3)
        assert env.step([0])[2].tolist() == [True]
        assert env.restarts == [1]

    def test_that_is_always_refused_is_a_fault(self, monkeypatch):
        refusals(monkeypatch, 1000)
        monkeypatch.setattr(starting, "_SECONDS_BETWEEN", 0.01)
        with pytest.raises(EnvironmentFault, match="could not be started: ConnectionRefusedError: Conn"):
            WatchedVecEnv([Told])

    def test_without_file_handles_is_a_fault(self, watch, monkeypatch):
        def refuse(*_: Any) -> None:
            raise OSError(24, "Too many open files")

        env = watch({}, restarts=2)
        env.reset()
        os.kill(env.processes[0].pid, signal.SIGKILL)
        monkeypatch.setattr(starting, "_SECONDS_BETWEEN", 0.01)
        monkeypatch.setattr(starting.multiprocessing, "Pipe", refuse)
        with pytest.raises(EnvironmentFault, match=r"2 restarts\) could not be started: OSError: .*Too many open"):
            env.step([0])

    def test_at_a_fork_server_that_is_stopped_ends_and_the_next_has_another(self, watch, monkeypatch):
        env = watch({}, seconds=1.0, restarts=2)
        env.reset()
        stopped, kill = server(), starting._kill_fork_server

        def kill_and_be_patient() -> None:
            kill()
            monkeypatch.setattr(patience, "SECONDS_TO_START", 40.0)

        monkeypatch.setattr(patience, "SECONDS_TO_START", 1.0)
        monkeypatch.setattr(starting, "_kill_fork_server", kill_and_be_patient)
        os.kill(stopped, signal.SIGSTOP)
        os.kill(env.processes[0].pid, signal.SIGKILL)
        assert env.step([0])[2].tolist() == [True]
        assert env.restarts == [2]
        assert server() != stopped

    def test_leaves_errors_of_the_program_as_they_are(self, monkeypatch):
        def refuse(*_: Any) -> None:
            raise RuntimeError("not in a main module")

        monkeypatch.setattr(BaseProcess, "start", refuse)
        with pytest.raises(RuntimeError, match="not in a main module"):
            WatchedVecEnv([Told], Patience(5.0))
