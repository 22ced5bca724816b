"""`WatchedVecEnv` gives what `DummyVecEnv` gives, and refuses what would mix answers up."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pickle import PicklingError
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rims_rl.envs import make_atari_env
from rims_rl.envs.watched import WatchedVecEnv
from rims_rl.errors import ConfigError, RimsError
from tests.agents.small_worlds import MIXED, VECTOR, ShortEpisodes
from tests.envs.watched.worlds import Told

PAIR = spaces.Tuple((spaces.Box(-1, 1, (2, 3)), spaces.Discrete(7)))
VOLATILE = "t"
"""Seconds since the environment was made, in Monitor's statistics."""


def _same(one: Any, other: Any) -> None:
    """Assert that two nested results are equal, to the type of every array."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in set(one) - {VOLATILE}:
            _same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            _same(mine, theirs)
    else:
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


def _monitored(space: spaces.Space[Any]) -> Monitor:
    return Monitor(ShortEpisodes(space))


@pytest.fixture
def both(watch):
    """Two copies of `Told` in processes of their own, and two in this one, both with seed 10 to come."""
    env, plain = watch({}, {"render_mode": None}), DummyVecEnv([Told, Told])
    plain.seed(10)
    return env, plain


class TestLikeDummyVecEnv:
    @pytest.mark.parametrize("space", [VECTOR, MIXED, PAIR], ids=["vector", "dictionary", "tuple"])
    def test_every_result_is_the_same(self, space):
        makers = [partial(_monitored, space)] * 3
        env, plain = WatchedVecEnv(makers), DummyVecEnv(makers)
        actions = np.random.default_rng(17).integers(3, size=(211, 3))
        ended = truncated = 0
        try:
            for each in (env, plain):
                each.seed(5)
            _same(env.reset(), plain.reset())
            for action in actions:
                step, plain_step = env.step(action), plain.step(action)
                _same(step, plain_step)
                _same(env.reset_infos, plain.reset_infos)
                ended += step[2].sum()
                truncated += sum(info["TimeLimit.truncated"] for info in step[3])
        finally:
            env.close()
        assert ended > truncated > 10
        assert (env.observation_space, env.action_space) == (plain.observation_space, plain.action_space)

    def test_atari_is_the_same_on_the_open_route(self):
        here, there = (make_atari_env("pong", 2, 5, route="gym", subprocess=apart) for apart in (False, True))
        try:
            _same(there.reset(), here.reset())
            for action in np.random.default_rng(19).integers(6, size=(37, 2)):
                _same(there.step(action), here.step(action))
        finally:
            there.close()

    def test_seeds_and_options_are_for_one_reset(self, both):
        for env in both:
            env.set_options([{"level": 2}, {}])
            first, second = env.reset(), env.reset()
            assert first[:, 0].tolist() == second[:, 0].tolist() == [10, 11]
            assert (first[:, 1].tolist(), second[:, 1].tolist()) == ([0, 0], [1, 1])
            assert env.get_attr("options") == [[{"level": 2}, None], [None, None]]
        _same(both[0].reset(), both[1].reset())

    def test_attributes_and_methods_are_those_of_the_asked_copies(self, both):
        for env in both:
            env.set_attr("mood", "good", indices=1)
            assert env.get_attr("mood", [1]) == ["good"]
            assert env.has_attr("episode")
            assert not env.has_attr("mood")
            assert env.env_method("double", 7, indices=[1, 0, 1], plus=2) == [16, 16, 16]
            assert env.env_method("double") == [2, 2]

    def test_what_cannot_be_pickled_is_there_but_cannot_be_had(self, watch):
        env = watch({})
        assert env.has_attr("secret")
        with pytest.raises((PicklingError, AttributeError), match="pickle"):
            env.get_attr("secret")
        assert env.env_method("double") == [2]

    def test_wrappers_are_seen(self, watch):
        env = watch({"space": VECTOR}, {"space": VECTOR}, kind=_monitored)
        assert env.env_is_wrapped(Monitor) == [True, True]
        assert env.env_is_wrapped(Monitor, indices=1) == [True]
        assert watch({}).env_is_wrapped(Monitor) == [False]

    def test_images_and_what_is_said_of_them(self, watch):
        env, plain = (
            watch(*[{"render_mode": "rgb_array"}] * 2),
            DummyVecEnv([partial(Told, render_mode="rgb_array")] * 2),
        )
        for each in (env, plain):
            each.reset()
            each.step(np.zeros(2, int))
        _same(env.get_images(), plain.get_images())
        _same(env.render(), plain.render())
        assert env.metadata == plain.metadata
        blind = watch({})
        with pytest.warns(UserWarning, match="rgb_array"):
            assert blind.get_images() == [None]


class TestOneThingAtATime:
    def test_a_call_during_a_step_is_refused_and_the_step_goes_on(self, both):
        env, plain = both
        for each in both:
            each.reset()
            each.step_async(np.array([1, 2]))
        with pytest.raises(RimsError, match=r"^a step is under way; call step_wait\(\) first$"):
            env.get_attr("steps")
        _same(env.step_wait(), plain.step_wait())

    def test_a_reset_drops_the_step(self, both):
        for env in both:
            env.reset()
            env.step_async(np.array([1, 2]))
            assert env.reset()[:, :3].tolist() == [[10, 1, 0], [11, 1, 0]]
            assert env.step(np.array([1, 0]))[0][:, :3].tolist() == [[10, 1, 1], [11, 1, 1]]

    def test_an_interrupt_mixes_no_answers_up(self, both, monkeypatch):
        env, plain = both
        _same(env.reset(), plain.reset())
        env.step_async(np.array([1, 2]))
        with monkeypatch.context() as patch:
            patch.setattr("rims_rl.envs.watched.crew.gather", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                env.step_wait()
        _same(env.step_wait(), plain.step(np.array([1, 2])))

    def test_there_is_nothing_to_wait_for_without_a_step(self, watch):
        env = watch({})
        env.reset()
        with pytest.raises(RimsError, match=r"^step_wait\(\) needs a step_async\(\) before it$"):
            env.step_wait()

    def test_every_copy_needs_its_action(self, both):
        env, plain = both
        _same(env.reset(), plain.reset())
        with pytest.raises(ConfigError, match=r"^step needs one action for each of 2 environments, got 3$"):
            env.step(np.zeros(3, int))
        _same(env.step(np.array([0, 1])), plain.step(np.array([0, 1])))

    def test_closed_ones_say_so(self, watch):
        env = watch({})
        env.close()
        for call in (env.reset, partial(env.step, [0]), env.step_wait, partial(env.has_attr, "steps")):
            with pytest.raises(RimsError, match=r"^these environments have been closed; make new ones$"):
                call()

    def test_none_at_all_are_refused(self):
        with pytest.raises(ConfigError, match=r"^there must be at least one environment, got none$"):
            WatchedVecEnv([])

    def test_a_daemonic_process_can_have_none(self, monkeypatch):
        monkeypatch.setattr(type(multiprocessing.current_process()), "daemon", True)
        with pytest.raises(ConfigError, match="a daemonic process can have no processes of its own"):
            WatchedVecEnv([Told])
