"""The RIM as a whole: its slots, its state, what it tells of itself, its parameters, and what it reduces to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig
from tests.cores.every_core import INPUT_SIZE, SLOTS
from tests.cores.small_rim import (
    BATCH,
    LENGTH,
    SIZE,
    TIGHT,
    UNITS,
    both_cells,
    both_presets,
    build,
    by_unit,
    some_inputs,
    some_state,
    with_and_without_slots,
)

pytestmark = pytest.mark.usefixtures("chosen_loop")


class TestSlots:
    @both_presets
    def test_one_slot_is_the_same_as_a_vector(self, preset: str) -> None:
        core = build(preset)
        inputs, state = some_inputs(), some_state(core)
        assert torch.equal(core(inputs, state)[0], core(inputs.unsqueeze(2), state)[0])

    @pytest.mark.parametrize("settings", [{}, {"preset": "authors"}, {"input_attention": False, "active_units": 5}])
    def test_their_order_does_not_matter(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, state = some_inputs(slots=SLOTS), some_state(core)
        assert_close(core(inputs.flip(2), state)[0], core(inputs, state)[0], **TIGHT)

    @both_presets
    def test_every_slot_is_read(self, preset: str) -> None:
        core = build(preset)
        inputs = some_inputs(slots=SLOTS).requires_grad_()
        core(inputs, some_state(core))[0].sum().backward()
        assert inputs.grad is not None
        assert (inputs.grad.abs().sum(dim=-1) > 0.0).all(dim=0).all()

    def test_without_input_attention_their_mean_is_read(self) -> None:
        core = build(input_attention=False, active_units=UNITS)
        inputs, state = some_inputs(slots=SLOTS), some_state(core)
        assert_close(core(inputs, state)[0], core(inputs.mean(dim=2), state)[0], **TIGHT)


class TestReducesToTorchsOwnCells:
    """Without input attention and communication, each unit is a plain GRU or LSTM that reads the value map's output."""

    @both_cells
    def test_five_units_are_five_cells(self, cell: str) -> None:
        core = build(cell=cell, input_attention=False, active_units=UNITS, communication=False)
        inputs = some_inputs()
        outputs, _ = core(inputs, core.initial_state(BATCH))
        for k in range(UNITS):
            twin = (nn.GRU if cell == "gru" else nn.LSTM)(core.config.value_size, SIZE).double()
            with torch.no_grad():
                twin.weight_ih_l0.copy_(core.weight_ih[k].t())
                twin.weight_hh_l0.copy_(core.from_state[k].t())
                twin.bias_ih_l0.copy_(core.bias[k, 0])
                twin.bias_hh_l0.zero_()
                if core.bias_hn is not None:
                    twin.bias_hh_l0[2 * SIZE :] = core.bias_hn[k, 0]
            assert_close(by_unit(outputs)[:, :, k], twin(inputs @ core.value)[0], **TIGHT)


class TestDiagnostics:
    @with_and_without_slots
    @pytest.mark.parametrize("input_heads", [1, 2])
    def test_attention_on_the_slots_and_the_null_row_sums_to_one(self, slots: int | None, input_heads: int) -> None:
        core = build(input_heads=input_heads)
        _, _, found = core.diagnose(some_inputs(slots=slots), some_state(core))
        total = found["input_attention"].sum(dim=-1) + found["null_attention"]
        assert_close(total, torch.ones(LENGTH, BATCH, UNITS, dtype=torch.float64), **TIGHT)

    @both_presets
    def test_attention_between_units_sums_to_one_for_every_reader(self, preset: str) -> None:
        core = build(preset)
        _, _, found = core.diagnose(some_inputs(), some_state(core))
        assert found["communication"].shape == (LENGTH, BATCH, UNITS, UNITS)
        assert_close(found["communication"].sum(dim=-1), torch.ones(LENGTH, BATCH, UNITS, dtype=torch.float64), **TIGHT)

    def test_row_of_the_communication_is_the_reader(self) -> None:
        """Unit 2's query is made large: its attention becomes sharp, the other readers' stay as they were."""
        core = build()
        inputs, state = some_inputs(1), some_state(core)
        before = core.diagnose(inputs, state)[2]["communication"]
        with torch.no_grad():
            core.to_message[2, :, : core.config.message_key_size] *= 1e4
        after = core.diagnose(inputs, state)[2]["communication"]
        others = [0, 1, 3, 4]
        assert torch.equal(after[:, :, others], before[:, :, others])
        assert not torch.allclose(after[:, :, 2], before[:, :, 2])

    def test_active_names_the_units_that_move(self) -> None:
        core = build()
        inputs, state = some_inputs(1), some_state(core)
        outputs, _, found = core.diagnose(inputs, state)
        moved = (by_unit(outputs[0]) != by_unit(state)).any(dim=-1)
        assert found["active"].dtype == torch.bool
        assert torch.equal(moved, found["active"][0])

    def test_nothing_on_communication_where_there_is_none(self) -> None:
        core = build(communication=False)
        _, _, found = core.diagnose(some_inputs(), core.initial_state(BATCH))
        assert set(found) == {"active", "null_attention", "input_attention"}

    def test_without_input_attention_all_are_active_and_read_everything(self) -> None:
        core = build(input_attention=False, active_units=UNITS)
        _, _, found = core.diagnose(some_inputs(slots=SLOTS), core.initial_state(BATCH))
        assert found["active"].all()
        assert (found["null_attention"] == 0.0).all()


class TestState:
    @both_cells
    def test_the_outputs_are_the_units_h_one_after_the_other(self, cell: str) -> None:
        core = build(cell=cell)
        outputs, last = core(some_inputs(), core.initial_state(BATCH))
        assert torch.equal(core.unpack(last).h.flatten(1), outputs[-1])

    def test_a_gru_has_no_c_and_an_lstm_has_one_of_the_same_shape(self) -> None:
        gru, lstm = build(cell="gru"), build(cell="lstm")
        assert gru.unpack(gru.initial_state(7)).h.shape == (7, UNITS, SIZE)
        assert gru.unpack(gru.initial_state(7)).c is None
        assert lstm.unpack(lstm.initial_state(7)).c.shape == (7, UNITS, SIZE)

    def test_starts_at_zero(self) -> None:
        core = build(cell="lstm")
        assert torch.count_nonzero(core.initial_state(7)) == 0


class TestParameterCount:
    @both_cells
    @pytest.mark.parametrize("input_heads", [1, 2])
    def test_is_the_sum_of_the_papers_maps(self, cell: str, input_heads: int) -> None:
        core = build(cell=cell, input_heads=input_heads)
        gates, values, keys = {"gru": 3, "lstm": 4}[cell], 46, input_heads * 19
        attention = INPUT_SIZE * (keys + values) + UNITS * SIZE * keys
        biases = gates * SIZE + (SIZE if cell == "gru" else 0)
        dynamics = UNITS * (values * gates * SIZE + SIZE * gates * SIZE + biases)
        communication = UNITS * (SIZE * 2 * (29 + 29 + 31) + 2 * 31 * SIZE)
        assert sum(p.numel() for p in core.parameters()) == attention + dynamics + communication

    def test_of_the_authors_output_and_gate_maps_does_not_grow_with_the_units(self) -> None:
        core = build("authors")
        shared = [*core.message_out.parameters(), *core.message_gate.parameters()]
        assert sum(p.numel() for p in shared) == 2 * (2 * 31 * SIZE + SIZE)
        assert not hasattr(core, "from_message")

    def test_of_what_is_switched_off_is_zero(self) -> None:
        names = {
            name for name, _ in build(input_attention=False, active_units=5, communication=False).named_parameters()
        }
        assert names == {"value", "weight_ih", "from_state", "bias", "bias_hn"}

    def test_by_default_is_that_of_the_papers_atari_agent_with_lstm_units(self) -> None:
        config = RIM(512).config
        assert (config.num_units, config.active_units, config.unit_size, config.cell) == (6, 4, 85, "lstm")
        assert RIMConfig.from_settings("authors").cell == "gru"
        assert config.value_size == 4 * 85
