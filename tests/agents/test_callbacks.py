"""Callbacks: checkpoints when due, honest evaluation, the units' numbers, and a clean end on a signal."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rims_rl.agents import RIMPPO
from rims_rl.agents.activity import activity_statistics
from rims_rl.agents.callbacks import ActivityCallback, CheckpointCallback, EvaluationCallback, StopSignals
from rims_rl.agents.checkpoint import CheckpointStore, read_tensors
from rims_rl.agents.evaluation import Episode, run_episodes
from rims_rl.envs.make import make_env
from rims_rl.errors import ConfigError

N_ENVS, N_STEPS = 2, 6
ROLLOUT = N_ENVS * N_STEPS


def make_model(core: str = "rim", **settings: Any) -> RIMPPO:
    sizes = {"num_units": 3, "active_units": 2, "unit_size": 5} if core == "rim" else {"hidden_size": 5}
    kwargs = {"core": core, "core_kwargs": sizes}
    arguments = {"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 1, "seed": 7, "device": "cpu"} | settings
    return RIMPPO("MlpRIMPolicy", make_env("cartpole-novel", n_envs=N_ENVS, seed=5), policy_kwargs=kwargs, **arguments)


class Recorded(KVWriter):
    """Keeps what is dumped."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.excluded: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.rows.append(dict(key_values))
        self.excluded |= key_excluded

    def close(self) -> None: ...


def recorded(model: RIMPPO) -> Recorded:
    writer = Recorded()
    model.set_logger(Logger(None, [writer]))
    return writer


@pytest.mark.faults
class TestCheckpointCallback:
    def test_it_saves_when_a_multiple_has_been_passed_and_at_the_end(self, tmp_path):
        store = CheckpointStore(tmp_path, keep=99)
        make_model().learn(7 * ROLLOUT, callback=CheckpointCallback(store, 2 * ROLLOUT + 1, {"env": "here"}))
        assert store.steps() == [3 * ROLLOUT, 5 * ROLLOUT, 7 * ROLLOUT]
        assert store.newest().manifest["about"] == {"env": "here"}

    def test_zero_saves_only_at_the_end(self, tmp_path):
        store = CheckpointStore(tmp_path)
        make_model().learn(3 * ROLLOUT, callback=CheckpointCallback(store, 0))
        assert store.steps() == [3 * ROLLOUT]

    def test_a_resumed_run_keeps_the_beat(self, tmp_path):
        first, second = CheckpointStore(tmp_path / "first"), CheckpointStore(tmp_path / "second")
        model = make_model()
        model.learn(3 * ROLLOUT, callback=CheckpointCallback(first, 2 * ROLLOUT))
        model.learn(3 * ROLLOUT, callback=CheckpointCallback(second, 2 * ROLLOUT), reset_num_timesteps=False)
        assert first.steps() == [2 * ROLLOUT, 3 * ROLLOUT]
        assert second.steps() == [4 * ROLLOUT, 6 * ROLLOUT]

    def test_what_it_stores_is_the_state_between_two_updates(self, tmp_path):
        store = CheckpointStore(tmp_path, keep=99)
        make_model().learn(4 * ROLLOUT, callback=CheckpointCallback(store, 2 * ROLLOUT))
        half = make_model().learn(2 * ROLLOUT)
        tensors, _ = read_tensors(tmp_path / f"step_{2 * ROLLOUT:09d}.safetensors")
        assert all(torch.equal(tensors[f"policy/{name}"], now) for name, now in half.policy.state_dict().items())

    def test_a_stopped_run_is_saved_before_it_ends(self, tmp_path):
        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                self.model.stop_requested = self.model.num_timesteps > ROLLOUT
                return True

        store = CheckpointStore(tmp_path)
        make_model().learn(99 * ROLLOUT, callback=CallbackList([CheckpointCallback(store, 0), Stop()]))
        assert store.steps() == [2 * ROLLOUT]

    def test_a_disk_that_refuses_is_said_and_training_goes_on(self, tmp_path, monkeypatch, caplog):
        store = CheckpointStore(tmp_path)
        monkeypatch.setattr(store, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        model = make_model()
        with caplog.at_level(logging.WARNING):
            model.learn(4 * ROLLOUT, callback=CheckpointCallback(store, 2 * ROLLOUT))
        assert model.num_timesteps == 4 * ROLLOUT
        assert [record.message for record in caplog.records] == [
            f"no checkpoint at step {step * ROLLOUT}: [Errno 28] No space left on device" for step in (2, 4)
        ]

    def test_no_checkpoint_comes_before_the_rows_that_lead_to_it(self, tmp_path):
        class Behind(KVWriter):
            tries = 0

            def write(self, key_values, key_excluded, step=0):
                pass

            def close(self):
                pass

            def catch_up(self):
                self.tries += 1
                if self.tries == 2:
                    raise OSError("No space left on device")

        store, model = CheckpointStore(tmp_path, keep=99), make_model()
        model.set_logger(Logger(None, [Behind()]))
        model.learn(4 * ROLLOUT, callback=CheckpointCallback(store, ROLLOUT))
        assert store.steps() == [ROLLOUT, 3 * ROLLOUT, 4 * ROLLOUT]

    def test_negative_steps_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="at least 0, got -1"):
            CheckpointCallback(CheckpointStore(tmp_path), -1)


class TestBestCheckpoint:
    def run(self, store: CheckpointStore, rewards: list[float], start: int = 0) -> None:
        """Save once per entry, with that mean reward."""
        model = make_model()
        model.learn(ROLLOUT)
        callback = CheckpointCallback(store, 1)
        callback.init_callback(model)
        model.num_timesteps = start
        callback.on_training_start({}, {})
        for reward in rewards:
            model.num_timesteps += 1
            model.ep_info_buffer = deque([{"r": reward, "l": 3}] * N_ENVS, maxlen=100)
            callback.on_rollout_start()

    def test_the_best_mean_reward_is_kept(self, tmp_path):
        store = CheckpointStore(tmp_path)
        self.run(store, [3.0, 7.0, 5.0, 6.0])
        assert store.best_score() == 7.0
        assert read_tensors(store.best_file)[1]["num_timesteps"] == 2

    def test_a_resumed_run_beats_the_stored_score_or_leaves_it(self, tmp_path):
        store = CheckpointStore(tmp_path)
        self.run(store, [7.0])
        self.run(store, [5.0], start=10)
        assert read_tensors(store.best_file)[1]["num_timesteps"] == 1
        self.run(store, [8.0], start=20)
        assert store.best_score() == 8.0

    def test_a_few_lucky_episodes_are_no_score(self, tmp_path):
        store = CheckpointStore(tmp_path)
        model = make_model()
        model.learn(ROLLOUT)
        model.ep_info_buffer = deque([{"r": 99.0}] * (N_ENVS - 1), maxlen=100)
        callback = CheckpointCallback(store, 1)
        callback.init_callback(model)
        assert callback.save()
        assert store.best_score() is None


class TestActivityStatistics:
    """Hand-made diagnostics with numbers known in advance."""

    def test_use_is_counted_per_unit(self):
        active = torch.tensor([[[1, 1, 0]], [[1, 0, 1]], [[1, 1, 0]], [[1, 0, 1]]], dtype=torch.bool)  # (4, 1, 3)
        numbers = activity_statistics({"active": active})
        assert [numbers[f"active_unit_{unit}"] for unit in range(3)] == [1.0, 0.5, 0.5]
        assert numbers["use_entropy"] == pytest.approx(1.5 * math.log(2))
        assert numbers["use_evenness"] == pytest.approx(1.5 * math.log(2) / math.log(3))

    def test_even_use_has_evenness_one_and_a_single_worker_zero(self):
        even = torch.eye(3, dtype=torch.bool).unsqueeze(1)
        alone = torch.tensor([[[True, False, False]]])
        assert activity_statistics({"active": even})["use_evenness"] == pytest.approx(1.0)
        assert activity_statistics({"active": alone})["use_evenness"] == 0.0

    def test_null_attention_is_split_by_activity(self):
        null = torch.tensor([[[0.1, 0.7]], [[0.3, 0.9]]])
        active = torch.tensor([[[True, False]], [[True, False]]])
        numbers = activity_statistics({"active": active, "null_attention": null})
        assert numbers["null_attention"] == pytest.approx(0.5)
        assert (numbers["null_active"], numbers["null_inactive"]) == (pytest.approx(0.2), pytest.approx(0.8))

    def test_all_active_leaves_no_inactive_mean(self):
        numbers = activity_statistics(
            {"active": torch.ones(1, 1, 2, dtype=torch.bool), "null_attention": torch.ones(1, 1, 2)}
        )
        assert "null_inactive" not in numbers

    def test_communication_counts_active_readers_only(self):
        rows = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]], [[[0.1, 0.9], [0.0, 1.0]]]])  # (2, 1, 2, 2)
        active = torch.tensor([[[True, True]], [[False, True]]])
        numbers = activity_statistics({"active": active, "communication": rows})
        found = [[numbers[f"comm_unit_{i}_{j}"] for j in range(2)] for i in range(2)]
        np.testing.assert_allclose(found, [[0.5, 0.5], [0.5, 0.5]], rtol=1e-6)
        assert numbers["comm_entropy"] == pytest.approx(math.log(2) / 3)

    def test_nothing_in_gives_nothing_out(self):
        assert activity_statistics({}) == {}


class TestActivityCallback:
    def test_a_rim_records_every_n_th_rollout(self):
        model = make_model()
        writer = recorded(model)
        model.learn(4 * ROLLOUT, callback=ActivityCallback(every_updates=2), log_interval=1)
        rows = [{key: value for key, value in row.items() if key.startswith("rims/")} for row in writer.rows]
        assert [bool(row) for row in rows] == [False, True, False, True]
        used = [rows[1][f"rims/active_unit_{unit}"] for unit in range(3)]
        assert sum(used) == pytest.approx(2.0)
        assert all(math.isfinite(value) for value in rows[1].values())
        assert {"rims/use_entropy", "rims/use_evenness", "rims/null_attention", "rims/comm_entropy"} <= rows[1].keys()

    def test_the_matrix_is_kept_off_the_console(self):
        model = make_model()
        writer = recorded(model)
        model.learn(ROLLOUT, callback=ActivityCallback(every_updates=1), log_interval=1)
        hidden = {key for key, formats in writer.excluded.items() if formats and "stdout" in formats}
        assert hidden == {f"rims/comm_unit_{i}_{j}" for i in range(3) for j in range(3)}

    def test_a_core_without_units_records_nothing(self):
        model = make_model("lstm")
        writer = recorded(model)
        model.learn(ROLLOUT, callback=ActivityCallback(every_updates=1), log_interval=1)
        assert not any(key.startswith("rims/") for key in writer.rows[0])

    def test_looking_changes_nothing(self):
        watched = make_model().learn(3 * ROLLOUT, callback=ActivityCallback(every_updates=1))
        alone = make_model().learn(3 * ROLLOUT)
        for one, other in zip(watched.policy.parameters(), alone.policy.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_never_is_refused(self):
        with pytest.raises(ConfigError, match="at least 1, got 0"):
            ActivityCallback(every_updates=0)


class Countdown(gym.Env[Any, Any]):
    """Pays 1 a step; an episode lasts as long as its copy's number says, or for ever."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, length: float) -> None:
        self.length, self.steps = length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return obs, 1.0, self.steps >= self.length, False, {}


class Watcher:
    """A policy that acts at random and notes what it was told."""

    def __init__(self) -> None:
        self.starts: list[list[bool]] = []
        self.states: list[Any] = []

    def predict(self, obs: Any, state: Any, starts: Any, deterministic: bool) -> tuple[Any, Any]:
        self.starts.append(starts.tolist())
        self.states.append(state)
        return torch.randint(2, (len(obs),)).numpy(), (np.full((1, len(obs), 1), float(len(self.states))),)


def countdown(*lengths: float) -> DummyVecEnv:
    return DummyVecEnv([lambda length=length: Countdown(length) for length in lengths])


class TestRunEpisodes:
    def test_every_copy_that_begins_is_waited_for(self):
        played = run_episodes(Watcher(), countdown(3, 7), 4, 99)
        assert [episode.length for episode in played] == [3, 7, 3, 7]
        assert [episode.reward for episode in played] == [3.0, 7.0, 3.0, 7.0]

    def test_only_as_many_as_asked(self):
        assert [episode.length for episode in run_episodes(Watcher(), countdown(3, 7, 5), 4, 99)] == [3, 7, 5, 3]

    def test_an_episode_that_never_ends_is_cut_and_said(self):
        played = run_episodes(Watcher(), countdown(math.inf, 3), 2, 11)
        assert played == [Episode(11.0, 11, True), Episode(3.0, 3, False)]

    @pytest.mark.faults
    def test_once_told_to_stop_what_goes_on_is_cut_and_no_other_begins(self):
        asked = iter([False] * 4 + [True] * 9)
        played = run_episodes(Watcher(), countdown(math.inf, 3), 4, 99, should_stop=lambda: next(asked))
        assert played == [Episode(5.0, 5, True), Episode(3.0, 3, False)]

    @pytest.mark.faults
    def test_one_whose_process_was_lost_is_cut(self):
        class Lost(gym.Wrapper):
            def step(self, action):
                obs, reward, terminated, truncated, info = self.env.step(action)
                return obs, reward, terminated, truncated, info | {"worker_restarted": "it died"}

        env = DummyVecEnv([lambda: Lost(Countdown(3))])
        assert run_episodes(Watcher(), env, 1, 99) == [Episode(3.0, 3, True)]

    def test_an_episode_that_ends_at_the_cap_is_whole(self):
        assert run_episodes(Watcher(), countdown(11), 1, 11) == [Episode(11.0, 11, False)]

    def test_the_memory_is_carried_and_wiped_where_an_episode_starts(self):
        watcher = Watcher()
        run_episodes(watcher, countdown(2, 4), 2, 99)
        assert watcher.starts == [[True, True], [False, False], [True, False], [False, False]]
        assert watcher.states[0] is None
        assert [state[0][0, 0, 0] for state in watcher.states[1:]] == [1.0, 2.0, 3.0]

    def test_the_raw_score_counts_where_the_environment_tells_it(self):
        class Clipped(gym.RewardWrapper):
            def reward(self, reward: float) -> float:
                return 0.5 * reward

        env = DummyVecEnv([lambda: Clipped(Monitor(Countdown(3)))])
        assert run_episodes(Watcher(), env, 1, 99) == [Episode(3.0, 3, False)]

    def test_a_seed_decides_the_outcome_and_no_generator_is_moved(self):
        policy, env = make_model().policy, make_env("cartpole-novel", n_envs=2, seed=1)
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first = run_episodes(policy, env, 4, 99, seed=13)
        assert torch.equal(torch.get_rng_state(), before)
        assert run_episodes(policy, env, 4, 99, seed=13) == first
        assert run_episodes(policy, env, 4, 99, seed=17) != first

    @pytest.mark.parametrize(("episodes", "cap"), [(0, 5), (5, 0)])
    def test_sizes_below_one_are_refused(self, episodes, cap):
        with pytest.raises(ConfigError, match=f"at least 1, got {episodes} and {cap}"):
            run_episodes(Watcher(), countdown(3), episodes, cap)


class TestEvaluationCallback:
    def test_it_records_the_means_when_due(self):
        model = make_model()
        writer = recorded(model)
        heard: list[tuple[int, int]] = []
        env = make_env("cartpole-novel", n_envs=2, seed=9)
        callback = EvaluationCallback(
            env, 2 * ROLLOUT, 3, 7, listener=lambda step, played: heard.append((step, len(played)))
        )
        model.learn(5 * ROLLOUT, callback=callback, log_interval=1)
        assert [row.get("eval/ep_length") for row in writer.rows] == [None, None, 7.0, None, 7.0]
        assert [row.get("eval/mean_reward") for row in writer.rows] == [None, None, 7.0, None, 7.0]
        assert [row.get("eval/truncated") for row in writer.rows] == [None, None, 3, None, 3]
        assert heard == [(2 * ROLLOUT, 3), (4 * ROLLOUT, 3)]

    def test_training_goes_the_same_with_it_or_without(self):
        callback = EvaluationCallback(make_env("cartpole-novel", n_envs=2, seed=9), ROLLOUT, 3, 50)
        watched = make_model().learn(4 * ROLLOUT, callback=callback)
        alone = make_model().learn(4 * ROLLOUT)
        for one, other in zip(watched.policy.parameters(), alone.policy.parameters(), strict=True):
            assert torch.equal(one, other)

    @pytest.mark.faults
    def test_one_that_takes_too_long_is_cut_and_said(self, caplog):
        model = make_model()
        writer = recorded(model)
        callback = EvaluationCallback(countdown(math.inf, 3), ROLLOUT, 2, 10**9, most_seconds=0.2)
        with caplog.at_level(logging.WARNING):
            model.learn(2 * ROLLOUT, callback=callback, log_interval=1)
        assert writer.rows[-1]["eval/truncated"] == 1
        assert caplog.messages == [f"the evaluation at step {ROLLOUT} was cut after 0.2 seconds"]

    @pytest.mark.faults
    def test_a_signal_ends_one_at_once_and_nothing_is_recorded(self):
        model = make_model()
        writer = recorded(model)
        env = countdown(math.inf, 3)
        step = env.step
        taken: list[int] = []

        def stop_at_seven(actions):
            taken.append(1)
            model.stop_requested |= len(taken) == 7
            return step(actions)

        env.step = stop_at_seven
        model.learn(9 * ROLLOUT, callback=EvaluationCallback(env, ROLLOUT, 2, 10**9), log_interval=1)
        assert (len(taken), model.num_timesteps) == (7, ROLLOUT)
        assert not any("eval/mean_reward" in row for row in writer.rows)

    def test_zero_never_evaluates(self):
        model = make_model()
        writer = recorded(model)
        model.learn(2 * ROLLOUT, callback=EvaluationCallback(countdown(3), 0), log_interval=1)
        assert not any("eval/mean_reward" in row for row in writer.rows)


@pytest.mark.faults
class TestStopSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_the_first_signal_asks_for_a_clean_end(self, number, code):
        model, said = SimpleNamespace(stop_requested=False), []
        before = signal.getsignal(number)
        with StopSignals(model, said.append) as stop:
            assert stop.exit_code is None
            os.kill(os.getpid(), number)
            assert model.stop_requested
            assert stop.exit_code == code
        assert len(said) == 1
        assert signal.Signals(number).name in said[0]
        assert signal.getsignal(number) is before

    def test_handlers_are_put_back_after_an_error(self):
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(ZeroDivisionError), StopSignals(SimpleNamespace()):
            raise ZeroDivisionError
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_the_second_signal_ends_the_process_at_once(self, number, code):
        program = """
            import os, sys, types
            from rims_rl.signals import StopSignals
            try:
                with StopSignals(types.SimpleNamespace()):
                    for _ in range(2):
                        os.kill(os.getpid(), int(sys.argv[1]))
            finally:
                print("still here")
        """
        command = [sys.executable, "-I", "-c", "if True:" + program, str(int(number))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code
        assert done.stdout == ""
        assert [line for line in done.stderr.splitlines() if line] == [
            f"{number.name}: finishing this rollout and saving; once more to quit at once without saving",
            "stopped at once, without saving",
        ]

    def test_outside_the_main_thread_it_does_nothing(self):
        before = signal.getsignal(signal.SIGINT)
        failed: list[BaseException] = []

        def enter() -> None:
            try:
                with StopSignals(SimpleNamespace()):
                    pass
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert failed == []
        assert signal.getsignal(signal.SIGINT) is before
