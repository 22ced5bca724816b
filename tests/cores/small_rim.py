"""A RIM small enough to look into: five units, three of them active, and what tests of it share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rims_rl.cores import RIM, RIMConfig
from tests.cores.every_core import INPUT_SIZE, LOOPS, SLOTS, SMALL_RIM

LENGTH, BATCH, UNITS, ACTIVE, SIZE = 11, 2, 5, 3, 17
TIGHT = {"rtol": 1e-12, "atol": 1e-12}
every_loop = pytest.mark.parametrize("loop", LOOPS)
both_cells = pytest.mark.parametrize("cell", ["gru", "lstm"])
both_presets = pytest.mark.parametrize("preset", ["paper", "authors"])
with_and_without_slots = pytest.mark.parametrize("slots", [None, SLOTS])


def build(preset: str | None = "paper", **settings: Any) -> RIM:
    """Return a small RIM, with GRU units unless the settings say otherwise: their whole state is h."""
    torch.manual_seed(0)
    return RIM(INPUT_SIZE, RIMConfig.from_settings(preset, **{**SMALL_RIM, "cell": "gru", **settings})).double()


def some_inputs(length: int = LENGTH, slots: int | None = None) -> Tensor:
    middle = () if slots is None else (slots,)
    return torch.randn(length, BATCH, *middle, INPUT_SIZE, dtype=torch.float64)


def some_state(core: RIM) -> Tensor:
    return torch.randn(BATCH, core.state_size, dtype=torch.float64).tanh()


def by_unit(tensor: Tensor) -> Tensor:
    """Return a tensor (..., K*S) as (..., K, S)."""
    return tensor.unflatten(-1, (UNITS, -1))
