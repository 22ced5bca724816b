"""No process outlives its purpose, and nothing waits for ever for one that doesn't answer."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rims_rl.envs.watched import WatchedVecEnv, crew
from rims_rl.errors import EnvironmentFault
from tests.envs.watched.worlds import Told

pytestmark = pytest.mark.faults

SCRIPT = """
import os, signal, sys, time
from functools import partial
from rims_rl.envs.watched import Patience, WatchedVecEnv, crew
from tests.envs.watched.worlds import Told

if __name__ == "__main__":
    crew._SECONDS_TO_CLOSE = 2.0
    makers = [Told, Told, partial(Told, [("step", "sleep")])]
    env = WatchedVecEnv(makers, Patience(None))
    env.reset()
    env.step_async([0, 0, 0])
    print(*[process.pid for process in env.processes], flush=True)
    {then}
"""


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def state_of(pid: int) -> str:
    """Return R, S, T, Z and so on; Z, too, for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def are_gone(*pids: int) -> bool:
    return all(state_of(pid) == "Z" for pid in pids)


def pids_of(env) -> list[int]:
    return [process.pid for process in env.processes]


class Script:
    """A program with three workers in the middle of a step, in which the last one hangs."""

    def __init__(self, folder: Path, then: str) -> None:
        file = folder / "script.py"
        file.write_text(SCRIPT.format(then=then))
        root = Path(__file__).parents[3]
        self.process = subprocess.Popen(
            [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.workers = [int(word) for word in self.process.stdout.readline().split()]

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (self.process.pid, *self.workers):
            if not are_gone(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


class TestClose:
    def test_of_idle_workers_is_polite(self, watch):
        env = watch({}, {})
        env.close()
        assert [process.exitcode for process in env.processes] == [0, 0]
        env.close()

    def test_ends_workers_that_are_dead_stopped_or_hang(self, watch, monkeypatch):
        monkeypatch.setattr(crew, "_SECONDS_TO_CLOSE", 2.0)
        env = watch({}, {}, {"plan": [("step", "sleep")]}, {}, seconds=None)
        env.reset()
        dead, stopped, *_ = env.processes
        os.kill(dead.pid, signal.SIGKILL)
        os.kill(stopped.pid, signal.SIGSTOP)
        env.step_async(np.zeros(4, int))
        env.close()
        assert [process.exitcode for process in env.processes] == [-9, -9, -9, 0]

    def test_comes_with_the_last_reference(self):
        env = WatchedVecEnv([Told, Told])
        pids = pids_of(env)
        del env
        gc.collect()
        assert are_gone(*pids)

    def test_comes_with_a_fault_that_is_raised(self, watch):
        env = watch({"plan": [("step", "exit")]}, {}, restarts=0)
        env.reset()
        with pytest.raises(EnvironmentFault):
            env.step([0, 0])
        assert are_gone(*pids_of(env))


class TestTheEndOfTheProgram:
    def test_waits_for_no_worker_that_hangs_or_is_stopped(self, tmp_path):
        with Script(tmp_path, "os.kill(env.processes[0].pid, signal.SIGSTOP); sys.exit(7)") as script:
            assert script.process.wait(30) == 7
            until(lambda: are_gone(*script.workers))

    def test_by_the_kernel_ends_the_workers_even_one_that_hangs(self, tmp_path):
        with Script(tmp_path, "env.step_wait()") as script:
            script.process.kill()
            assert script.process.wait(30) == -signal.SIGKILL
            until(lambda: are_gone(*script.workers))


class TestSignals:
    def test_an_interrupt_from_the_terminal_is_left_to_the_process_that_trains(self, watch):
        env = watch({}, {}, restarts=0)
        env.reset()
        for pid in pids_of(env):
            os.kill(pid, signal.SIGINT)
        assert env.step([0, 0])[0][:, 2].tolist() == [1, 1]
