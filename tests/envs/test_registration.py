"""Our ids in Gymnasium."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rims_rl.envs import register_environments
from rims_rl.envs.registration import (
    ATARI,
    ATARI_DISTRACTED,
    ATARI_VARIANT,
    CARTPOLE_NOVEL,
    CHANGED_TASKS,
    PICK_OBJECT,
)

OURS = sorted(name for name in gym.registry if name.startswith("rims_rl/"))


class TestOurIds:
    def test_all_are_known_here(self) -> None:
        assert {ATARI, CARTPOLE_NOVEL, ATARI_VARIANT, *ATARI_DISTRACTED.values(), *PICK_OBJECT} <= set(OURS)

    @pytest.mark.parametrize("name", OURS)
    def test_every_one_passes_gymnasiums_checker(self, name: str) -> None:
        render = {} if name == CARTPOLE_NOVEL else {"render_mode": "rgb_array"}  # its picture needs pygame
        check_env(gym.make(name, **render).unwrapped, skip_render_check=name == CARTPOLE_NOVEL)

    @pytest.mark.parametrize("tested", sorted({task for tasks in CHANGED_TASKS.values() for task in tasks}))
    def test_every_changed_task_exists(self, tested: str) -> None:
        assert tested in OURS

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
