"""The baselines are torch's own layers: equal to them without resets, and on each piece between resets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from rims_rl.cores import RecurrentCore, make_core
from rims_rl.cores.lstm import pieces_between_resets

LENGTH, BATCH, INPUT_SIZE, SIZE = 11, 3, 7, 5
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def core_and_twin(name: str) -> tuple[RecurrentCore, nn.RNNBase]:
    torch.manual_seed(0)
    core = make_core(name, INPUT_SIZE, hidden_size=SIZE).double()
    twin = {"lstm": nn.LSTM, "gru": nn.GRU}[name](INPUT_SIZE, SIZE).double()
    twin.load_state_dict({key.removeprefix("rnn."): value for key, value in core.state_dict().items()})
    return core, twin


def some_inputs() -> Tensor:
    return torch.randn(LENGTH, BATCH, INPUT_SIZE, dtype=torch.float64)


def flat(hidden: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return hidden[0] if isinstance(hidden, Tensor) else torch.cat([hidden[0][0], hidden[1][0]], dim=-1)


@pytest.mark.parametrize("name", ["lstm", "gru"])
class TestEqualsTorchsLayer:
    def test_from_the_initial_state(self, name: str) -> None:
        core, twin = core_and_twin(name)
        inputs = some_inputs()
        outputs, last = core(inputs, core.initial_state(BATCH))
        right, hidden = twin(inputs)
        assert_close(outputs, right, **TIGHT)
        assert_close(last, flat(hidden), **TIGHT)

    def test_from_a_given_state(self, name: str) -> None:
        core, twin = core_and_twin(name)
        inputs, state = some_inputs(), torch.randn(BATCH, core.state_size, dtype=torch.float64)
        parts = tuple(part.unsqueeze(0).contiguous() for part in state.split(SIZE, dim=1))
        outputs, last = core(inputs, state)
        right, hidden = twin(inputs, parts if name == "lstm" else parts[0])
        assert_close(outputs, right, **TIGHT)
        assert_close(last, flat(hidden), **TIGHT)

    def test_piece_by_piece_between_resets_of_all(self, name: str) -> None:
        core, twin = core_and_twin(name)
        inputs, starts = some_inputs(), torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[[0, 2, 7]] = True
        outputs, _ = core(inputs, torch.ones(BATCH, core.state_size, dtype=torch.float64), starts)
        right = torch.cat([twin(piece)[0] for piece in (inputs[:2], inputs[2:7], inputs[7:])])
        assert_close(outputs, right, **TIGHT)

    def test_has_as_many_parameters(self, name: str) -> None:
        gates = {"lstm": 4, "gru": 3}[name]
        core, _ = core_and_twin(name)
        assert sum(p.numel() for p in core.parameters()) == gates * SIZE * (INPUT_SIZE + SIZE + 2)

    def test_shows_its_state_as_one_unit(self, name: str) -> None:
        core, _ = core_and_twin(name)
        outputs, last = core(some_inputs(), core.initial_state(BATCH))
        assert core.unpack(last)[0].shape == (BATCH, 1, SIZE)
        assert torch.equal(core.unpack(last)[0][:, 0], outputs[-1])


class TestFeedforward:
    def test_is_one_layer_with_relu_and_no_memory(self) -> None:
        torch.manual_seed(0)
        core = make_core("feedforward", INPUT_SIZE, hidden_size=SIZE).double()
        inputs = some_inputs()
        outputs, last = core(inputs, core.initial_state(BATCH))
        weight, bias = core.parameters()
        assert_close(outputs, (inputs @ weight.t() + bias).clamp(min=0.0), **TIGHT)
        assert last.shape == (BATCH, 0)

    def test_does_not_know_the_past(self) -> None:
        core = make_core("feedforward", INPUT_SIZE, hidden_size=SIZE).double()
        inputs = some_inputs()
        again, _ = core(inputs.flip(0), core.initial_state(BATCH))
        assert_close(again.flip(0), core(inputs, core.initial_state(BATCH))[0], **TIGHT)


class TestPiecesBetweenResets:
    @staticmethod
    def lengths(starts: Tensor | None) -> list[int]:
        return [piece.shape[0] for piece, _ in pieces_between_resets(some_inputs(), starts)]

    def test_no_reset_is_one_piece(self) -> None:
        assert self.lengths(None) == [LENGTH]
        assert self.lengths(torch.zeros(LENGTH, BATCH, dtype=torch.bool)) == [LENGTH]

    def test_a_reset_at_the_first_step_cuts_nothing_off(self) -> None:
        starts = torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[0, 1] = True
        ((piece, fresh),) = pieces_between_resets(some_inputs(), starts)
        assert piece.shape[0] == LENGTH
        assert fresh is not None
        assert fresh.tolist() == [[False], [True], [False]]

    def test_cuts_before_each_step_with_a_reset_of_anyone(self) -> None:
        starts = torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[2, 0] = starts[7, 1] = starts[7, 2] = starts[10, 0] = True
        assert self.lengths(starts) == [2, 5, 3, 1]

    def test_a_reset_at_every_step_is_single_steps(self) -> None:
        assert self.lengths(torch.ones(LENGTH, BATCH, dtype=torch.bool)) == [1] * LENGTH
