"""The environments are compared with the same actions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from rims_rl.bench import env as room
from rims_rl.bench.config import EnvBenchConfig
from rims_rl.bench.env import NAMES, EnvTurn, measure_environments
from rims_rl.bench.measure import interleaved

IN_PROCESS = {route: name for route, name in NAMES.items() if route != "subproc"}


class TestTurn:
    def test_actions_are_the_same_for_every_route_and_all_of_the_game_s(self):
        turns = [EnvTurn(route, "pong", 3, 50) for route in NAMES]
        chosen = [turn.actions(6) for turn in turns]
        assert chosen[0].shape == (50, 3)
        assert set(chosen[0].flatten()) == set(range(6))
        assert all(np.array_equal(chosen[0], other) for other in chosen)

    @pytest.mark.parametrize("route", IN_PROCESS)
    def test_a_turn_takes_its_steps_in_every_copy(self, route, monkeypatch):
        turn, taken = EnvTurn(route, "pong", 3, 5), []
        env = turn.build()
        monkeypatch.setattr(env, "step_async", _noting(env.step_async, taken))
        turn.turn(env)()
        assert np.array_equal(np.stack(taken), turn.actions(6))
        env.close()

    def test_distractors_are_in_its_name_and_before_the_eyes_of_both_our_routes(self):
        for route in ("vector", "gym"):
            plain, distracted = EnvTurn(route, "pong", 1, 5), EnvTurn(route, "pong", 1, 5, distractor="balls:1")
            assert (plain.name, distracted.name) == (NAMES[route], f"{NAMES[route]} + balls:1")
            assert np.array_equal(plain.actions(6), distracted.actions(6))
            clean, seen = (_first_frames(turn) for turn in (plain, distracted))
            assert (clean != seen).any()


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "NAMES", IN_PROCESS)
        patch.setattr(room, "PEERS", ("dummy",))
        patch.setattr(room, "peak_memory", lambda turn: float(turn.n_envs))
        patch.setattr(room, "interleaved", partial(interleaved, grain=0.0))
        return measure_environments(EnvBenchConfig(repeats=1, n_envs=(1, 3), n_steps=10), lambda _: None)


class TestResult:
    def test_steps_are_counted_over_all_copies_and_whole_turns_alone(self, result):
        for row in result.rows:
            steps = {1: 10, 3: 9}[row.n_envs]
            assert row.steps_per_second == pytest.approx(steps / row.seconds[0])

    def test_a_ratio_is_how_many_times_as_fast_as_the_peer(self, result):
        speeds = {(row.n_envs, row.name): row.steps_per_second for row in result.rows}
        for row in result.rows:
            peer = speeds[row.n_envs, "SB3, DummyVecEnv"]
            assert row.ratios == {"SB3, DummyVecEnv": pytest.approx(row.steps_per_second / peer)}

    def test_every_route_has_a_row_at_every_number_of_copies(self, result):
        assert [(row.n_envs, row.name, row.mib) for row in result.rows] == [
            (count, name, float(count)) for count in (1, 3) for name in IN_PROCESS.values()
        ]

    def test_memory_of_many_workers_is_not_measured(self, monkeypatch):
        monkeypatch.setattr(room, "peak_memory", lambda turn: 7.0)
        config, say = EnvBenchConfig(), lambda _: None
        assert room._memory(EnvTurn("subproc", "pong", 17, 1), config, say) is None
        assert room._memory(EnvTurn("subproc", "pong", 16, 1), config, say) == 7.0
        assert room._memory(EnvTurn("dummy", "pong", 17, 1), config, say) == 7.0
        assert room._memory(EnvTurn("dummy", "pong", 17, 1), EnvBenchConfig(memory=False), say) is None


@pytest.fixture(scope="module")
def distracted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "sb3_env", lambda *_, **__: pytest.fail("SB3 has no distractors"))
        patch.setattr(room, "peak_memory", lambda turn: 7.0 if turn.distractor else 5.0)
        patch.setattr(room, "interleaved", partial(interleaved, grain=0.0))
        config = EnvBenchConfig(repeats=1, n_envs=(1,), n_steps=10, distractor="noise:0.5")
        return measure_environments(config, lambda _: None)


class TestDistractors:
    def test_our_routes_are_measured_with_and_without(self, distracted):
        names = [NAMES["vector"], f"{NAMES['vector']} + noise:0.5", NAMES["gym"], f"{NAMES['gym']} + noise:0.5"]
        assert [(row.name, row.mib) for row in distracted.rows] == [
            (name, 7.0 if "+" in name else 5.0) for name in names
        ]

    def test_ratios_are_to_our_routes_without(self, distracted):
        peers = [NAMES["vector"], NAMES["gym"]]
        assert distracted.peers == peers
        speeds = {row.name: row.steps_per_second for row in distracted.rows}
        for row in distracted.rows:
            expected = {peer: pytest.approx(row.steps_per_second / speeds[peer]) for peer in peers}
            assert row.ratios == expected


@pytest.mark.slow
def test_worker_processes_are_measured_too() -> None:
    result = measure_environments(EnvBenchConfig(repeats=1, n_envs=(2,), n_steps=20), lambda _: None)
    by_name = {row.name: row for row in result.rows}
    assert set(by_name) == set(NAMES.values())
    workers, one_process = by_name["SB3, SubprocVecEnv"].mib, by_name["SB3, DummyVecEnv"].mib
    assert workers is not None
    assert one_process is not None
    assert workers > 20 * one_process  # two interpreters with all imports against two emulators


def _first_frames(turn):
    env = turn.build()
    frames = env.reset()
    env.close()
    return frames


def _noting(method, taken):
    def noted(actions):
        taken.append(np.array(actions))
        method(actions)

    return noted
