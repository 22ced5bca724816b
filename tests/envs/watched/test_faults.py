"""A copy that raises, dies or hangs is replaced, or becomes one line that says which copy, its seed and its action."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import re
import signal
from functools import partial

import numpy as np
import pytest

from rims_rl.envs.watched import Patience, WatchedVecEnv, patience
from rims_rl.errors import ConfigError, EnvironmentFault
from tests.agents.small_worlds import agent
from tests.envs.watched.worlds import Odd, Told, dying

pytestmark = pytest.mark.faults

SECONDS = 1.5
"""Until a copy counts as hanging: long enough for the others on a machine that has other things to do."""
REASONS = {
    "exit": "died with exit code 3",
    "leave a child": "died with exit code 3",
    "kill": "died with exit code -9 (SIGKILL)",
    "crash": "died with exit code -11 (SIGSEGV)",
    "stop": f"gave no answer within {SECONDS} s",
    "sleep": f"gave no answer within {SECONDS} s",
    "raise": "raised ZeroDivisionError: integer division or modulo by zero",
    "quit": "raised SystemExit: 5",
    "complain": "raised tests.envs.watched.worlds.Stubborn: salt and pepper",
}
ACTIONS = np.random.default_rng(23).integers(3, size=(11, 3))


def seed_after(seed: int, index: int, restarts: int) -> int:
    return int(np.random.SeedSequence([seed, index, restarts]).generate_state(1)[0] >> 1)


def rollout(env, actions=ACTIONS):
    """Return the first observations and all steps."""
    return env.reset(), [env.step(action) for action in actions]


def all_have_ended(env) -> bool:
    return not any(process.is_alive() for process in env.processes)


def warnings_in(caplog) -> list[str]:
    """Return the first line of each."""
    return [record.getMessage().split("\n")[0] for record in caplog.records if record.levelno == logging.WARNING]


class TestAFaultInAStep:
    @pytest.mark.parametrize("fault", REASONS)
    def test_costs_its_copy_an_episode_and_the_others_nothing(self, fault, watch, tmp_path, caplog):
        settings = {"plan": [("step 4", fault)], "record": tmp_path / "once"}
        first, steps = rollout(watch({}, settings, {}, seconds=SECONDS))
        env = watch({}, {}, {})
        other_first, other_steps = rollout(env)
        reason = f"environment 1 (seed 11, last action {ACTIONS[3, 1]}) {REASONS[fault]}"

        np.testing.assert_array_equal(first, other_first)
        for (seen, rewards, dones, infos), (other_seen, other_rewards, other_dones, other_infos) in zip(
            steps, other_steps, strict=True
        ):
            np.testing.assert_array_equal(seen[::2], other_seen[::2])
            np.testing.assert_array_equal(rewards[::2], other_rewards[::2])
            np.testing.assert_array_equal(dones[::2], other_dones[::2])
            assert str(infos[::2]) == str(other_infos[::2])

        seen, rewards, dones, infos = steps[3]
        assert seen[1, :3].tolist() == [seed_after(11, 1, 1), 0, 0]
        assert (rewards[1], dones[1]) == (0, True)
        assert infos[1].keys() == {"TimeLimit.truncated", "terminal_observation", "worker_restarted"}
        assert infos[1]["TimeLimit.truncated"] is True
        np.testing.assert_array_equal(infos[1]["terminal_observation"], steps[2][0][1])
        assert infos[1]["worker_restarted"] == reason
        assert [step[0][1, 2] for step in steps[4:]] == [1, 2, 3, 4, 0, 1, 2]
        assert warnings_in(caplog) == [
            f"{reason}; a new process takes its place with seed {seed_after(11, 1, 1)} (restart 1 of 3)"
        ]

    @pytest.mark.parametrize("fault", ["exit", "kill", "crash", "stop", "raise", "quit", "complain"])
    def test_is_raised_when_no_restart_is_left_and_all_processes_end(self, fault, watch):
        env = watch({}, {}, {"plan": [("step 2", fault)]}, seconds=SECONDS, restarts=0)
        env.reset()
        env.step(np.array([0, 0, 0]))
        with pytest.raises(EnvironmentFault) as caught:
            env.step(np.array([0, 1, 2]))
        assert str(caught.value) == f"environment 2 (seed 12, last action 2) {REASONS[fault]}"
        assert all_have_ended(env)
        assert env.restarts == [0, 0, 0]

    def test_brings_the_worker_s_traceback_and_the_cause(self, watch):
        env = watch({"plan": [("step 1", "raise")]}, restarts=0)
        env.reset()
        with pytest.raises(EnvironmentFault) as caught:
            env.step([1])
        fault = caught.value
        assert "in <lambda>" in fault.traceback
        assert fault.traceback.endswith("ZeroDivisionError: integer division or modulo by zero\n")
        assert isinstance(fault.__cause__, ZeroDivisionError)
        assert fault.__notes__ == [f"In its process:\n{fault.traceback.rstrip()}"]
        again = pickle.loads(pickle.dumps(fault))
        assert (str(again), again.traceback, again.__notes__) == (str(fault), fault.traceback, fault.__notes__)

    def test_is_raised_once_the_restarts_are_spent(self, watch, caplog):
        env = watch({}, {"plan": [("step 3", "exit")]}, restarts=2)
        env.reset()
        seeds = []
        for _ in range(8):
            seen, _, dones, _ = env.step(np.zeros(2, int))
            seeds += [int(seen[1, 0])] * bool(dones[1])
        with pytest.raises(EnvironmentFault) as caught:
            env.step(np.zeros(2, int))
        assert seeds == [seed_after(11, 1, 1), seed_after(11, 1, 2)]
        assert env.restarts == [0, 2]
        died = "died with exit code 3"
        assert str(caught.value) == f"environment 1 (seed {seeds[1]}, last action 0, 2 restarts) {died}"
        assert warnings_in(caplog)[1].startswith(
            f"environment 1 (seed {seeds[0]}, last action 0, 1 restart) {died}; a new process takes its place with "
        )

    def test_without_seeds_leaves_the_new_episode_without(self, watch, tmp_path, caplog):
        env = watch({"plan": [("step 1", "exit")], "record": tmp_path / "once"}, seed=None)
        env.reset()
        seen, *_ = env.step([1])
        assert seen[0, 0] == -1
        assert warnings_in(caplog)[0].startswith("environment 0 (no seed, last action 1) died with exit code 3; a new ")
        assert "takes its place with no seed (restart 1 of 3)" in warnings_in(caplog)[0]

    def test_may_befall_two_copies_at_once_in_different_ways(self, watch, tmp_path):
        env = watch(
            {"plan": [("step 2", "raise")], "record": tmp_path / "one"}, {},
            {"plan": [("step 2", "kill")], "record": tmp_path / "other"},
        )  # fmt: skip
        env.reset()
        env.step(ACTIONS[0])
        seen, _, dones, infos = env.step(ACTIONS[1])
        assert seen[:, :3].tolist() == [[seed_after(10, 0, 1), 0, 0], [11, 0, 2], [seed_after(12, 2, 1), 0, 0]]
        assert dones.tolist() == [True, False, True]
        assert ["worker_restarted" in info for info in infos] == [True, False, True]
        assert env.restarts == [1, 0, 1]
        assert env.step(ACTIONS[2])[0][:, 2].tolist() == [1, 3, 1]

    def test_updates_what_the_reset_told(self, watch, tmp_path):
        env = watch({"plan": [("step 7", "exit")], "record": tmp_path / "once"})
        _, steps = rollout(env, ACTIONS[:6, :1])
        assert steps[4][2].tolist() == [True]
        assert env.reset_infos == [{"episode number": 1}]
        env.step([0])
        assert env.reset_infos == [{"episode number": 0}]

    @pytest.mark.parametrize(
        ("odd", "reason"),
        [
            ("here", "raised TypeError: cannot pickle 'generator' object"),
            (
                "there",
                "gave an answer that cannot be unpickled here: ModuleNotFoundError: No module named 'known_here_alone'",
            ),
            (
                "shape",
                "gave an observation that does not fit its space: "
                "ValueError: could not broadcast input array from shape (3,) into shape (4,)",
            ),
        ],
    )
    def test_may_be_an_answer_that_nobody_can_use(self, odd, reason, watch):
        env = watch({"odd": odd}, kind=Odd, restarts=0)
        env.reset()
        env.step([1]), env.step([1])
        with pytest.raises(EnvironmentFault) as caught:
            env.step([2])
        assert str(caught.value) == f"environment 0 (seed 10, last action 2) {reason}"
        assert all_have_ended(env)

    def test_is_none_where_the_environment_refuses_an_action(self, watch):
        env = watch({}, {"plan": [("step 2", "refuse")]}, {"plan": [("step 2", "exit")]})
        env.reset()
        env.step(ACTIONS[0])
        with pytest.raises(ConfigError, match=r"^no such action; actions are 0 to 2") as caught:
            env.step(ACTIONS[1])
        assert caught.value.__notes__[0].startswith("environment 1 (seed 11, last action ")
        assert env.restarts == [0, 0, 1]
        assert env.step(ACTIONS[2])[2][2]  # the restart beside it has yet to be told
        assert env.env_method("double") == [2, 2, 2]


class TestAFaultInAReset:
    @pytest.mark.parametrize("fault", ["exit", "raise", "sleep"])
    def test_is_mended_with_the_options_and_a_new_seed(self, fault, watch, tmp_path, caplog):
        env = watch({}, {"plan": [("reset 2", fault)], "record": tmp_path / "once"}, seconds=SECONDS)
        env.reset()
        env.step(np.zeros(2, int))
        env.seed(20)
        env.set_options({"level": 3})
        assert env.reset()[:, :3].tolist() == [[20, 0, 0], [seed_after(21, 1, 1), 0, 0]]
        assert env.get_attr("options", 1) == [[{"level": 3}]]
        assert (env.restarts, len(warnings_in(caplog))) == ([0, 1], 1)
        _, _, dones, infos = env.step(np.zeros(2, int))
        assert not dones.any()
        assert "worker_restarted" not in infos[1]

    @pytest.mark.parametrize("fault", ["exit", "raise", "stop"])
    def test_is_raised_in_the_first_reset(self, fault, watch):
        env = watch({}, {"plan": [("reset", fault)]}, seconds=SECONDS)
        with pytest.raises(EnvironmentFault) as caught:
            env.reset()
        assert str(caught.value) == f"environment 1 (seed 11, no action yet) {REASONS[fault]}"
        assert all_have_ended(env)
        assert env.restarts == [0, 0]

    def test_is_raised_when_no_restart_is_left(self, watch):
        env = watch({"plan": [("reset 2", "raise")]}, restarts=0)
        env.reset()
        with pytest.raises(EnvironmentFault, match=r"^environment 0 \(seed 10, no action yet\) raised ZeroDivision"):
            env.reset()

    def test_of_replacements_is_mended_while_restarts_are_left(self, watch, tmp_path, caplog):
        plan = [("step 1", "exit"), ("build", "raise"), ("build", "kill"), ("reset", "sleep"), ("reset", "raise")]
        env = watch({}, {"plan": plan, "record": tmp_path / "record"}, seconds=SECONDS, restarts=5)
        env.reset()
        seen, _, dones, infos = env.step([2, 1])
        assert seen[:, :3].tolist() == [[10, 0, 1], [seed_after(11, 1, 5), 0, 0]]
        assert (dones.tolist(), env.restarts) == ([False, True], [0, 5])
        assert infos[1]["terminal_observation"][:3].tolist() == [11, 0, 0]
        assert infos[1]["worker_restarted"].endswith(REASONS["exit"])
        told = [warning.split(") ")[1].split(";")[0] for warning in warnings_in(caplog)]
        assert told == [REASONS[name] for name in ("exit", "raise", "kill", "sleep", "raise")]

    @pytest.mark.parametrize("place", ["reset", "build"])
    def test_of_every_replacement_spends_the_restarts_and_no_more(self, place, watch, tmp_path):
        plan = [("step 1", "exit")] + 9 * [(place, "raise")]
        env = watch({}, {"plan": plan, "record": tmp_path / "record"}, restarts=3)
        env.reset()
        with pytest.raises(EnvironmentFault) as caught:
            env.step(np.zeros(2, int))
        culprit = f"environment 1 (seed {seed_after(11, 1, 3)}, no action yet, 3 restarts)"
        assert str(caught.value) == f"{culprit} {REASONS['raise']}"
        assert (tmp_path / "record").read_text() == "4"
        assert env.restarts == [0, 3]
        assert all_have_ended(env)


class TestAFaultInConstruction:
    @pytest.mark.parametrize("fault", ["exit", "raise", "complain", "sleep"])
    def test_is_raised_and_all_processes_end(self, fault, monkeypatch):
        monkeypatch.setattr(patience, "SECONDS_TO_START", SECONDS)
        makers = [partial(Told, [("build", fault)])]
        with pytest.raises(EnvironmentFault) as caught:
            WatchedVecEnv(makers, Patience(seconds=SECONDS))
        assert str(caught.value) == f"environment 0 (no seed, no action yet) {REASONS[fault]}"
        assert not any(child.name.startswith("environment") for child in multiprocessing.active_children())

    def test_of_one_copy_ends_the_others(self):
        with pytest.raises(EnvironmentFault, match=r"^environment 2 \(no seed, no action yet\) died with exit code 3$"):
            WatchedVecEnv([Told, Told, partial(Told, [("build", "exit")])])
        assert not any(child.name.startswith("environment") for child in multiprocessing.active_children())

    def test_is_no_fault_where_the_environment_refuses_its_settings(self):
        with pytest.raises(ConfigError, match=r"^no such action; actions are 0 to 2"):
            WatchedVecEnv([partial(Told, [("build", "refuse")])])


class TestAFaultBetweenSteps:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
    def test_is_found_by_the_next_step(self, number, watch):
        env = watch({}, {}, seconds=None)
        env.reset()
        env.step([1, 1])
        os.kill(env.processes[1].pid, number)
        seen, _, dones, infos = env.step([2, 2])
        assert (seen[:, 2].tolist(), dones.tolist()) == ([2, 0], [False, True])
        reason = f"died with exit code -{number} ({number.name})"
        assert infos[1]["worker_restarted"] == f"environment 1 (seed 11, last action 2) {reason}"

    def test_is_found_by_a_reset(self, watch):
        env = watch({}, {})
        env.reset()
        os.kill(env.processes[0].pid, signal.SIGKILL)
        assert env.reset()[:, :3].tolist() == [[seed_after(10, 0, 1), 0, 0], [11, 1, 0]]

    def test_is_found_when_a_worker_was_stopped(self, watch):
        env = watch({}, {}, seconds=SECONDS)
        env.reset()
        os.kill(env.processes[0].pid, signal.SIGSTOP)
        _, _, dones, infos = env.step([1, 2])
        assert dones.tolist() == [True, False]
        assert infos[0]["worker_restarted"].endswith(REASONS["stop"])

    def test_found_by_a_call_is_mended_and_told_by_the_next_step(self, watch):
        env = watch({}, {})
        env.reset()
        env.step([1, 1])
        env.set_attr("mood", "good")
        os.kill(env.processes[1].pid, signal.SIGKILL)
        assert env.get_attr("all_steps") == [1, 0]
        assert env.restarts == [0, 1]
        assert env.env_method("double", 3) == [6, 6]
        seen, rewards, dones, infos = env.step([2, 2])
        assert (seen[:, 2].tolist(), dones.tolist(), rewards[1]) == ([2, 0], [False, True], 0)
        assert infos[1]["terminal_observation"][:3].tolist() == [11, 0, 1]
        assert infos[1]["worker_restarted"] == "environment 1 (seed 11, last action 1) died with exit code -9 (SIGKILL)"
        assert not env.step([2, 2])[2].any()
        assert env.restarts == [0, 1]


class TestAFaultInACall:
    @pytest.mark.parametrize(
        ("name", "arguments", "kind", "message"),
        [
            ("nothing", (), AttributeError, "nothing"),
            ("double", ("x", "y"), TypeError, "positional argument"),
            ("look_up", ("unknown",), KeyError, "unknown"),
            ("call", ("refuse",), ConfigError, "no such action"),
            ("call", ("raise",), ZeroDivisionError, "integer division"),
        ],
    )
    def test_that_is_raised_comes_back_as_it_is_and_the_worker_lives_on(self, name, arguments, kind, message, watch):
        env = watch({}, {"plan": [(fault, fault) for fault in ("refuse", "raise")]}, restarts=0)
        env.reset()
        before = [process.pid for process in env.processes]
        for _ in range(3):
            with pytest.raises(kind, match=message) as caught:
                env.env_method(name, *arguments, indices=[1])
            assert re.match(
                r"environment 1 \(seed 11, no action yet\), in its process:\nTraceback", *caught.value.__notes__
            )
            assert not env.has_attr("nothing")
        assert [process.pid for process in env.processes] == before
        assert env.step([1, 1])[0][:, 2].tolist() == [1, 1]

    def test_of_the_caller_is_raised_before_anything_is_sent(self, watch):
        env = watch({}, restarts=0)
        with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
            env.env_method("double", lambda: 1)
        assert env.env_method("double") == [2]

    def test_that_cannot_be_pickled_is_told_and_the_worker_lives_on(self, watch):
        env = watch({"plan": [("complain", "complain")]}, restarts=0)
        with pytest.raises(EnvironmentFault) as caught:
            env.env_method("call", "complain")
        assert str(caught.value) == f"environment 0 (no seed, no action yet) {REASONS['complain']}"
        assert env.env_method("double") == [2]

    @pytest.mark.parametrize("fault", ["exit", "sleep"])
    def test_that_takes_the_process_along_is_mended_and_the_call_repeated(self, fault, watch, tmp_path):
        env = watch({}, {"plan": [("now", fault)], "record": tmp_path / "record"}, seconds=SECONDS)
        env.reset()
        env.set_attr("mood", "good")
        assert env.env_method("call", "now") == ["well", "well"]
        assert env.restarts == [0, 1]
        assert env.step([1, 1])[2].tolist() == [False, True]

    def test_that_takes_every_process_along_is_raised(self, watch):
        env = watch({}, {"plan": [("now", "exit")]}, restarts=1)
        env.reset()
        with pytest.raises(
            EnvironmentFault, match=r"^environment 1 \(seed \d+, no action yet, 1 restart\) died with exit code 3$"
        ):
            env.env_method("call", "now")
        assert all_have_ended(env)

    def test_before_the_first_reset_is_raised(self, watch):
        env = watch({"plan": [("now", "exit")]})
        with pytest.raises(EnvironmentFault, match="died with exit code 3"):
            env.env_method("call", "now")

    def test_leaves_what_was_set_to_the_process_that_takes_its_place(self, watch):
        env = watch({}, {})
        env.reset()
        env.set_attr("mood", "good", indices=1)
        os.kill(env.processes[1].pid, signal.SIGKILL)
        env.step([0, 0])
        assert env.get_attr("mood", indices=1) == ["good"]
        assert not env.has_attr("mood")


class TestTraining:
    def test_goes_on_through_a_worker_that_dies(self, tmp_path):
        makers = [partial(dying, at, tmp_path / f"{at}") for at in (13, 27, 1000)]
        env = WatchedVecEnv(makers)
        try:
            model = agent(env).learn(120)
            assert (model.num_timesteps, env.restarts) == (120, [1, 1, 0])
            assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())
            assert len(model.ep_info_buffer) > 5
        finally:
            env.close()
