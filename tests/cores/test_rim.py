"""The promises of the RIM's step: who is active, what the others do meanwhile, and who reads from whom."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig
from rims_rl.cores.rim import RIMState
from tests.cores.every_core import INPUT_SIZE, SLOTS, some_resets
from tests.cores.small_rim import (
    ACTIVE,
    BATCH,
    LENGTH,
    SIZE,
    TIGHT,
    UNITS,
    both_cells,
    both_presets,
    build,
    by_unit,
    every_loop,
    some_inputs,
    some_state,
    with_and_without_slots,
)

pytestmark = pytest.mark.usefixtures("chosen_loop")


class TestSelection:
    @pytest.mark.parametrize("active_units", [1, 2, 3, 4, 5])
    @both_presets
    @with_and_without_slots
    def test_exactly_k_a_units_are_active(self, preset: str, slots: int | None, active_units: int) -> None:
        core = build(preset, active_units=active_units)
        _, _, found = core.diagnose(some_inputs(slots=slots), core.initial_state(BATCH), some_resets(LENGTH, BATCH))
        assert (found["active"].sum(dim=-1) == active_units).all()

    @both_presets
    @with_and_without_slots
    def test_no_inactive_unit_left_less_unread_than_an_active_one(self, preset: str, slots: int | None) -> None:
        core = build(preset)
        _, _, found = core.diagnose(some_inputs(slots=slots), some_state(core))
        unread, active = found["null_attention"], found["active"]
        worst_active = unread.masked_fill(~active, -1.0).amax(dim=-1)
        best_inactive = unread.masked_fill(active, 2.0).amin(dim=-1)
        assert (worst_active <= best_inactive).all()

    @both_presets
    @with_and_without_slots
    def test_ties_go_to_the_lower_index(self, preset: str, slots: int | None) -> None:
        core = build(preset)
        _, _, found = core.diagnose(some_inputs(1, slots), core.initial_state(BATCH))
        assert found["active"].tolist() == [[[True, True, True, False, False]] * BATCH]

    @every_loop
    def test_ties_go_to_the_lower_index_in_the_outputs_too(self, loop: str) -> None:
        core = build()
        outputs, _ = core(some_inputs(1), core.initial_state(BATCH))
        moved = by_unit(outputs)[0].abs().sum(dim=-1) > 0.0
        assert moved.tolist() == [[True, True, True, False, False]] * BATCH

    @every_loop
    def test_no_gradient_comes_through_the_choice(self, loop: str) -> None:
        """An inactive unit's query decides that it is inactive, and yet gets no gradient from the step."""
        core = build(communication=False)
        inputs, state = some_inputs(1)[:, :1], some_state(core)[:1]
        outputs, _ = core(inputs, state)
        active = core.diagnose(inputs, state)[2]["active"][0, 0]
        outputs.pow(2).sum().backward()
        assert core.from_state.grad is not None
        reached = core.from_state.grad[:, :, core.gate_size :].abs().sum(dim=(1, 2)) > 0.0
        assert torch.equal(reached, active)

    def test_the_unit_that_is_active_changes_over_time(self) -> None:
        core = build()
        _, _, found = core.diagnose(some_inputs(), some_state(core))
        assert len(found["active"][:, 0].unique(dim=0)) > 1


class TestNullAttention:
    @pytest.mark.parametrize("input_heads", [1, 2])
    def test_is_exactly_half_at_zero_state_with_one_slot(self, input_heads: int) -> None:
        core = build(input_heads=input_heads)
        _, _, found = core.diagnose(some_inputs(1), core.initial_state(BATCH))
        assert (found["null_attention"] == 0.5).all()

    def test_is_an_equal_share_at_zero_state_with_seven_slots(self) -> None:
        core = build()
        _, _, found = core.diagnose(some_inputs(1, SLOTS), core.initial_state(BATCH))
        assert_close(found["null_attention"], torch.full((1, BATCH, UNITS), 0.125, dtype=torch.float64), **TIGHT)

    def test_an_input_of_zeros_is_as_attractive_as_the_null_row(self) -> None:
        core = build()
        _, _, found = core.diagnose(torch.zeros_like(some_inputs()), some_state(core))
        assert (found["null_attention"] == 0.5).all()


class TestInactiveUnits:
    @every_loop
    @both_cells
    @both_presets
    def test_keep_h_and_c_to_the_bit(self, cell: str, preset: str, loop: str) -> None:
        core = build(preset, cell=cell)
        inputs, state = some_inputs(), some_state(core)
        for t in range(LENGTH):
            active = core.diagnose(inputs[t : t + 1], state)[2]["active"][0]
            _, after = core(inputs[t : t + 1], state)
            for before_part, after_part in zip(core.unpack(state), core.unpack(after), strict=True):
                if before_part is not None and after_part is not None:
                    assert torch.equal(before_part[~active], after_part[~active])
                    assert not torch.isclose(before_part[active], after_part[active], rtol=1e-3).all(dim=-1).any()
            state = after

    @every_loop
    @both_cells
    @both_presets
    def test_pass_the_gradient_through_unchanged_and_take_none_from_input_or_others(
        self, cell: str, preset: str, loop: str
    ) -> None:
        core = build(preset, cell=cell)
        inputs, state = some_inputs(1).requires_grad_(), some_state(core).requires_grad_()
        active = core.diagnose(inputs, state)[2]["active"][0, 0]
        silent = int((~active).nonzero()[0])
        _, last = core(inputs, state)
        loss = sum(part[0, silent].sum() for part in core.unpack(last) if part is not None)
        to_inputs, to_state = torch.autograd.grad(loss, [inputs, state], materialize_grads=True)
        expected = RIMState(*(torch.zeros(BATCH, UNITS, SIZE, dtype=torch.float64) for _ in range(2)))
        expected.h[0, silent] = expected.c[0, silent] = 1.0
        for found, right in zip(core.unpack(to_state), expected, strict=True):
            assert found is None or torch.equal(found, right)
        assert torch.count_nonzero(to_inputs) == 0

    @every_loop
    def test_are_read_by_the_others(self, loop: str) -> None:
        core = build()
        inputs, state = some_inputs(1), some_state(core).requires_grad_()
        active = core.diagnose(inputs, state)[2]["active"][0, 0]
        outputs, _ = core(inputs, state)
        (to_state,) = torch.autograd.grad(by_unit(outputs)[0, 0][active].sum(), state)
        assert (by_unit(to_state)[0][~active].abs().sum(dim=-1) > 0.0).all()

    @every_loop
    def test_are_not_read_without_communication(self, loop: str) -> None:
        core = build(communication=False)
        inputs, state = some_inputs(1), some_state(core).requires_grad_()
        active = core.diagnose(inputs, state)[2]["active"][0, 0]
        outputs, _ = core(inputs, state)
        (to_state,) = torch.autograd.grad(by_unit(outputs)[0, 0][active].sum(), state)
        assert torch.count_nonzero(by_unit(to_state)[0][~active]) == 0

    def test_that_show_their_candidate_are_read_but_get_no_gradient(self) -> None:
        core = build(inactive_show="candidate")
        inputs, state = some_inputs(1), some_state(core).requires_grad_()
        active = core.diagnose(inputs, state)[2]["active"][0, 0]
        silent = int((~active).nonzero()[0])
        outputs, _ = core(inputs, state)
        (to_state,) = torch.autograd.grad(by_unit(outputs)[0, 0][active].sum(), state)
        assert torch.count_nonzero(by_unit(to_state)[0][~active]) == 0
        with torch.no_grad():
            core.bias[silent] += 1.0  # only the candidate of this unit depends on it
        assert not torch.allclose(core(inputs, state)[0], outputs)

    @every_loop
    def test_that_show_their_state_do_not_show_what_they_would_have_become(self, loop: str) -> None:
        core = build()
        inputs, state = some_inputs(1)[:, :1], some_state(core)[:1]
        active = core.diagnose(inputs, state)[2]["active"][0, 0]
        outputs, _ = core(inputs, state)
        with torch.no_grad():
            core.bias[int((~active).nonzero()[0])] += 1.0
        assert torch.equal(core(inputs, state)[0], outputs)


class TestCompetitionBetweenUnits:
    @with_and_without_slots
    def test_at_zero_state_the_first_step_gives_no_input_to_anyone(self, slots: int | None) -> None:
        core = build("authors")
        inputs = some_inputs(1, slots)
        outputs, _, found = core.diagnose(inputs, core.initial_state(BATCH))
        assert torch.count_nonzero(found["input_attention"]) == 0
        assert torch.equal(outputs, core(torch.zeros_like(inputs), core.initial_state(BATCH))[0])

    def test_with_one_slot_the_active_units_share_it_and_the_others_get_none(self) -> None:
        core = build("authors")
        _, _, found = core.diagnose(some_inputs(), some_state(core))
        assert_close(found["input_attention"].sum(dim=2), torch.ones(LENGTH, BATCH, 1).double(), rtol=0.0, atol=1e-4)
        assert torch.equal(found["input_attention"][..., 0] > 0.0, found["active"])

    def test_every_slot_is_shared_out_on_its_own_among_k_a_units(self) -> None:
        core = build("authors")
        _, _, found = core.diagnose(some_inputs(slots=SLOTS), some_state(core))
        assert ((found["input_attention"] > 0.0).sum(dim=2) == ACTIVE).all()


class TestCommunication:
    def test_a_unit_reads_with_its_own_query_and_others_with_their_own_values(self) -> None:
        """Renumbering the units, with their weights and states, renumbers the outputs and changes nothing else."""
        core, order = build(), torch.tensor([3, 0, 4, 2, 1])
        inputs, state = some_inputs(), some_state(core)
        outputs, _ = core(inputs, state)
        renumbered = build()
        with torch.no_grad():
            for name, parameter in renumbered.named_parameters():
                original = getattr(core, name)
                parameter.copy_(original if name in ("key", "value") else original[order])
        shuffled, _ = renumbered(inputs, by_unit(state)[:, order].flatten(1))
        assert_close(by_unit(shuffled), by_unit(outputs)[:, :, order], **TIGHT)

    def test_each_active_unit_reads_from_every_unit_itself_included(self) -> None:
        core = build(active_units=UNITS)
        inputs, state = some_inputs(1), some_state(core).requires_grad_()
        outputs, _ = core(inputs, state)
        for k in range(UNITS):
            (to_state,) = torch.autograd.grad(by_unit(outputs)[0, 0, k].sum(), state, retain_graph=True)
            assert (by_unit(to_state)[0].abs().sum(dim=-1) > 0.0).all()

    def test_does_not_touch_the_cell_state_of_an_lstm_unit(self) -> None:
        talking, silent = build(cell="lstm"), build(cell="lstm", communication=False)
        silent.load_state_dict(talking.state_dict(), strict=False)
        inputs, state = some_inputs(1), some_state(talking)
        after_talking, after_silence = (core.unpack(core(inputs, state)[1]) for core in (talking, silent))
        assert torch.equal(after_talking.c, after_silence.c)
        assert not torch.allclose(after_talking.h, after_silence.h)

    def test_with_an_output_map_of_zero_is_as_no_communication(self) -> None:
        talking, silent = build(), build(communication=False)
        silent.load_state_dict(talking.state_dict(), strict=False)
        nn.init.zeros_(talking.from_message)
        inputs, state = some_inputs(), some_state(talking)
        assert_close(talking(inputs, state)[0], silent(inputs, state)[0], **TIGHT)

    @every_loop
    def test_bounded_messages_add_at_most_one_to_a_state(self, loop: str) -> None:
        talking, silent = build(None), build(None, communication=False)
        silent.load_state_dict(talking.state_dict(), strict=False)
        with torch.no_grad():
            talking.from_message *= 1e3
        inputs, state = some_inputs(1), some_state(talking)
        added = talking(inputs, state)[0] - silent(inputs, state)[0]
        assert added.abs().max() <= 1.0
        assert added.abs().max() > 0.9

    def test_bounded_messages_keep_a_long_memory_finite_where_the_plain_residual_grows(self) -> None:
        inputs = torch.randn(101, BATCH, INPUT_SIZE, dtype=torch.float64)
        largest = {}
        for preset in ("paper", None):
            core = build(preset)
            with torch.no_grad():
                core.from_message *= 3.0
                core.bias[..., SIZE : 2 * SIZE] += 2.0  # update gates that tend to keep
            largest[preset] = core(inputs, core.initial_state(BATCH))[0].abs().max().item()
        assert largest[None] <= 1.0 + 101.0  # every step adds at most 1
        assert largest["paper"] > 1e6 * largest[None]


class TestGradientReachesEveryPiece:
    @every_loop
    @both_presets
    def test_of_every_stacked_weight_and_every_unit(self, preset: str, loop: str) -> None:
        core = build(preset)
        outputs, _ = core(some_inputs(), some_state(core))
        (outputs * torch.randn_like(outputs)).sum().backward()
        keys, gates = core.config.message_key_size, core.gate_size
        stacks = {
            "recurrent": core.from_state.grad[:, :, :gates],
            "query": core.from_state.grad[:, :, gates:],
            "message query": core.to_message.grad[:, :, :keys],
            "message key": core.to_message.grad[:, :, keys : 2 * keys],
            "message value": core.to_message.grad[:, :, 2 * keys :],
            "weight_ih": core.weight_ih.grad,
            "bias": core.bias.grad,
            "bias_hn": core.bias_hn.grad,
        }
        assert [name for name, grad in stacks.items() if not (grad != 0.0).any(dim=2).all()] == []


def test_the_value_map_is_folded_into_the_cells_weights_where_that_costs_less() -> None:
    small, large = RIM(64, RIMConfig(unit_size=100)), RIM(512, RIMConfig())
    assert small._folding_pays(torch.empty(70, 64, 64))
    assert not small._folding_pays(torch.empty(1, 8, 64))
    assert not large._folding_pays(torch.empty(128, 8, 512))
