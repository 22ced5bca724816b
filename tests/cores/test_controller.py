"""The controller of an external memory, against torch's own layers, and the cutting of a flat state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from rims_rl.cores.controller import Controller, check_controller, join_state, split_state
from rims_rl.errors import ConfigError

LENGTH, BATCH, INPUT, HIDDEN, READ, INTERFACE, OUTPUT = 5, 3, 13, 17, 7, 19, 11


def controller(kind: str) -> Controller:
    torch.manual_seed(0)
    made = Controller(kind, INPUT, HIDDEN, READ, INTERFACE, OUTPUT).double()
    nn.init.normal_(made.bias)
    return made


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class TestOneStep:
    def test_of_an_lstm_is_that_of_torchs_cell_fed_with_input_and_reads(self) -> None:
        made, cell = controller("lstm"), nn.LSTMCell(INPUT + READ, HIDDEN).double()
        cell.weight_ih.data = made.weight[: INPUT + READ].t()
        cell.weight_hh.data = made.weight[INPUT + READ :].t()
        cell.bias_ih.data, cell.bias_hh.data = made.bias.data, torch.zeros_like(made.bias)
        inputs, reads, h, c = (
            random(LENGTH, BATCH, INPUT),
            random(BATCH, READ),
            random(BATCH, HIDDEN),
            random(BATCH, HIDDEN),
        )
        from_input = list(made.hoist(inputs))[3]
        got, right = made.step(from_input, reads, h, c), cell(torch.cat([inputs[3], reads], dim=1), (h, c))
        assert_close(got[0], right[0])
        assert_close(got[1], right[1])

    def test_of_a_feedforward_one_knows_input_and_reads_alone(self) -> None:
        made = controller("feedforward")
        inputs, reads, nothing = random(LENGTH, BATCH, INPUT), random(BATCH, READ), torch.empty(BATCH, 0).double()
        h, c = made.step(list(made.hoist(inputs))[3], reads, nothing, nothing)
        assert_close(h, torch.tanh(torch.cat([inputs[3], reads], dim=1) @ made.weight + made.bias))
        assert c.shape == (BATCH, 0)


class TestStart:
    def test_an_lstms_forget_gates_are_open_and_all_other_biases_zero(self) -> None:
        made = Controller("lstm", INPUT, HIDDEN, READ, INTERFACE, OUTPUT)
        assert made.bias.tolist() == [0.0] * HIDDEN + [1.0] * HIDDEN + [0.0] * 2 * HIDDEN
        assert not made.interface_bias.any()
        assert not made.output_bias.any()


class TestOutputs:
    def test_are_a_linear_map_of_hidden_state_and_reads(self) -> None:
        made = controller("lstm")
        hiddens, reads = [random(BATCH, HIDDEN) for _ in range(LENGTH)], [random(BATCH, READ) for _ in range(LENGTH)]
        outputs = made.outputs(hiddens, reads)
        assert outputs.shape == (LENGTH, BATCH, OUTPUT)
        assert_close(outputs[2], torch.cat([hiddens[2], reads[2]], dim=1) @ made.to_output + made.output_bias)


class TestFlatState:
    def test_is_cut_in_order_and_joined_again(self) -> None:
        state = torch.arange(BATCH * 13.0).view(BATCH, 13)
        parts = split_state(state, [(1, 2), (1, 0), (2, 3), (5,)])
        assert [tuple(part.shape) for part in parts] == [(BATCH, 1, 2), (BATCH, 1, 0), (BATCH, 2, 3), (BATCH, 5)]
        assert parts[2][1].tolist() == [[15.0, 16.0, 17.0], [18.0, 19.0, 20.0]]
        assert torch.equal(join_state(parts), state)


class TestKinds:
    def test_an_unknown_one_is_refused_with_the_known(self) -> None:
        with pytest.raises(ConfigError, match=r"^controller must be one of lstm, feedforward, got 'gru'$"):
            check_controller("gru")
