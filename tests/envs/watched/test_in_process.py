"""In one process, too, an error says which copy it came from; errors of ours pass as they are."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from rims_rl.envs import make_atari_env, make_env
from rims_rl.envs.watched import TellingDummyVecEnv
from rims_rl.errors import ConfigError, EnvironmentFault
from tests.envs.watched.worlds import Odd, Told


def telling(*plans, seed: int | None = 10) -> TellingDummyVecEnv:
    env = TellingDummyVecEnv([partial(Told, plan) for plan in plans])
    if seed is not None:
        env.seed(seed)
    return env


@pytest.mark.faults
class TestTelling:
    def test_an_error_in_a_step_names_the_copy_its_seed_and_its_action(self):
        env = telling([], [("step 3", "raise")], [])
        env.reset()
        for action in ([0, 0, 0], [1, 1, 1]):
            env.step(np.array(action))
        with pytest.raises(EnvironmentFault) as caught:
            env.step(np.array([0, 2, 1]))
        expected = "environment 1 (seed 11, last action 2) raised ZeroDivisionError: integer division or modulo by zero"
        assert str(caught.value) == expected
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert "in <lambda>" in caught.value.traceback

    def test_an_error_in_a_reset_names_the_copy_and_the_newest_seed(self):
        env = telling([("reset 3", "raise")], seed=None)
        env.reset()
        env.seed(7)
        env.reset()
        env.step(np.array([1]))
        with pytest.raises(
            EnvironmentFault, match=r"^environment 0 \(seed 7, no action yet\) raised ZeroDivisionError"
        ):
            env.reset()

    def test_an_observation_that_does_not_fit_is_its_copy_s_error(self):
        env = TellingDummyVecEnv([partial(Odd, "none"), partial(Odd, "shape")])
        env.reset()
        env.step([0, 0]), env.step([0, 0])
        with pytest.raises(
            EnvironmentFault, match=r"^environment 1 \(no seed, last action 1\) raised ValueError: could not"
        ):
            env.step([0, 1])

    def test_an_error_of_ours_passes_with_a_note(self):
        env = telling([], [("step", "refuse")])
        env.reset()
        with pytest.raises(ConfigError, match=r"^no such action; actions are 0 to 2") as caught:
            env.step(np.array([0, 2]))
        assert caught.value.__notes__ == ["in environment 1 (seed 11, last action 2)"]

    def test_an_error_of_no_copy_passes_as_it_is(self):
        env = TellingDummyVecEnv([partial(Odd, "here")])
        env.reset()
        env.step([0]), env.step([0])
        with pytest.raises(TypeError, match="cannot pickle 'generator' object"):  # infos are copied
            env.step([0])

    def test_too_few_actions_are_the_error_of_the_first_copy_without_one(self):
        env = telling([], [])
        env.reset()
        with pytest.raises(EnvironmentFault, match=r"^environment 1 \(seed 11, no action yet\) raised IndexError"):
            env.step(np.array([1]))


class TestLikeDummyVecEnv:
    def test_without_errors_nothing_differs(self):
        env, plain = telling([], []), DummyVecEnv([Told, Told])
        plain.seed(10)
        np.testing.assert_array_equal(env.reset(), plain.reset())
        for action in np.random.default_rng(29).integers(3, size=(17, 2)):
            (seen, *rest), (plain_seen, *plain_rest) = env.step(action), plain.step(action)
            np.testing.assert_array_equal(seen, plain_seen)
            assert str(rest) == str(plain_rest)

    def test_our_doors_open_to_it(self):
        for env in (make_env("CartPole-v1", 1), make_atari_env("pong", 1, route="gym")):
            assert isinstance(env, TellingDummyVecEnv)

    def test_a_wrong_action_on_atari_is_our_own_error(self):
        env = make_atari_env("pong", 2, seed=5, route="gym")
        env.reset()
        with pytest.raises(ConfigError) as caught:
            env.step(np.array([0, 99]))
        assert caught.value.__notes__ == ["in environment 1 (seed 6, last action 99)"]
