"""Recurrent cores learn to hold one marked symbol through a stream of others; a core without a memory guesses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.cores.classifier import NOT_ASKED, Classifier, share_right, train

pytestmark = pytest.mark.slow

SYMBOLS, LENGTH = 5, 9
RECURRENT: dict[str, dict[str, Any]] = {
    "rim": {"num_units": 5, "active_units": 3, "unit_size": 13},
    "lstm": {"hidden_size": 32},
    "gru": {"hidden_size": 32},
}


def stream(batch: int, _: int = 0) -> tuple[Tensor, Tensor]:
    """Return symbols with a mark on the first one (T, B, SYMBOLS + 1), and at the last step the question for it."""
    symbols = torch.randint(SYMBOLS, (LENGTH, batch))
    mark = torch.zeros(LENGTH, batch, 1)
    mark[0] = 1.0
    targets = torch.full_like(symbols, NOT_ASKED)
    targets[-1] = symbols[0]
    return torch.cat([F.one_hot(symbols, SYMBOLS).float(), mark], dim=2), targets


def share_held(core: str, seed: int = 0, updates: int = 1000, **settings: Any) -> float:
    """Train a core to hold the marked symbol; return the share that it holds, 1 / SYMBOLS by chance."""
    torch.manual_seed(seed)
    learner = Classifier(core, SYMBOLS + 1, SYMBOLS, **settings)
    train(learner, stream, updates, batch=64, learning_rate=3e-3)
    return share_right(learner, *stream(2000))


class TestHoldingASymbol:
    @pytest.mark.parametrize("core", RECURRENT)
    def test_is_learned_with_a_memory(self, core: str) -> None:
        assert share_held(core, **RECURRENT[core]) > 0.99

    def test_is_chance_without(self) -> None:
        assert abs(share_held("feedforward", hidden_size=32) - 1 / SYMBOLS) < 0.05
