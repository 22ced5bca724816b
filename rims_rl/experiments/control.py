"""Reinforcement learning as a trial: an update is one rollout of RIMPPO with its passes over it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rims_rl.agents.evaluation import run_episodes
from rims_rl.agents.training_state import capture, restore
from rims_rl.building import build_env, build_model
from rims_rl.config import Int, TrainConfig
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.trial import Findings, Trial
from rims_rl.experiments.variants import Variant, matched
from rims_rl.presets import load_preset

_EPISODE_STEPS = 27_000


@dataclass(frozen=True, kw_only=True)
class ControlConfig(ExperimentConfig):
    """Train RIMPPO agents by a training preset."""

    train_preset: str = "cartpole-novel"
    """Control: the training preset whose environment and settings are taken."""
    validation_episodes: Int = 10
    """Control: episodes per validation."""
    test_episodes: Int = 50
    """Control: episodes of the test."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work."""
        super().check()
        self.require_at_least(1, "validation_episodes", "test_episodes")
        load_preset(self.train_preset)


class ControlTrial(Trial):
    """A RIMPPO agent in the environment of a training preset; its figures are raw scores of whole episodes.

    The weights that are tested are those that scored best in the validation episodes, which are the same ones at every
    validation; the test plays others.
    """

    watched = "score"
    higher_is_better = True

    def __init__(self, config: ControlConfig, variant: Variant) -> None:
        """Make the agent and its environments, seeded from the global generator; schedules fall over all updates."""
        self.config = config
        self.settings = _settings(config, variant, seed=int(torch.randint(2**31 - 1, ())))
        self.env = build_env(self.settings)
        if variant.core != "rim":
            inputs = build_model(self.settings, self.env).policy.core.input_size
            self.settings = replace(self.settings, core_kwargs=matched(variant, inputs, config).settings)
        self.agent = build_model(self.settings, self.env)
        _, self.callback = self.agent._setup_learn(self.settings.total_timesteps)
        policy = self.agent.policy
        super().__init__({"policy": policy}, {"adam": policy.optimizer})

    def update(self, step: int) -> dict[str, float]:
        """Play one rollout and learn from it."""
        agent = self.agent
        agent.collect_rollouts(self.env, self.callback, agent.rollout_buffer, agent.n_steps)
        agent._update_current_progress_remaining(agent.num_timesteps, self.settings.total_timesteps)
        agent.train()
        episodes = [episode["r"] for episode in agent.ep_info_buffer or ()]
        return {"training_score": float(np.mean(episodes))} if episodes else {}

    def validate(self) -> dict[str, float]:
        """Return the mean score of the validation episodes."""
        scores = self._scores(self.config.validation_episodes)
        return {"score": float(scores.mean())}

    def test(self) -> Findings:
        """Return the mean score of the test episodes, and all of them."""
        scores = self._scores(self.config.test_episodes)
        return Findings({"score": float(scores.mean())}, {"scores": scores})

    def _scores(self, episodes: int) -> Tensor:
        """Return the scores of whole episodes; which ones depends on the global generator alone."""
        seed = int(torch.randint(2**31 - 1, ()))
        env = build_env(replace(self.settings, seed=seed))
        try:
            played = run_episodes(self.agent.policy, env, episodes, _EPISODE_STEPS, seed=seed)
        finally:
            env.close()
        return torch.tensor([episode.reward for episode in played])

    def memory(self) -> dict[str, Any]:
        """Return the agent's whole state, environments included."""
        if self.agent.num_timesteps == 0:
            return {}
        tensors, manifest = capture(self.agent)
        return {"tensors": tensors, "manifest": manifest}

    def recall(self, memory: dict[str, Any]) -> None:
        """Put the agent and its environments back."""
        if memory:
            restore(self.agent, memory["tensors"], memory["manifest"])


def _settings(config: ControlConfig, variant: Variant, seed: int) -> TrainConfig:
    """Return the training preset's settings with the variant's core."""
    base = load_preset(config.train_preset).apply()
    return replace(
        base, core=variant.core, core_kwargs=variant.settings, seed=seed, device=config.device,
        total_timesteps=config.updates * base.n_envs * base.n_steps,
    )  # fmt: skip
