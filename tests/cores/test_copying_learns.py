"""A memory with addresses learns to copy, and so copies sequences longer than it was trained on; an LSTM does not.

The copy task (Graves et al. 2014, section 4.1): random bits come in, then an end mark, then the same bits must go out.
Copying for longer than in training takes a rule for where to write and read next.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.cores import make_core

pytestmark = pytest.mark.slow

BITS, LONGEST, LONGER = 4, 6, 10
"""Width of a row of bits, the greatest number of rows in training, and the number of rows in the test."""
MEMORY = {"memory_rows": 16, "memory_width": 8, "output_size": BITS}


class Copier(nn.Module):
    """A core with one logit per bit."""

    def __init__(self, core: str, **settings: Any) -> None:
        super().__init__()
        self.core = make_core(core, BITS + 1, **settings)
        self.readout = nn.Linear(self.core.output_size, BITS) if self.core.output_size != BITS else nn.Identity()

    def forward(self, bits: Tensor) -> Tensor:
        """Return the logits (L, B, W) of what goes out after the bits (L, B, W) and the mark have come in."""
        length, batch, _ = bits.shape
        inputs = torch.zeros(2 * length + 1, batch, BITS + 1)
        inputs[:length, :, :BITS] = bits
        inputs[length, :, BITS] = 1.0
        outputs, _ = self.core(inputs, self.core.initial_state(batch))
        logits: Tensor = self.readout(outputs[length + 1 :])
        return logits


def random_bits(length: int, batch: int) -> Tensor:
    return torch.randint(0, 2, (length, batch, BITS)).float()


def trained(core: str, seed: int, steps: int, learning_rate: float, **settings: Any) -> Copier:
    """Return a core that was trained to copy 1 to LONGEST rows; the same seed gives the same core."""
    torch.manual_seed(seed)
    copier = Copier(core, **settings)
    optimizer = torch.optim.Adam(copier.parameters(), lr=learning_rate)
    for _ in range(steps):
        bits = random_bits(int(torch.randint(1, LONGEST + 1, ())), batch=16)
        loss = F.binary_cross_entropy_with_logits(copier(bits), bits)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(copier.parameters(), 10.0)
        optimizer.step()
    return copier


def wrong_bits(copier: Copier, length: int) -> float:
    """Return which fraction of the bits of 200 fresh sequences comes out wrong; 0.5 is chance."""
    bits = random_bits(length, batch=200)
    with torch.no_grad():
        return float(((copier(bits) > 0) != (bits > 0.5)).float().mean())


class TestCopiesLongerSequencesThanItWasTrainedOn:
    def test_ntm_whose_controller_can_remember_nothing(self) -> None:
        copier = trained(
            "ntm", seed=1, steps=1600, learning_rate=0.006, **MEMORY, controller="feedforward", hidden_size=64
        )
        assert wrong_bits(copier, LONGEST) < 0.01
        assert wrong_bits(copier, LONGER) < 0.05

    def test_dnc(self) -> None:
        copier = trained("dnc", seed=1, steps=800, learning_rate=0.01, **MEMORY, hidden_size=16, read_heads=1)
        assert wrong_bits(copier, LONGEST) < 0.01
        assert wrong_bits(copier, LONGER) < 0.05

    def test_an_lstm_does_not_though_it_has_more_weights_and_learns_the_trained_lengths(self) -> None:
        copier = trained("lstm", seed=1, steps=3000, learning_rate=0.003, hidden_size=128)
        assert wrong_bits(copier, LONGEST) < 0.15
        assert wrong_bits(copier, LONGER) > 0.3
