"""Grouped cells against torch's own, one group at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from rims_rl.cores.grouped import gru_update, lstm_update, scaled_parameter, uniform_parameter

GROUPS, BATCH, INPUT_SIZE, SIZE = 3, 5, 7, 11
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestGRUUpdate:
    def test_equals_torchs_cell_in_every_group(self) -> None:
        cells = [nn.GRUCell(INPUT_SIZE, SIZE).double() for _ in range(GROUPS)]
        x, h = numbers(GROUPS, BATCH, INPUT_SIZE), numbers(GROUPS, BATCH, SIZE)
        recurrent_of_r_and_z = torch.tensor([1.0] * 2 * SIZE + [0.0] * SIZE, dtype=torch.float64)
        input_gates = torch.stack(
            [x[k] @ c.weight_ih.t() + c.bias_ih + c.bias_hh * recurrent_of_r_and_z for k, c in enumerate(cells)]
        )
        hidden_gates = torch.stack([h[k] @ c.weight_hh.t() for k, c in enumerate(cells)])
        bias_hn = torch.stack([c.bias_hh[2 * SIZE :].unsqueeze(0) for c in cells])
        found = gru_update(input_gates, hidden_gates, bias_hn, h)
        assert_close(found, torch.stack([c(x[k], h[k]) for k, c in enumerate(cells)]), **TIGHT)

    def test_an_open_update_gate_keeps_the_state(self) -> None:
        h, gates = numbers(GROUPS, BATCH, SIZE), torch.zeros(GROUPS, BATCH, 3 * SIZE, dtype=torch.float64)
        gates[..., SIZE : 2 * SIZE] = 1e3
        assert_close(gru_update(gates, torch.zeros_like(gates), numbers(GROUPS, 1, SIZE), h), h, **TIGHT)

    def test_a_shut_reset_gate_hides_the_state_from_the_new_value(self) -> None:
        h, gates = numbers(GROUPS, BATCH, SIZE), torch.zeros(GROUPS, BATCH, 3 * SIZE, dtype=torch.float64)
        gates[..., : 2 * SIZE] = -1e3
        gates[..., 2 * SIZE :] = 0.7
        found = gru_update(gates, 0.1 * numbers(GROUPS, BATCH, 3 * SIZE), numbers(GROUPS, 1, SIZE), h)
        assert_close(found, torch.full_like(h, math.tanh(0.7)), **TIGHT)


class TestLSTMUpdate:
    def test_equals_torchs_cell_in_every_group(self) -> None:
        cells = [nn.LSTMCell(INPUT_SIZE, SIZE).double() for _ in range(GROUPS)]
        x, h, c = numbers(GROUPS, BATCH, INPUT_SIZE), numbers(GROUPS, BATCH, SIZE), numbers(GROUPS, BATCH, SIZE)
        gates = torch.stack(
            [x[k] @ m.weight_ih.t() + m.bias_ih + h[k] @ m.weight_hh.t() + m.bias_hh for k, m in enumerate(cells)]
        )
        found_h, found_c = lstm_update(gates, c)
        right = [m(x[k], (h[k], c[k])) for k, m in enumerate(cells)]
        assert_close(found_h, torch.stack([pair[0] for pair in right]), **TIGHT)
        assert_close(found_c, torch.stack([pair[1] for pair in right]), **TIGHT)

    def test_an_open_forget_gate_and_a_shut_input_gate_keep_the_cell_state(self) -> None:
        c, gates = numbers(GROUPS, BATCH, SIZE), torch.zeros(GROUPS, BATCH, 4 * SIZE, dtype=torch.float64)
        gates[..., :SIZE], gates[..., SIZE : 2 * SIZE] = -1e3, 1e3
        assert_close(lstm_update(gates, c)[1], c, **TIGHT)


class TestParameters:
    def test_scaled_ones_keep_the_variance_of_their_input(self) -> None:
        weights = scaled_parameter(GROUPS, 401, 307)
        products = torch.randn(GROUPS, 211, 401) @ weights
        assert products.var().item() == pytest.approx(1.0, rel=0.05)

    def test_uniform_ones_stay_within_the_bound_and_fill_it(self) -> None:
        weights = uniform_parameter(GROUPS, 401, 307, bound=0.3)
        assert weights.abs().max().item() <= 0.3
        assert weights.std().item() == pytest.approx(0.3 / math.sqrt(3.0), rel=0.01)

    def test_are_leaves_of_the_given_shape_that_want_gradient(self) -> None:
        for weights in (scaled_parameter(2, 3, 5), uniform_parameter(2, 3, 5, bound=1.0)):
            assert weights.shape == (2, 3, 5)
            assert weights.is_leaf
            assert weights.requires_grad
