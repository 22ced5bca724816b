"""Our ids in Gymnasium."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from rims_rl.envs import register_environments
from rims_rl.envs.registration import ATARI, CARTPOLE_NOVEL


class TestOurIds:
    @pytest.mark.parametrize(
        ("name", "kwargs"), [(CARTPOLE_NOVEL, {}), (ATARI, {"game": "breakout", "frame_stack": 2})]
    )
    def test_an_environments_spec_survives_json(self, name, kwargs):
        env = gym.make(name, **kwargs)
        again = gym.make(EnvSpec.from_json(env.spec.to_json()))
        assert again.spec.kwargs == env.spec.kwargs
        np.testing.assert_array_equal(again.reset(seed=5)[0], env.reset(seed=5)[0])
        assert again.observation_space == env.observation_space

    def test_registering_twice_changes_nothing(self):
        before = gym.registry[ATARI], gym.registry[CARTPOLE_NOVEL]
        register_environments()
        assert (gym.registry[ATARI], gym.registry[CARTPOLE_NOVEL]) == before
