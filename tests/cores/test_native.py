"""The loop in C against the eager loop and the slow reference: sizes that fit no vector register, slots, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig, loops, native
from rims_rl.cores.reference import reference_rim
from rims_rl.errors import ConfigError

INPUT_SIZE = 7
needs_compiler = pytest.mark.skipif(not native.available(torch.float64), reason="no compiler for the loop in C")
SIZES: dict[str, dict[str, Any]] = {
    "all-of-one": {
        **{"num_units": 1, "active_units": 1, "unit_size": 1, "input_key_size": 1, "input_value_size": 1},
        **{"communication_heads": 1, "communication_key_size": 1, "communication_value_size": 1},
    },
    "below-a-vector": {"num_units": 2, "active_units": 1, "unit_size": 3, "communication_key_size": 2},
    "a-vector": {"num_units": 8, "active_units": 4, "unit_size": 8, "input_key_size": 8, "communication_key_size": 8},
    "above-a-vector": {"unit_size": 17, "input_key_size": 17, "communication_key_size": 9, "communication_heads": 3},
    "the-default": {},
    "many-units": {"num_units": 71, "active_units": 37, "unit_size": 5, "communication_heads": 1},
    "two-input-heads": {"unit_size": 11, "input_heads": 2, "input_key_size": 13},
}


def build(dtype: torch.dtype = torch.float64, **settings: Any) -> RIM:
    torch.manual_seed(0)
    return RIM(INPUT_SIZE, RIMConfig(**settings)).to(dtype)


def values_and_gradients(
    core: RIM, steps: int, batch: int, slots: int | None = None, run: Callable[..., tuple[Tensor, Tensor]] | None = None
) -> list[Tensor]:
    torch.manual_seed(1)
    dtype = core.value.dtype
    middle = () if slots is None else (slots,)
    inputs = torch.randn(steps, batch, *middle, INPUT_SIZE, dtype=dtype, requires_grad=True)
    state = torch.randn(batch, core.state_size, dtype=dtype).tanh().requires_grad_()
    starts = torch.rand(steps, batch) < 0.2
    starts[0] = False
    outputs, last = (run or core)(inputs, state, starts)
    loss = (outputs * torch.randn_like(outputs)).sum() + (last * torch.randn_like(last)).sum()
    return [outputs, last, *torch.autograd.grad(loss, [inputs, state, *core.parameters()])]


@needs_compiler
class TestEqualsTheEagerLoop:
    @pytest.fixture(params=[True, False], ids=["hoisted", "not-hoisted"], autouse=True)
    def _input_products(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "_hoisting_pays", lambda *_: request.param)

    @pytest.fixture(params=[True, False], ids=["folded", "not-folded"], autouse=True)
    def _value_map(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RIM, "_folding_pays", lambda *_: request.param)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
    def test_for_sizes_that_fit_a_vector_and_sizes_that_do_not(
        self, sizes: dict[str, Any], cell: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core = build(**sizes, cell=cell)
        compiled = values_and_gradients(core, 5, 3)
        monkeypatch.setenv(loops.SWITCH, "eager")
        for fast, slow in zip(compiled, values_and_gradients(core, 5, 3), strict=True):
            assert_close(fast, slow, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_in_float32_at_the_default_size(self, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
        core = build(torch.float32, cell=cell)
        compiled = values_and_gradients(core, 5, 3)
        monkeypatch.setenv(loops.SWITCH, "eager")
        for fast, slow in zip(compiled, values_and_gradients(core, 5, 3), strict=True):
            assert_close(fast, slow, rtol=1e-3, atol=1e-4)


SLOT_SIZES: dict[str, dict[str, Any]] = {
    "all-of-one": {**SIZES["all-of-one"], "active_units": 1},
    "below-a-vector": SIZES["below-a-vector"],
    "above-a-vector": SIZES["above-a-vector"],
    "many-units": SIZES["many-units"],
    "two-input-heads": {**SIZES["two-input-heads"], "input_value_size": 2 * 23},
}


@needs_compiler
class TestSeveralSlots:
    @pytest.fixture(params=[True, False], ids=["folded", "not-folded"], autouse=True)
    def _value_map(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "_folding_pays", lambda *_: request.param)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    @pytest.mark.parametrize("sizes", SLOT_SIZES.values(), ids=SLOT_SIZES)
    @pytest.mark.parametrize("slots", [1, 2, 7, 19])
    def test_equal_the_eager_loop(
        self, slots: int, sizes: dict[str, Any], cell: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core = build(**sizes, cell=cell)
        compiled = values_and_gradients(core, 5, 3, slots)
        monkeypatch.setenv(loops.SWITCH, "eager")
        for fast, slow in zip(compiled, values_and_gradients(core, 5, 3, slots), strict=True):
            assert_close(fast, slow, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    @pytest.mark.parametrize("settings", [{"bounded_messages": False}, {"communication": False}, {"input_heads": 2}])
    @pytest.mark.parametrize("slots", [1, 2, 7])
    def test_equal_the_slow_reference(self, slots: int, settings: dict[str, Any], cell: str) -> None:
        settings = {"num_units": 3, "active_units": 2, "unit_size": 11, "input_key_size": 5, **settings}
        core = build(communication_heads=2, cell=cell, **settings)

        def reference(*arguments: Tensor) -> tuple[Tensor, Tensor]:
            return reference_rim(core, *arguments)

        slow = values_and_gradients(core, 4, 2, slots, reference)
        for fast, expected in zip(values_and_gradients(core, 4, 2, slots), slow, strict=True):
            assert_close(fast, expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_in_float32_at_the_default_size(self, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
        core = build(torch.float32, cell=cell)
        compiled = values_and_gradients(core, 5, 3, 7)
        monkeypatch.setenv(loops.SWITCH, "eager")
        for fast, slow in zip(compiled, values_and_gradients(core, 5, 3, 7), strict=True):
            assert_close(fast, slow, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_gradients_are_the_derivatives(self, cell: str) -> None:
        core = build(num_units=3, active_units=2, unit_size=2, input_key_size=3, communication_heads=1, cell=cell)
        inputs = torch.randn(2, 1, 3, INPUT_SIZE, dtype=torch.float64, requires_grad=True)
        state = torch.randn(1, core.state_size, dtype=torch.float64).tanh().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, s, *_: core(x, s), (inputs, state, *core.parameters()))

    def test_slots_without_gradient_change_nobody_elses(self) -> None:
        core = build(unit_size=11)
        inputs, state = torch.randn(5, 3, 7, INPUT_SIZE, dtype=torch.float64), core.initial_state(3)
        with_theirs = torch.autograd.grad(core(inputs.requires_grad_(), state)[0].sum(), list(core.parameters()))
        without = torch.autograd.grad(core(inputs.detach(), state)[0].sum(), list(core.parameters()))
        assert all(torch.equal(one, two) for one, two in zip(with_theirs, without, strict=True))

    def test_without_gradient_the_bits_are_the_same(self) -> None:
        core = build(unit_size=11)
        inputs, state = torch.randn(7, 3, 5, INPUT_SIZE, dtype=torch.float64), core.initial_state(3)
        with torch.no_grad():
            silent = core(inputs, state)
        for with_graph, without in zip(core(inputs, state), silent, strict=True):
            assert torch.equal(with_graph, without)


@needs_compiler
class TestWhatIsDoneBeforeTheLoop:
    @pytest.mark.parametrize(
        ("steps", "batch", "threads", "before"),
        [(128, 2, 1, True), (128, 8, 1, False), (128, 8, 4, True), (1, 2, 1, False)],
    )
    def test_the_values_products_where_few_sequences_share_a_thread(
        self, steps: int, batch: int, threads: int, before: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        assert native._hoisting_pays(steps, batch) == before

    def test_the_value_map_times_the_input_weights_for_long_sequences_of_small_slots_alone(self) -> None:
        shape, weight_ih = build(torch.float32)._native_shape(), torch.empty(6, 340, 255)
        small, large = (torch.empty(128, 8, 49, size) for size in (64, 4096))
        assert native._folding_pays(shape, small, weight_ih)
        assert not native._folding_pays(shape, small[:1], weight_ih)
        assert not native._folding_pays(shape, large, weight_ih)


@needs_compiler
class TestNotANumber:
    @pytest.mark.parametrize("slots", [None, 7])
    def test_in_one_input_leaves_as_many_units_active_as_ever(self, slots: int | None) -> None:
        core = build(num_units=5, active_units=3, unit_size=11)
        inputs = torch.randn(1, 3, *(() if slots is None else (slots,)), INPUT_SIZE, dtype=torch.float64)
        inputs[0, 1] = torch.nan
        outputs, _ = core(inputs, torch.randn(3, core.state_size, dtype=torch.float64))
        lost = outputs[0].view(3, 5, 11).isnan()
        assert lost.all(dim=2).tolist() == [[False] * 5, [True, True, True, False, False], [False] * 5]
        assert torch.equal(lost.any(dim=2), lost.all(dim=2))

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    @pytest.mark.parametrize("slots", [None, 7])
    def test_in_some_states_selects_as_the_eager_loop_does(
        self, slots: int | None, cell: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core = build(num_units=5, active_units=3, unit_size=11, cell=cell, communication=False)
        inputs = torch.randn(5, 3, *(() if slots is None else (slots,)), INPUT_SIZE, dtype=torch.float64)
        state = torch.randn(3, core.state_size, dtype=torch.float64)
        state[0, :11], state[1, 11 : 4 * 11] = torch.nan, torch.nan  # one unit of one sequence, three of another
        compiled, _ = core(inputs, state)
        monkeypatch.setenv(loops.SWITCH, "eager")
        eager, _ = core(inputs, state)
        assert compiled.isnan().any()
        assert_close(compiled, eager, rtol=1e-10, atol=1e-10, equal_nan=True)


@needs_compiler
class TestMemory:
    @pytest.mark.parametrize("function", ["rim_forward", "rim_backward"])
    def test_when_there_is_none_it_says_so_in_one_line(self, function: str) -> None:
        slots = torch.empty(2, 3, 7, INPUT_SIZE, dtype=torch.float64)
        sizes = native._sizes(build()._native_shape(), {"slots": slots, "from_input": torch.empty(6, 340, 255)}, True)
        with pytest.raises(MemoryError, match=r"no memory for the RIM's loop over 2 steps of 3 sequences") as caught:
            native._call(function, torch.float64, {**sizes, "N": 2**44}, {})  # more than any address can reach
        assert "\n" not in str(caught.value)


@needs_compiler
class TestThreads:
    @pytest.fixture(autouse=True)
    def _threads_as_before(self) -> Iterator[None]:
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    @pytest.mark.parametrize("threads", [2, 3, 16, 67])
    @pytest.mark.parametrize("slots", [None, 7])
    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    @pytest.mark.parametrize("whose", ["PyTorch's", "its own"])
    def test_neither_their_number_nor_whose_they_are_matters(
        self, threads: int, slots: int | None, cell: str, whose: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if whose == "its own":
            monkeypatch.setattr(native, "team", lambda: 0)
        elif not native.team():
            pytest.skip("PyTorch does not use an OpenMP whose threads can be asked")
        core = build(unit_size=11, cell=cell)
        torch.set_num_threads(1)
        alone = values_and_gradients(core, 7, 13, slots)
        torch.set_num_threads(threads)
        for together, single in zip(values_and_gradients(core, 7, 13, slots), alone, strict=True):
            assert_close(together, single, rtol=1e-10, atol=1e-10)

    def test_of_its_own_are_not_started_for_a_single_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.set_num_threads(3)
        monkeypatch.setattr(native, "team", lambda: 0)
        assert (native._threads(1, 8), native._threads(128, 8)) == (1, 3)
        monkeypatch.setattr(native, "team", lambda: 1)
        assert native._threads(1, 8) == 3


@needs_compiler
class TestAutograd:
    @pytest.mark.parametrize("slots", [None, 7])
    def test_a_second_derivative_is_refused(self, slots: int | None) -> None:
        core = build(unit_size=11)
        inputs = torch.randn(3, 2, *(() if slots is None else (slots,)), INPUT_SIZE, dtype=torch.float64)
        (first,) = torch.autograd.grad(core(inputs.requires_grad_(), core.initial_state(2))[0].sum(), inputs)
        assert first.any()
        with pytest.raises(ConfigError, match=r"no second derivative .* set RIMS_RL_LOOP=eager"):
            torch.autograd.grad(core(inputs, core.initial_state(2))[0].sum(), inputs, create_graph=True)

    def test_a_loss_that_was_differentiated_holds_nothing_of_the_loop(self) -> None:
        core = build(unit_size=11)
        loss = core(torch.randn(3, 2, INPUT_SIZE, dtype=torch.float64), core.initial_state(2))[0].sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="a second time"):
            loss.backward()

    def test_without_gradient_the_bits_are_the_same(self) -> None:
        core = build(unit_size=11)
        inputs, state = torch.randn(7, 3, INPUT_SIZE, dtype=torch.float64), core.initial_state(3)
        with torch.no_grad():
            silent = core(inputs, state)
        for with_graph, without in zip(core(inputs, state), silent, strict=True):
            assert torch.equal(with_graph, without)

    def test_without_gradient_nothing_is_kept_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        core, kept, allocate = build(unit_size=11), [], native._work_arrays

        def noted(sizes: dict[str, int], like: Tensor) -> dict[str, Tensor | None]:
            kept.append(bool(sizes["keep"]))
            return allocate(sizes, like)

        monkeypatch.setattr(native, "_work_arrays", noted)
        inputs, state = torch.randn(7, 3, INPUT_SIZE, dtype=torch.float64), core.initial_state(3)
        core(inputs, state)
        with torch.no_grad():
            core(inputs, state)
        assert kept == [True, False]

    def test_two_backward_passes_give_the_same(self) -> None:
        core = build(unit_size=11)
        inputs = torch.randn(7, 3, INPUT_SIZE, dtype=torch.float64)
        loss = core(inputs, core.initial_state(3))[0].sum()
        first = torch.autograd.grad(loss, list(core.parameters()), retain_graph=True)
        second = torch.autograd.grad(loss, list(core.parameters()))
        assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))

    def test_the_gradient_of_the_last_state_alone_is_right(self, monkeypatch: pytest.MonkeyPatch) -> None:
        core = build(unit_size=11, cell="lstm")
        inputs = torch.randn(7, 3, INPUT_SIZE, dtype=torch.float64)

        def gradients() -> tuple[Tensor, ...]:
            loss = core(inputs, core.initial_state(3))[1].pow(2).sum()
            return torch.autograd.grad(loss, list(core.parameters()))

        compiled = gradients()
        monkeypatch.setenv(loops.SWITCH, "eager")
        for fast, slow in zip(compiled, gradients(), strict=True):
            assert_close(fast, slow, rtol=1e-10, atol=1e-10)

    def test_weights_changed_between_forward_and_backward_are_noticed(self) -> None:
        core = build(unit_size=11)
        outputs, _ = core(torch.randn(7, 3, INPUT_SIZE, dtype=torch.float64), core.initial_state(3))
        with torch.no_grad():
            core.from_state.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            outputs.sum().backward()
