"""A task that only a memory can solve: CartPole without velocities, at most 500 steps an episode.

Position and angle alone do not tell where the pole is moving: a policy without memory holds it for some 50 steps. How
far a RIM gets in the preset's 300,000 steps depends on rounding as much as on the seed (docs/results/memory.md), so
what is asked is the best mean of 100 episodes in a row, and that it is three times what goes without memory.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

from rims_rl.building import build_env, build_model
from rims_rl.presets import load_preset

EPISODES = 100


class BestMean(BaseCallback):
    """Keeps the best mean length of so many episodes in a row."""

    best = 0.0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        lengths = [episode["l"] for episode in self.model.ep_info_buffer or ()]
        if len(lengths) == EPISODES:
            self.best = max(self.best, float(np.mean(lengths)))


def best_mean_length_in_training(core: str, **core_kwargs: int) -> float:
    """Train by the preset, with its core or another one, and return the best mean length of episodes in a row."""
    config = replace(load_preset("cartpole-novel").apply(), seed=0, device="cpu")
    if core != config.core:
        config = replace(config, core=core, core_kwargs=core_kwargs)
    model, look = build_model(config, build_env(config)), BestMean()
    model.learn(config.total_timesteps, look)
    return look.best


@pytest.mark.slow
class TestCartPoleWithoutVelocities:
    def test_is_balanced_far_longer_by_a_rim(self) -> None:
        assert best_mean_length_in_training("rim") >= 150

    def test_is_not_without_a_memory(self) -> None:
        assert best_mean_length_in_training("feedforward", hidden_size=128) < 80
