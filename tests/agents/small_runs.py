"""What tests of RIMPPO share: the cores and action spaces they go through, and looks into a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from rims_rl.agents import RIMPPO
from tests.agents.small_worlds import CORES as SMALL_CORES
from tests.agents.small_worlds import N_ENVS, N_STEPS, SMALL_RIM
from tests.cores.every_core import LOOPS

ROLLOUT = N_ENVS * N_STEPS
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(5),
    "box": spaces.Box(-0.5, 0.25, (2,)),
    "box of rank 2": spaces.Box(-0.5, 0.25, (2, 3)),
    "multi-discrete": spaces.MultiDiscrete([2, 5, 3]),
    "multi-binary": spaces.MultiBinary(7),
}
CORES = {
    "rim-gru": ("rim", SMALL_RIM),
    "rim-lstm": ("rim", {**SMALL_RIM, "cell": "lstm"}),
    "rim-authors": ("rim", {**SMALL_RIM, "preset": "authors"}),
    **{name: (name, settings) for name, settings in SMALL_CORES.items() if name != "rim"},
}
every_core = pytest.mark.parametrize("core", CORES)
every_core_and_loop = pytest.mark.parametrize(
    ("core", "loop"), [(core, loop) for core in CORES for loop in (LOOPS if core.startswith("rim") else LOOPS[:1])]
)
every_loop = pytest.mark.parametrize("loop", LOOPS)


class AtRolloutEnd(BaseCallback):
    """Calls a function with the model after each rollout, before the update, and keeps what it returns."""

    def __init__(self, function: Callable[[RIMPPO], Any]) -> None:
        super().__init__()
        self.function = function
        self.found: list[Any] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.found.append(self.function(self.model))


def worst_ratio(model: RIMPPO) -> float:
    """Return how far from 1 the probability ratio is at the worst step of the rollout, as the update sees it."""
    model.policy.set_training_mode(True)
    worst = 0.0
    for batch in model.buffer.minibatches(model.batch_size):
        now = model.policy.evaluate_sequence(batch.observations, batch.actions, batch.states, batch.starts)
        worst = max(worst, (torch.exp(now.log_prob - batch.old_log_prob) - 1).abs().max().item())
    return worst


def weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def ratios_while_learning(model: RIMPPO, updates: int = 3) -> list[float]:
    """Return the worst ratio before each of some updates, which must really change the weights."""
    before, look = weights(model), AtRolloutEnd(worst_ratio)
    model.learn(updates * model.n_steps * model.n_envs, callback=look)
    assert not same_weights(before, weights(model))
    assert len(look.found) == updates
    return look.found
