"""RIMPPO keeps the memory in the loop: ratios of 1, gradients to every unit, and answers that depend on the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.testing import assert_close

from rims_rl.agents import RIMPPO
from tests.agents.small_runs import (
    ACTIONS,
    CORES,
    ROLLOUT,
    AtRolloutEnd,
    every_core_and_loop,
    every_loop,
    ratios_while_learning,
    worst_ratio,
)
from tests.agents.small_worlds import MIXED, N_STEPS, SMALL_IMAGE, SMALL_RIM, agent, worlds


class TestRatioIsOneBeforeTheFirstGradientStep:
    @every_core_and_loop
    @pytest.mark.parametrize("bptt_length", [N_STEPS, 5])
    def test_across_episode_ends_and_chunk_borders(
        self, core: str, loop: str, bptt_length: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RIMS_RL_LOOP", loop)
        name, core_kwargs = CORES[core]
        model = agent(core=name, core_kwargs=core_kwargs, bptt_length=bptt_length)
        assert max(ratios_while_learning(model)) < 1e-5
        opens_chunk = torch.arange(N_STEPS) % bptt_length == 0
        assert model.buffer.starts[~opens_chunk].any()

    @every_loop
    @pytest.mark.parametrize("reset", [False, True], ids=["memory outlives lives", "memory ends with lives"])
    def test_across_lost_lives(self, loop: str, reset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RIMS_RL_LOOP", loop)
        model = agent(worlds(lives=3), bptt_length=5, reset_memory_on_life_loss=reset)
        assert max(ratios_while_learning(model)) < 1e-5
        went_on = model.buffer.ends[:-1] & ~model.buffer.starts[1:]
        assert went_on.any() == (not reset)

    @pytest.mark.parametrize("actions", ACTIONS)
    def test_for_every_action_space(self, actions: str) -> None:
        model = agent(worlds(actions=ACTIONS[actions]), bptt_length=5)
        assert max(ratios_while_learning(model)) < 1e-5

    @pytest.mark.parametrize("encoder", ["nature", "nature-slots"])
    def test_for_images(self, encoder: str) -> None:
        model = agent(worlds(space=SMALL_IMAGE), "CnnRIMPolicy", policy_kwargs={"encoder": encoder}, bptt_length=10)
        assert max(ratios_while_learning(model, updates=2)) < 1e-5

    def test_for_dictionaries(self) -> None:
        model = agent(worlds(space=MIXED), "MultiInputRIMPolicy", bptt_length=10)
        assert max(ratios_while_learning(model, updates=2)) < 1e-5

    @pytest.mark.parametrize("squash", [False, True])
    def test_for_state_dependent_exploration(self, squash: bool) -> None:
        env = worlds(actions=spaces.Box(-1, 2, (2,)))
        model = agent(env, use_sde=True, sde_sample_freq=4, policy_kwargs={"squash_output": squash})
        assert max(ratios_while_learning(model)) < 1e-5

    @pytest.mark.parametrize("wrong", ["states", "starts"])
    def test_and_the_measure_sees_a_wrong_memory(self, wrong: str) -> None:
        model = agent(bptt_length=5)
        spoil = AtRolloutEnd(lambda model: (getattr(model.buffer, wrong).zero_(), worst_ratio(model))[1])
        model.learn(ROLLOUT, callback=spoil)
        assert spoil.found[0] > 1e-4

    def test_also_when_a_callback_asks_the_policy_in_mid_rollout(self) -> None:
        class Asking(AtRolloutEnd):
            def _on_step(self) -> bool:
                self.model.predict(np.ones(3, np.float32))
                return True

        look = Asking(worst_ratio)
        agent().learn(ROLLOUT, callback=look)
        assert look.found[0] < 1e-5


def rollout_batch(model: RIMPPO) -> Any:
    """Return one minibatch of a real rollout, before any update."""
    look = AtRolloutEnd(lambda model: next(model.buffer.minibatches(model.batch_size)))
    model.n_epochs = 0
    model.learn(ROLLOUT, callback=look)
    return look.found[0]


def gradients_of(model: RIMPPO, batch: Any) -> dict[str, Tensor]:
    """Return the core's gradients through the PPO loss, zeros where there is none."""
    model.policy.zero_grad(set_to_none=True)
    model.loss(batch)[0].backward()
    named = model.policy.core.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named}


class TestGradientThroughTheLoss:
    @every_loop
    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    @pytest.mark.parametrize("through", ["both", "surrogate", "value", "entropy"])
    def test_reaches_every_parameter_of_the_rim_in_every_unit(
        self, through: str, cell: str, loop: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RIMS_RL_LOOP", loop)
        model = agent(batch_size=ROLLOUT, normalize_advantage=False, core_kwargs={**SMALL_RIM, "cell": cell})
        batch = rollout_batch(model)
        model.vf_coef = 0.5 if through in ("both", "value") else 0.0
        model.ent_coef = 1.0 if through == "entropy" else 0.0
        if through in ("value", "entropy"):
            batch = batch._replace(advantages=torch.zeros_like(batch.advantages))
        for name, gradient in gradients_of(model, batch).items():
            by_unit = gradient.flatten(1) if gradient.dim() == 3 else gradient.flatten().unsqueeze(0)
            assert (by_unit.abs().amax(dim=1) > 0).all(), name
        gates = model.policy.core.gate_size
        queries = gradients_of(model, batch)["from_state"][:, :, gates:]
        assert (queries.abs().amax(dim=(1, 2)) > 0).all()

    def test_is_zero_when_nothing_is_to_be_learned(self) -> None:
        model = agent(batch_size=ROLLOUT, normalize_advantage=False, vf_coef=0.0, ent_coef=0.0)
        batch = rollout_batch(model)
        batch = batch._replace(advantages=torch.zeros_like(batch.advantages))
        assert not any(gradient.any() for gradient in gradients_of(model, batch).values())

    def test_reaches_the_encoder_and_both_heads(self) -> None:
        model = agent(worlds(space=SMALL_IMAGE), "CnnRIMPolicy", batch_size=ROLLOUT)
        gradients_of(model, rollout_batch(model))
        for name, parameter in model.policy.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


class TestMemoryIsInTheLoop:
    def test_other_rim_weights_give_other_logits_and_values(self) -> None:
        policy = agent().policy
        obs, state, starts = torch.randn(5, 3), torch.randn(5, policy.core.state_size), torch.zeros(5, dtype=torch.bool)
        one, value, _ = policy.step(obs, state, starts)
        for parameter in policy.core.parameters():
            before = parameter.detach().clone()
            nn.init.normal_(parameter)
            other, other_value, _ = policy.step(obs, state, starts)
            assert not torch.equal(one.distribution.logits, other.distribution.logits)
            assert not torch.equal(value, other_value)
            parameter.data.copy_(before)
        assert_close(policy.step(obs, state, starts)[1], value, rtol=0, atol=0)

    def test_other_rim_weights_give_other_actions(self) -> None:
        model = agent()
        observations = np.random.default_rng(0).normal(size=(101, 3)).astype(np.float32)
        before = model.predict(observations, deterministic=True)[0]
        for parameter in model.policy.core.parameters():
            nn.init.normal_(parameter)
        assert (model.predict(observations, deterministic=True)[0] != before).any()

    def test_another_state_gives_other_logits_and_values(self) -> None:
        policy = agent().policy
        obs, state, starts = torch.randn(5, 3), torch.randn(5, policy.core.state_size), torch.zeros(5, dtype=torch.bool)
        one, value, _ = policy.step(obs, state, starts)
        other, other_value, _ = policy.step(obs, torch.zeros_like(state), starts)
        assert ((one.distribution.logits - other.distribution.logits).abs().amax(dim=1) > 1e-5).all()
        assert ((value - other_value).abs() > 1e-5).all()
        forgetting = policy.step(obs, state, ~starts)[1]
        assert_close(forgetting, other_value)
