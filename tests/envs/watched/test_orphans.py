"""When the program is killed, no worker stays, whatever it does, and idle ones close their environments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.envs.watched.test_ending import are_gone, until

pytestmark = pytest.mark.faults

PROGRAM = """
import os, re, signal, sys
from multiprocessing import forkserver
from pathlib import Path
from rims_rl.envs.watched import Patience, WatchedVecEnv
from tests.envs.watched.worlds import Told

class Busy(Told):
    def hold(self):
        re.match(r"(a+)+$", 80 * "a" + "b")  # in C, without letting other threads run

class Closing(Told):
    def close(self):
        Path(sys.argv[1]).touch()

if __name__ == "__main__":
    env = WatchedVecEnv([Told, Busy, Closing], Patience(None))
    env.reset()
    pids = [process.pid for process in env.processes]
    os.kill(pids[0], signal.SIGSTOP)
    print(*pids, forkserver._forkserver._forkserver_pid, flush=True)
    env.env_method("hold", indices=[1])
"""


def test_workers_that_are_stopped_or_hold_the_interpreter_end_with_the_program(tmp_path):
    file, closed = tmp_path / "program.py", tmp_path / "closed"
    file.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    program = subprocess.Popen(
        [sys.executable, str(file), str(closed)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert program.stdout is not None
    pids = [int(word) for word in program.stdout.readline().split()]
    try:
        assert len(pids) == 4
        program.kill()
        program.communicate()
        until(lambda: are_gone(*pids), 20)
        assert closed.exists()
    finally:
        for pid in pids:
            if not are_gone(pid):
                os.kill(pid, signal.SIGKILL)
