"""A run whose environments' processes were replaced goes on from its checkpoint as if it had never stopped."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from rims_rl.agents import RIMPPO
from rims_rl.agents.checkpoint import capture, restore
from rims_rl.envs import make_env
from rims_rl.envs.watched import WatchedVecEnv
from rims_rl.errors import CheckpointError
from tests.agents.small_worlds import agent

pytestmark = pytest.mark.faults
N_ENVS, N_STEPS = 2, 20
ROLLOUT = N_ENVS * N_STEPS
State = tuple[Any, Any]


def model(subprocess: bool = True) -> RIMPPO:
    env = make_env("cartpole-novel", N_ENVS, 5, subprocess=subprocess)
    return agent(env, n_steps=N_STEPS, batch_size=N_STEPS)


def kill(env: Any, index: int) -> None:
    os.kill(env.unwrapped.processes[index].pid, signal.SIGKILL)


class Stop(BaseCallback):
    """Kills a process after the first update, takes a checkpoint, and keeps what the next step tells of that copy."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State | None = None
        self.told: dict[str, Any] | None = None

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps == ROLLOUT:
            kill(self.model.env, 1)
            self.state = copy.deepcopy(capture(self.model))

    def _on_step(self) -> bool:
        if self.model.num_timesteps == ROLLOUT + N_ENVS:
            self.told = self.locals["infos"][1]
        return True


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[RIMPPO, Stop]]:
    """A run of three rollouts, with a process that had died before the second."""
    stop = Stop()
    trained = model().learn(3 * ROLLOUT, callback=stop)
    yield trained, stop
    trained.env.close()


@pytest.fixture
def resumed(whole: tuple[RIMPPO, Stop]) -> Iterator[RIMPPO]:
    again = model()
    restore(again, *whole[1].state)
    yield again
    again.env.close()


def assert_same(one: RIMPPO, other: RIMPPO) -> None:
    """Compare weights, observations and episodes, bit for bit."""
    for name, tensor in one.policy.state_dict().items():
        assert torch.equal(tensor, other.policy.state_dict()[name]), name
    np.testing.assert_array_equal(one._last_obs, other._last_obs)
    assert [episode["l"] for episode in one.ep_info_buffer] == [episode["l"] for episode in other.ep_info_buffer]


class TestAGapAtTheCheckpoint:
    def test_is_told_by_the_first_step_after_it(self, whole, resumed):
        stop = Stop()
        resumed.learn(ROLLOUT, callback=stop, reset_num_timesteps=False)
        assert whole[1].told["TimeLimit.truncated"] is True
        assert stop.told["worker_restarted"] == whole[1].told["worker_restarted"]

    def test_leaves_the_run_exact(self, whole, resumed):
        assert whole[1].state[1]["exact"] is True
        resumed.learn(2 * ROLLOUT, reset_num_timesteps=False)
        assert_same(whole[0], resumed)

    def test_needs_processes_of_their_own(self, whole):
        plain = model(subprocess=False)
        with pytest.raises(CheckpointError, match=r"had just been replaced; go on with processes .* \(subprocess\)$"):
            restore(plain, *whole[1].state)
        assert plain.num_timesteps == 0


class TestAFaultDuringTheResume:
    def test_costs_no_episode(self, whole):
        again = model()
        reset = again.env.reset

        def reset_and_die():
            first = reset()
            kill(again.env, 0)
            return first

        again.env.reset = reset_and_die
        restore(again, *whole[1].state)
        assert again.env.restarts == [1, 1]
        again.learn(2 * ROLLOUT, reset_num_timesteps=False)
        assert_same(whole[0], again)
        again.env.close()


class TestAFaultRightAfterTheResume:
    def test_is_learned_from_as_without_the_resume(self):
        first, again = model(), model()
        state = capture(first.learn(ROLLOUT))
        for run in (first, again):
            if run is again:
                restore(again, *state)
            kill(run.env, 0)
            run.learn(ROLLOUT, reset_num_timesteps=False)
        assert_same(first, again)
        first.env.close(), again.env.close()


class TestRestarts:
    def test_are_counted_on(self, resumed):
        assert resumed.env.unwrapped.restarts == [0, 1]
        kill(resumed.env, 1)
        assert resumed.env.has_attr("snapshot")
        assert resumed.env.unwrapped.restarts == [0, 2]

    def test_lead_to_other_seeds_than_before(self, resumed, caplog):
        kill(resumed.env, 1)
        resumed.env.has_attr("snapshot")
        seed = int(np.random.SeedSequence([8, 1, 2]).generate_state(1)[0] >> 1)
        assert f"with seed {seed} (restart 1 of 3)" in caplog.text

    def test_of_a_run_without_processes_are_none(self):
        plain = model(subprocess=False).learn(ROLLOUT)
        assert capture(plain)[1]["state"]["environment"]["faults"] is None


class TestStates:
    def test_from_before_faults_were_stored_are_taken(self, whole):
        tensors, manifest = copy.deepcopy(whole[1].state)
        del manifest["state"]["environment"]["faults"]
        again = model()
        restore(again, tensors, manifest)
        assert again.env.unwrapped.fault_state == {"restarts": [0, 0], "gaps": [None, None]}
        again.env.close()

    @pytest.mark.parametrize(
        "faults",
        [
            7, "restarts", [], {}, {"restarts": [0, 0]}, {"restarts": 3, "gaps": [None, None]},
            {"restarts": [0], "gaps": [None, None]}, {"restarts": [0, 0], "gaps": [None]},
            {"restarts": [0, -1], "gaps": [None, None]}, {"restarts": [0, 2**80], "gaps": [None, None]},
            {"restarts": [0, True], "gaps": [None, None]}, {"restarts": [0, 1.0], "gaps": [None, None]},
            {"restarts": [0, "1"], "gaps": [None, None]}, {"restarts": [0, 0], "gaps": [None, 1]},
            {"restarts": [0, 0], "gaps": {"0": None, "1": None}}, {"restarts": [0, 0], "gaps": ["", 10**5 * "x"]},
        ],
    )  # fmt: skip
    def test_that_are_damaged_are_refused(self, whole, resumed, faults):
        tensors, manifest = copy.deepcopy(whole[1].state)
        manifest["state"]["environment"]["faults"] = faults
        with pytest.raises(CheckpointError, match="the checkpoint of step 40 is damaged: ") as caught:
            restore(resumed, tensors, manifest)
        assert len(str(caught.value)) < 500


def test_new_episodes_have_no_gap(watch_told: WatchedVecEnv) -> None:
    from rims_rl.agents.environment_state import environment_state, set_environment_state

    kill(watch_told, 0)
    watch_told.has_attr("steps")
    state = environment_state(watch_told)
    assert state["faults"]["gaps"][0] is not None
    set_environment_state(watch_told, state, 3)
    assert not watch_told.step([0])[2].any()
    assert watch_told.restarts == [2]


@pytest.fixture
def watch_told() -> Iterator[WatchedVecEnv]:
    """One copy of an environment without snapshots, in an episode."""
    from tests.envs.watched.worlds import Told

    env = WatchedVecEnv([Told])
    env.reset()
    yield env
    env.close()
