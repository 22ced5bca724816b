"""The fork server's death is not the death of the workers that it has started."""

from __future__ import annotations

import os
import signal
from multiprocessing import forkserver

import pytest

from rims_rl.envs.watched import WatchedVecEnv
from tests.envs.watched.test_ending import are_gone, pids_of, until

pytestmark = pytest.mark.faults


def kill_the_fork_server(env: WatchedVecEnv) -> None:
    pid = forkserver._forkserver._forkserver_pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: are_gone(pid))
    assert not any(are_gone(worker) for worker in pids_of(env))


class TestWorkersWithoutTheirForkServer:
    def test_go_on(self, watch):
        env = watch({}, {"plan": [("step 2", "nap")]}, restarts=0)
        env.reset()
        env.step([0, 0])
        env.step_async([1, 1])
        kill_the_fork_server(env)
        assert env.step_wait()[0][:, 2].tolist() == [2, 2]
        assert env.step([2, 2])[0][:, 2].tolist() == [3, 3]
        assert env.restarts == [0, 0]
        pids = pids_of(env)
        env.close()
        until(lambda: are_gone(*pids), 10)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
    def test_are_replaced_when_they_die_or_hang(self, watch, number):
        env = watch({}, {}, seconds=1.5)
        env.reset()
        kill_the_fork_server(env)
        env.step([0, 0])
        dead = pids_of(env)[1]
        os.kill(dead, number)
        assert env.step([0, 0])[2].tolist() == [False, True]
        assert env.restarts == [0, 1]
        until(lambda: are_gone(dead), 10)

    def test_are_killed_at_the_end_if_they_are_stopped(self, watch):
        env = watch({}, {})
        env.reset()
        kill_the_fork_server(env)
        pids = pids_of(env)
        os.kill(pids[0], signal.SIGSTOP)
        env.close()
        until(lambda: are_gone(*pids), 10)
