"""Games played in processes of ours against the plain vector route, and what becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rims_rl.envs import game_names, make_atari_env, raw_emulators, raw_game
from rims_rl.envs.protocols import AtariSettings
from rims_rl.envs.raw_emulators import RawEmulators, RawGames
from rims_rl.envs.screen import FOREIGN_GREYS
from rims_rl.envs.vector_route import AtariVecEnv
from rims_rl.errors import ConfigError, EnvironmentFault, RimsError

GREYS_THAT_DIFFER = {"air_raid": 143, "laser_gates": 1}
"""Games whose grey in ALE is not that of its RGB, and by how many levels a pixel of an observation may differ.

Air Raid's rom is for PAL, of which ALE's grey levels belong to other colours; in Laser Gates one colour is a level off.
"""


def _rollout(game, length, *, processes, copies=2, **settings):
    """Return the first observations, all steps, and a reset's, on the plain route or from raw frames as they are.

    processes: that play the raw frames; None: the plain route.
    """
    env = AtariVecEnv(AtariSettings(game, **{"max_frames": 150, **settings}), copies)
    if processes:
        env._emulators.close()
        env._emulators = RawEmulators(env.settings, copies, (), processes)
    actions = np.random.default_rng(11).integers(env.action_space.n, size=(length, copies))
    env.seed(5)
    steps = [_reset(env), *map(env.step, actions), _reset(env)]
    env.close()
    return steps


def _reset(env):
    """Return a reset in the form of a step."""
    return env.reset(), np.zeros(env.num_envs), np.zeros(env.num_envs, bool), [dict(info) for info in env.reset_infos]


def _assert_same_infos(infos, other_infos):
    for info, other in zip(infos, other_infos, strict=True):
        assert info.keys() == other.keys()
        np.testing.assert_array_equal(info.get("terminal_observation"), other.get("terminal_observation"))
        for name in info.keys() - {"terminal_observation"}:
            without_time = [{**value, "t": 0} if name == "episode" else value for value in (info[name], other[name])]
            assert without_time[0] == without_time[1]


def _assert_same_game(one, other):
    for (_, rewards, dones, infos), (_, other_rewards, other_dones, other_infos) in zip(one, other, strict=True):
        np.testing.assert_array_equal(rewards, other_rewards)
        np.testing.assert_array_equal(dones, other_dones)
        assert [info["lives"] for info in infos] == [info["lives"] for info in other_infos]


def _greatest_difference(one, other):
    return max(int(np.abs(a[0].astype(int) - b[0].astype(int)).max()) for a, b in zip(one, other, strict=True))


class TestEveryGame:
    @pytest.mark.slow
    @pytest.mark.parametrize("game", game_names())
    def test_is_seen_and_goes_on_as_on_the_plain_route(self, game, monkeypatch):
        plain = _rollout(game, 61, processes=None)
        assert any(dones.any() for _, _, dones, _ in plain)
        for is_grey in (True, False):
            monkeypatch.setattr(raw_game, "alter_grey", lambda game, distractors, is_grey=is_grey: is_grey)
            raw = _rollout(game, 61, processes=1)
            _assert_same_game(plain, raw)
            assert _greatest_difference(plain, raw) <= GREYS_THAT_DIFFER.get(game, 0)

    def test_whose_greys_are_not_those_of_its_colours_is_known(self):
        assert {game for game, levels in GREYS_THAT_DIFFER.items() if levels > 1} == FOREIGN_GREYS

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_of_those_shows_its_own_grey_under_distractors_or_refuses_them(self, route):
        settings = {"n_envs": 1, "seed": 5, "route": route}
        clean = make_atari_env("air_raid", **settings).reset()
        np.testing.assert_array_equal(make_atari_env("air_raid", distractor="colour:1e-9", **settings).reset(), clean)
        with pytest.raises(ConfigError, match=r"air_raid: ALE's greys do not belong to its colours"):
            make_atari_env("air_raid", distractor="balls+noise", **settings)


class TestPlayedByOneOrSeveralProcesses:
    @pytest.mark.parametrize(
        ("game", "length", "settings"),
        [
            ("breakout", 131, {"max_frames": 108_000}),
            ("breakout", 71, {"protocol": "machado", "frame_stack": 2, "max_frames": 130}),
            ("space_invaders", 47, {"max_frames": 90}),
            ("pong", 23, {"max_frames": 3}),
            ("seaquest", 61, {"protocol": "machado", "noop_max": 7}),
        ],
    )
    def test_it_is_the_plain_route_frame_for_frame(self, game, length, settings):
        plain = _rollout(game, length, processes=None, copies=5, **settings)
        assert any(dones.any() for _, _, dones, _ in plain)
        for processes in (1, 2, 3):
            ours = _rollout(game, length, processes=processes, copies=5, **settings)
            _assert_same_game(plain, ours)
            assert _greatest_difference(plain, ours) == 0
            for step, other in zip(plain, ours, strict=True):
                _assert_same_infos(step[3], other[3])

    def test_every_copy_plays_however_unevenly_they_are_shared_out(self):
        for copies, processes in ((1, 4), (5, 4), (7, 3)):
            emulators = RawEmulators(AtariSettings("pong"), copies, (), processes)
            observations, info = emulators.reset(seed=np.arange(copies))
            emulators.close()
            assert (observations[:, -1].max(axis=(1, 2)) > 0).all()
            assert info["lives"].shape == (copies,)

    def test_what_is_done_to_returned_arrays_changes_no_later_one(self):
        seen = []
        for spoils in (False, True):
            env = make_atari_env("pong", 2, 5, distractor="balls")
            observations = [env.reset(), *(env.step(np.array([2, 3]))[0] for _ in range(3))]
            if spoils:
                observations[-1][:] = 0
            seen.append(env.step(np.array([2, 3]))[0])
            env.close()
        np.testing.assert_array_equal(seen[0], seen[1])

    def test_a_reset_drops_a_step_that_is_under_way_which_was_played_all_the_same(self):
        seen = []
        for processes in (1, 2, 3):
            emulators = RawEmulators(AtariSettings("breakout", protocol="machado"), 4, (), processes)
            emulators.reset(seed=np.arange(4))
            emulators.send(np.full(4, 2))
            emulators.reset(seed=None)  # goes on with the streams of random numbers, which the step has drawn from
            for action in range(9):
                emulators.send(np.full(4, action))
                seen.append(emulators.recv()[0])
            emulators.close()
        np.testing.assert_array_equal(seen[:9], seen[9:18])
        np.testing.assert_array_equal(seen[:9], seen[18:])

    def test_a_step_needs_a_reset_before_it_and_the_last_one_s_end(self):
        emulators = RawEmulators(AtariSettings("pong"), 2, (), 1)
        with pytest.raises(RimsError, match="needs a reset before it: there was none yet"):
            emulators.send(np.zeros(2, int))
        emulators.reset(seed=None)
        with pytest.raises(RimsError, match=r"step_wait\(\) needs a step_async\(\)"):
            emulators.recv()
        emulators.send(np.zeros(2, int))
        with pytest.raises(RimsError, match=r"a step is under way; call step_wait\(\) first"):
            emulators.send(np.zeros(2, int))
        emulators.close()

    def test_without_seeds_games_differ(self):
        emulators = RawEmulators(AtariSettings("breakout"), 4, (), 2)
        starts = [emulators.reset(seed=None)[0][:, -1] for _ in range(4)]
        emulators.close()
        assert len({start.tobytes() for start in np.concatenate(starts)}) > 4

    @pytest.mark.parametrize(("daemon", "threads", "others"), [(True, 3, 0), (False, 3, 2), (False, 1, 0)])
    def test_a_worker_takes_as_many_as_its_threads_or_none(self, daemon, threads, others, monkeypatch):
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", daemon)
        emulators = RawEmulators(AtariSettings("pong"), 5, ())
        monkeypatch.undo()
        assert len(emulators.processes) == others
        emulators.close()


def _play(count=1):
    emulators = RawEmulators(AtariSettings("pong"), 5, (), 3)
    emulators.reset(seed=np.arange(5))
    for _ in range(count):
        emulators.send(np.full(5, 2))
        emulators.recv()
    return emulators


def _played(count):
    """Return the last observations of a few steps, and how many processes shared in them."""
    emulators = _play(count - 1)
    emulators.send(np.full(5, 2))
    seen = emulators.recv()[0], len(emulators.processes)
    emulators.close()
    return seen


def _interrupt(actions):
    raise KeyboardInterrupt


def _run_out(actions):
    raise MemoryError


class _Failing(RawGames):
    """Builds copies in the process that the others were started from alone."""

    def __init__(self, error):
        super().__init__()
        self._error = error

    def build(self, *args):
        super().build(*args)
        if multiprocessing.parent_process() is not None:
            raise self._error("no such clip")


@pytest.mark.faults
class TestAProcess:
    def test_that_dies_is_named_and_all_are_ended(self):
        emulators = _play()
        processes = emulators.processes
        os.kill(processes[1].pid, signal.SIGKILL)
        emulators.send(np.full(5, 2))
        message = r"^the process of environments 3 to 4 \(pong\) died with exit code -9 \(SIGKILL\)$"
        with pytest.raises(EnvironmentFault, match=message):
            emulators.recv()
        assert not any(process.is_alive() for process in processes)
        with pytest.raises(RimsError, match="have been closed; make new ones"):
            emulators.send(np.full(5, 2))

    @pytest.mark.parametrize(("error", "kind"), [(ConfigError, ConfigError), (OSError, EnvironmentFault)])
    def test_that_cannot_build_its_copies_says_why_and_all_are_ended(self, error, kind, monkeypatch):
        monkeypatch.setattr(raw_emulators, "RawGames", partial(_Failing, error))
        before = multiprocessing.active_children()
        with pytest.raises(kind, match="no such clip"):
            RawEmulators(AtariSettings("pong"), 5, (), 3)
        assert multiprocessing.active_children() == before

    def test_that_is_interrupted_in_a_step_needs_a_reset_and_then_plays_on(self, monkeypatch):
        emulators, wanted = _play(), _play(2)
        monkeypatch.setattr(emulators._games, "step", _interrupt)
        emulators.send(np.full(5, 2))
        with pytest.raises(KeyboardInterrupt):
            emulators.recv()
        monkeypatch.undo()
        with pytest.raises(RimsError, match="the last step was interrupted"):
            emulators.send(np.full(5, 2))
        for each in (emulators, wanted):
            each.reset(seed=np.arange(5))
            each.send(np.full(5, 3))
        np.testing.assert_array_equal(emulators.recv()[0], wanted.recv()[0])
        emulators.close(), wanted.close()

    def test_whose_own_copies_raise_ends_the_others(self, monkeypatch):
        emulators = _play()
        processes = emulators.processes
        monkeypatch.setattr(emulators._games, "step", _run_out)
        emulators.send(np.full(5, 2))
        with pytest.raises(MemoryError):
            emulators.recv()
        assert not any(process.is_alive() for process in processes)

    def test_that_was_forked_from_this_one_plays_as_well(self):
        wanted = _play()
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            observations, others = pool.submit(_played, 2).result()
        wanted.send(np.full(5, 2))
        np.testing.assert_array_equal(observations, wanted.recv()[0])
        wanted.close()
        assert others == 2

    def test_ends_with_its_environments(self):
        emulators = _play()
        processes = emulators.processes
        emulators.close()
        assert len(processes) == 2
        assert not any(process.is_alive() for process in processes)
        emulators.close()

    def test_is_started_by_a_script_without_a_guard_too(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "from rims_rl.envs import make_atari_env\n"
            "print('begins')\n"
            "env = make_atari_env('pong', 3, 5, distractor='balls')\n"
            "print(env.reset().shape, len(env._emulators.processes) > 0)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
        assert (done.stdout, done.stderr) == (f"begins\n(3, 4, 84, 84) {len(os.sched_getaffinity(0)) > 1}\n", "")
