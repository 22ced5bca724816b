"""SIGTERM and Ctrl-C are for the process that trains, even where they are sent to the whole process group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.envs.watched.worlds import Told

pytestmark = pytest.mark.faults

TERMINATED_GROUP = """
import os, signal
from functools import partial
from multiprocessing import forkserver
from rims_rl.envs.watched import Patience, WatchedVecEnv
from tests.envs.watched.worlds import Told

if __name__ == "__main__":
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    env = WatchedVecEnv([Told, partial(Told, [("step", "nap")])], Patience(30.0, restarts=0))
    env.reset()
    server = forkserver._forkserver._forkserver_pid
    os.killpg(0, signal.SIGTERM)
    env.step([0, 0])
    env.step_async([0, 0])
    os.killpg(0, signal.SIGTERM)
    env.step_wait()
    print(len(heard), env.restarts, os.waitpid(server, os.WNOHANG))
    env.close()
"""


INTERRUPTED_START = """
import os, signal, threading
from rims_rl.envs.watched import Patience, WatchedVecEnv
from tests.envs.watched.worlds import Told

if __name__ == "__main__":
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    timers = [threading.Timer(seconds, os.killpg, (0, signal.SIGINT)) for seconds in (0.3, 0.8, 1.3)]
    for timer in timers:  # in the first two or three of which the fork server imports
        timer.start()
    env = WatchedVecEnv([Told], Patience(30.0, restarts=0))
    env.reset()
    env.close()
    for timer in timers:  # a fast machine is done before the last
        timer.join()
    print(len(heard), env.restarts)
"""


class Parent(Told):
    """Has a process of its own."""

    def code_of_a_child(self) -> int:
        child = subprocess.Popen(["sleep", "30"])
        child.terminate()
        return child.wait(20)


def output_of(program: str, folder: Path) -> str:
    """Return what a program in a process group of its own prints."""
    file = folder / "program.py"
    file.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment, start_new_session=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestSigterm:
    def test_to_the_whole_group_costs_no_worker(self, tmp_path):
        assert output_of(TERMINATED_GROUP, tmp_path) == "2 [0, 0] (0, 0)\n"

    def test_ends_processes_of_an_environment_as_ever(self, watch):
        assert watch({}, kind=Parent).env_method("code_of_a_child") == [-signal.SIGTERM]

    def test_ends_other_processes_of_the_fork_server_as_ever(self, watch):
        watch({})
        other = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(30,), daemon=True)
        other.start()
        other.terminate()
        other.join(20)
        assert other.exitcode == -signal.SIGTERM


def tell_what_is_held_back() -> None:
    """End with the number of signals that this process holds back."""
    sys.exit(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))


class TestCtrlC:
    def test_while_the_fork_server_starts_is_left_to_this_process(self, tmp_path):
        assert output_of(INTERRUPTED_START, tmp_path) == "3 [0]\n"

    def test_is_heard_by_other_processes_of_the_fork_server(self, watch):
        watch({})
        other = multiprocessing.get_context("forkserver").Process(target=tell_what_is_held_back, daemon=True)
        other.start()
        other.join(20)
        assert other.exitcode == 0
