"""A transformer learns to recall what its window holds, to the last step of it, and nothing one step older."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rims_rl.cores.transformer import Transformer
from tests.cores.classifier import NOT_ASKED, Classifier, share_right, train

pytestmark = pytest.mark.slow

SYMBOLS, LENGTH, LAYERS, WINDOW = 5, 32, 2, 4
FIELD = LAYERS * WINDOW


def recall(batch: int, lag: int) -> tuple[Tensor, Tensor]:
    """Return random symbols (T, B, SYMBOLS), and at every step the one that came `lag` steps earlier."""
    symbols = torch.randint(SYMBOLS, (LENGTH, batch))
    targets = torch.full_like(symbols, NOT_ASKED)
    targets[lag:] = symbols[:-lag]
    return F.one_hot(symbols, SYMBOLS).float(), targets


def share_recalled(lag: int, seed: int = 0) -> float:
    """Train a transformer to recall at a lag; return the share that it recalls rightly, 1 / SYMBOLS by chance."""
    torch.manual_seed(seed)
    learner = Classifier("transformer", SYMBOLS, SYMBOLS, model_size=32, heads=2, num_layers=LAYERS, window=WINDOW)
    assert isinstance(learner.core, Transformer)
    assert learner.core.receptive_field == FIELD
    train(learner, lambda batch, _: recall(batch, lag), updates=200, batch=32, learning_rate=3e-3)
    return share_right(learner, *recall(500, lag))


class TestRecall:
    @pytest.mark.parametrize("lag", [1, WINDOW, FIELD])
    def test_succeeds_up_to_the_last_step_of_the_window(self, lag: int) -> None:
        assert share_recalled(lag) > 0.99

    def test_fails_one_step_beyond_as_it_must(self) -> None:
        assert abs(share_recalled(FIELD + 1) - 1 / SYMBOLS) < 0.02
