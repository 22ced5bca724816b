"""A task that only a memory can solve: CartPole without velocities, at most 500 steps an episode.

Position and angle alone do not tell where the pole is moving: a policy without memory holds it for some 50 steps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy

from rims_rl.building import build_env, build_model
from rims_rl.envs import make_env
from rims_rl.presets import load_preset

EPISODES = 20


def mean_length_after_training(core: str, **core_kwargs: int) -> float:
    """Train by the preset, with its core or another one, and return the mean length of evaluation episodes."""
    config = replace(load_preset("cartpole-novel").apply(), seed=0, device="cpu")
    if core != config.core:
        config = replace(config, core=core, core_kwargs=core_kwargs)
    model = build_model(config, build_env(config))
    model.learn(config.total_timesteps)
    lengths = evaluate_policy(
        model, make_env(config.env, n_envs=4, seed=1000, training=False), EPISODES, return_episode_rewards=True
    )[1]
    return float(np.mean(lengths))


@pytest.mark.slow
class TestCartPoleWithoutVelocities:
    def test_is_balanced_by_a_rim(self) -> None:
        assert mean_length_after_training("rim") >= 450

    def test_is_not_balanced_without_a_memory(self) -> None:
        assert mean_length_after_training("feedforward", hidden_size=128) < 150
