"""The loop written out by hand against the eager one, beyond what the laws and the slow reference already compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig, loops
from rims_rl.cores.unrolled.plan import Plan, forward_buffers, kept_names
from rims_rl.errors import ConfigError

INPUT_SIZE = 7
both_cells = pytest.mark.parametrize("cell", ["gru", "lstm"])
with_and_without_slots = pytest.mark.parametrize("slots", [None, 5])
SIZES: dict[str, dict[str, Any]] = {
    "all-of-one": {
        **{"num_units": 1, "active_units": 1, "unit_size": 1, "input_key_size": 1, "input_value_size": 1},
        **{"communication_heads": 1, "communication_key_size": 1, "communication_value_size": 1},
    },
    "the-default": {},
    "many-units": {"num_units": 71, "active_units": 37, "unit_size": 5, "communication_heads": 1},
    "three-input-heads": {"unit_size": 11, "input_heads": 3, "input_key_size": 13, "input_value_size": 3 * 5},
    "authors": {"preset": "authors", "unit_size": 11},
    "authors-all-active": {"preset": "authors", "unit_size": 11, "active_units": 6},
}


@pytest.fixture(autouse=True)
def _unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loops.SWITCH, "unrolled")


def build(dtype: torch.dtype = torch.float64, preset: str | None = None, **settings: Any) -> RIM:
    torch.manual_seed(0)
    return RIM(INPUT_SIZE, RIMConfig.from_settings(preset, **settings)).to(dtype)


def arguments(core: RIM, steps: int = 7, batch: int = 3, slots: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    shape = (steps, batch, INPUT_SIZE) if slots is None else (steps, batch, slots, INPUT_SIZE)
    inputs = torch.randn(shape, dtype=core.value.dtype, requires_grad=True)
    state = torch.randn(batch, core.state_size, dtype=core.value.dtype).tanh().requires_grad_()
    return inputs, state, torch.rand(steps, batch) < 0.2


def gradients(core: RIM, given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    outputs, last = core(*given)
    torch.manual_seed(2)
    loss = (outputs * torch.randn_like(outputs)).sum() + (last * torch.randn_like(last)).sum()
    return torch.autograd.grad(loss, [*given[:2], *core.parameters()])


def values_and_gradients(core: RIM, given: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    return [*core(*given), *gradients(core, given)]


class TestEqualsTheEagerLoop:
    @pytest.fixture(params=[True, False], ids=["folded", "not-folded"], autouse=True)
    def _value_map(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RIM, "_folding_pays", lambda *_: request.param)

    @both_cells
    @with_and_without_slots
    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
    def test_in_float64(self, sizes: dict[str, Any], slots: int | None, cell: str) -> None:
        core = build(**sizes, cell=cell)
        given = arguments(core, slots=slots)
        by_hand = values_and_gradients(core, given)
        with loops.starting_at("eager"):
            eager = values_and_gradients(core, given)
        for fast, slow in zip(by_hand, eager, strict=True):
            assert_close(fast, slow, rtol=1e-10, atol=1e-10)

    @both_cells
    @with_and_without_slots
    @pytest.mark.parametrize("preset", ["paper", "authors"])
    def test_in_float32_at_the_default_size(self, preset: str, slots: int | None, cell: str) -> None:
        core = build(torch.float32, preset, cell=cell)
        given = arguments(core, slots=slots)
        by_hand = values_and_gradients(core, given)
        with loops.starting_at("eager"):
            eager = values_and_gradients(core, given)
        for fast, slow in zip(by_hand, eager, strict=True):
            assert_close(fast, slow, rtol=0.0, atol=1e-4 * slow.abs().max().item())

    @both_cells
    def test_where_all_sequences_start_anew_at_every_step(self, cell: str) -> None:
        core = build(unit_size=11, cell=cell)
        inputs, state, starts = arguments(core)
        given = inputs, state, torch.ones_like(starts)
        by_hand = values_and_gradients(core, given)
        with loops.starting_at("eager"):
            eager = values_and_gradients(core, given)
        for fast, slow in zip(by_hand, eager, strict=True):
            assert_close(fast, slow, rtol=1e-10, atol=1e-10)


class TestWithoutGradient:
    @both_cells
    @with_and_without_slots
    @pytest.mark.parametrize("preset", ["paper", "authors"])
    def test_the_bits_are_the_same(self, preset: str, slots: int | None, cell: str) -> None:
        core = build(preset=preset, unit_size=11, cell=cell)
        given = arguments(core, slots=slots)
        with torch.no_grad():
            silent = core(*given)
        for with_graph, without in zip(core(*given), silent, strict=True):
            assert torch.equal(with_graph, without)

    @both_cells
    def test_room_grows_with_the_length_by_states_and_masks_alone(self, cell: str) -> None:
        config = RIMConfig(unit_size=11, cell=cell)
        plans = [Plan(config, steps, 3, 5, keep=False, always_mask=False) for steps in (7, 13)]
        short, long = (forward_buffers(plan, torch.empty(0)) for plan in plans)
        assert list(short) == kept_names(plans[0])
        assert {name for name in short if short[name].shape != long[name].shape} == {"states", "active"}


class TestAutograd:
    def test_two_backward_passes_give_the_same(self) -> None:
        core = build(unit_size=11)
        loss = core(*arguments(core))[0].sum()
        first = torch.autograd.grad(loss, list(core.parameters()), retain_graph=True)
        second = torch.autograd.grad(loss, list(core.parameters()))
        assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))

    @both_cells
    @pytest.mark.parametrize("which", [0, 1], ids=["outputs", "last-state"])
    def test_the_gradient_of_one_result_alone_is_right(self, which: int, cell: str) -> None:
        core = build(unit_size=11, cell=cell)
        given = arguments(core)

        def gradients_of_one() -> tuple[Tensor, ...]:
            return torch.autograd.grad(core(*given)[which].pow(2).sum(), list(core.parameters()))

        by_hand = gradients_of_one()
        with loops.starting_at("eager"):
            eager = gradients_of_one()
        for fast, slow in zip(by_hand, eager, strict=True):
            assert_close(fast, slow, rtol=1e-10, atol=1e-10)

    @both_cells
    def test_the_state_alone_can_be_asked_for(self, cell: str) -> None:
        core = build(unit_size=11, cell=cell).requires_grad_(False)
        inputs, state, starts = arguments(core)
        (to_state,) = torch.autograd.grad(core(inputs.detach(), state, starts)[0].sum(), state)
        with loops.starting_at("eager"):
            (eager,) = torch.autograd.grad(core(inputs.detach(), state, starts)[0].sum(), state)
        assert_close(to_state, eager, rtol=1e-10, atol=1e-10)

    @both_cells
    def test_results_may_be_written_to(self, cell: str) -> None:
        core = build(unit_size=11, cell=cell)
        given = arguments(core)
        expected = torch.autograd.grad(core(*given)[0].sum(), list(core.parameters()))
        outputs, last = core(*given)
        last.zero_()
        (changed,) = [outputs.mul_(2.0)]
        for gradient, twice in zip(expected, torch.autograd.grad(changed.sum(), list(core.parameters())), strict=True):
            assert_close(twice, 2.0 * gradient, rtol=1e-12, atol=1e-12)

    def test_weights_changed_between_forward_and_backward_are_noticed(self) -> None:
        core = build(unit_size=11)
        outputs, _ = core(*arguments(core))
        with torch.no_grad():
            core.from_state.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            outputs.sum().backward()

    def test_a_second_derivative_is_refused_and_the_eager_loop_has_it(self) -> None:
        core = build(unit_size=11)
        inputs, state, _ = arguments(core)

        def backward_twice() -> None:
            (first,) = torch.autograd.grad(core(inputs, state)[0].sum(), inputs, create_graph=True)
            first.sum().backward()

        with pytest.raises(ConfigError, match=r"no second derivative .* set RIMS_RL_LOOP=eager"):
            backward_twice()
        inputs.grad = None
        with loops.starting_at("eager"):
            backward_twice()
        assert inputs.grad is not None
        assert inputs.grad.any()

    @with_and_without_slots
    def test_inside_autocast_the_loop_goes_backward_in_full_precision_too(self, slots: int | None) -> None:
        core = build(torch.float32, unit_size=11, cell="gru")
        given = arguments(core, slots=slots)
        inside = [given[1], core.from_state, core.bias, core.bias_hn, core.to_message, core.from_message]

        def gradients_inside() -> tuple[Tensor, ...]:
            return torch.autograd.grad(core(*given)[0].square().sum(), inside)

        expected = gradients_inside()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradients_inside()
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


class TestNotANumber:
    @both_cells
    @with_and_without_slots
    @pytest.mark.parametrize("preset", [None, "authors"])
    def test_in_one_input_leaves_inactive_units_and_other_sequences_alone(
        self, preset: str | None, slots: int | None, cell: str
    ) -> None:
        core = build(preset=preset, num_units=5, active_units=3, unit_size=11, cell=cell)
        with torch.no_grad():
            inputs, state, _ = arguments(core, steps=1, slots=slots)
            inputs[0, 1] = torch.nan
            outputs, _ = core(inputs, state)
        lost = outputs[0].view(3, 5, 11).isnan()
        assert lost.all(dim=2).tolist() == [[False] * 5, [True, True, True, False, False], [False] * 5]
        assert torch.equal(lost.any(dim=2), lost.all(dim=2))


class TestOtherNumberTypes:
    @both_cells
    def test_bfloat16_weights_run(self, cell: str) -> None:
        core = build(torch.bfloat16, unit_size=11, cell=cell)
        given = arguments(core)
        assert all(tensor.dtype == torch.bfloat16 and tensor.isfinite().all() for tensor in gradients(core, given))
