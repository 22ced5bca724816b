"""An encoder in bfloat16: what stays exact, how far the rest may be off, and that agents learn with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy

from rims_rl.agents import RIMPPO, CnnRIMPolicy
from rims_rl.agents.policy_files import load_policy, save_policy
from rims_rl.errors import UnknownNameError
from tests.agents.small_runs import ratios_while_learning
from tests.agents.small_worlds import SMALL_IMAGE, SMALL_RIM, agent, worlds

BFLOAT16_STEP = 2.0**-8
"""Relative distance of neighbouring numbers: what one rounding may change."""


def policy(precision: str, **settings: Any) -> CnnRIMPolicy:
    """Return an image policy, the same but for its precision."""
    torch.manual_seed(3)
    kwargs = {"core": "rim", "core_kwargs": SMALL_RIM, "encoder_precision": precision, **settings}
    return CnnRIMPolicy(SMALL_IMAGE, spaces.Discrete(3), lambda _: 1e-3, **kwargs)


def frames(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (count, *SMALL_IMAGE.shape), np.uint8))


class TestBfloat16:
    @pytest.mark.parametrize("encoder", ["nature", "nature-slots"])
    def test_features_are_near_those_in_float32_and_come_in_float32(self, encoder: str) -> None:
        exact, rounded = (policy(name, encoder=encoder).encode(frames(11)) for name in ("float32", "bfloat16"))
        assert rounded.dtype == torch.float32
        difference = (exact - rounded).abs().max()
        assert 0 < difference < 4 * BFLOAT16_STEP * exact.abs().max()  # some layers deep, each rounds once

    def test_gradients_are_near_those_in_float32(self) -> None:
        exact, rounded = (policy(name) for name in ("float32", "bfloat16"))
        for each in (exact, rounded):
            each.encode(frames(11)).square().sum().backward()  # type: ignore[no-untyped-call]
        for one, other in zip(exact.encoder.parameters(), rounded.encoder.parameters(), strict=True):
            assert one.grad is not None
            assert other.grad is not None
            assert other.grad.dtype == torch.float32
            assert (one.grad - other.grad).norm() < 8 * BFLOAT16_STEP * one.grad.norm()

    def test_the_memory_and_the_heads_stay_in_float32(self) -> None:
        made = policy("bfloat16")
        starts = torch.zeros(11, dtype=torch.bool)
        distribution, values, state = made.step(frames(11), made.initial_state(11), starts)
        assert {values.dtype, state.dtype, distribution.log_prob(distribution.mode()).dtype} == {torch.float32}

    def test_the_ratio_is_one_but_for_its_rounding(self) -> None:
        settings = {"policy_kwargs": {"encoder_precision": "bfloat16"}, "n_epochs": 1}
        model = agent(worlds(space=SMALL_IMAGE), policy="CnnRIMPolicy", **settings)
        assert max(ratios_while_learning(model)) < 4 * BFLOAT16_STEP

    def test_it_is_kept_with_the_policy(self, tmp_path: Path) -> None:
        save_policy(policy("bfloat16"), tmp_path / "one")
        assert load_policy(tmp_path / "one").encoder_precision == "bfloat16"
        agent(worlds(space=SMALL_IMAGE), policy="CnnRIMPolicy", policy_kwargs={"encoder_precision": "bfloat16"}).save(
            tmp_path / "two"
        )
        assert RIMPPO.load(tmp_path / "two").policy.encoder_precision == "bfloat16"

    def test_another_precision_is_refused_by_name(self) -> None:
        with pytest.raises(UnknownNameError, match=r"'bfloat'.*bfloat16"):
            policy("bfloat")


class Signpost(gym.Env[np.ndarray, int]):
    """Shows for one step whether a bright square lies left or right; pays 1 for going there two dark steps later."""

    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = spaces.Discrete(2)
    LENGTH = 3

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.side, self.time = int(self.np_random.integers(2)), 0
        screen = np.zeros((1, 36, 36), np.uint8)
        row, column = self.np_random.integers(0, 28), 18 * self.side + self.np_random.integers(0, 10)
        screen[0, row : row + 8, column : column + 8] = 255
        return screen, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        is_over = self.time == self.LENGTH
        return np.zeros((1, 36, 36), np.uint8), float(is_over and action == self.side), is_over, False, {}


@pytest.mark.slow
class TestLearningFromImages:
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("core", ["rim", "feedforward"])
    def test_what_was_seen_is_remembered_with_a_memory_alone(self, core: str, precision: str) -> None:
        core_kwargs = {"num_units": 4, "active_units": 2, "unit_size": 16, "cell": "lstm"} if core == "rim" else {}
        model = agent(
            worlds(8, Signpost), "CnnRIMPolicy", core, core_kwargs=core_kwargs, n_steps=30, batch_size=120, n_epochs=4,
            learning_rate=1e-3, gamma=0.9,
            policy_kwargs={"encoder_precision": precision, "encoder_kwargs": {"features_dim": 64}},
        )  # fmt: skip
        model.learn(20_000)
        reward, _ = evaluate_policy(model, worlds(4, Signpost), n_eval_episodes=200)
        assert (reward > 0.95) if core == "rim" else (0.35 < reward < 0.65)
