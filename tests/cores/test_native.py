"""The loop in C against the eager loop: sizes that fit no vector register, threads, and machines without a compiler."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig, native

INPUT_SIZE = 7
needs_compiler = pytest.mark.skipif(not native.available(torch.float64), reason="no compiler for the loop in C")
SIZES: dict[str, dict[str, int]] = {
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


def values_and_gradients(core: RIM, steps: int, batch: int) -> list[Tensor]:
    torch.manual_seed(1)
    dtype = core.value.dtype
    inputs = torch.randn(steps, batch, INPUT_SIZE, dtype=dtype, requires_grad=True)
    state = torch.randn(batch, core.state_size, dtype=dtype).tanh().requires_grad_()
    starts = torch.rand(steps, batch) < 0.2
    starts[0] = False
    outputs, last = core(inputs, state, starts)
    loss = (outputs * torch.randn_like(outputs)).sum() + (last * torch.randn_like(last)).sum()
    return [outputs, last, *torch.autograd.grad(loss, [inputs, state, *core.parameters()])]


@needs_compiler
class TestEqualsTheEagerLoop:
    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
    def test_for_sizes_that_fit_a_vector_and_sizes_that_do_not(
        self, sizes: dict[str, int], cell: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core = build(**sizes, cell=cell)
        compiled = values_and_gradients(core, 5, 3)
        monkeypatch.setenv("RIMS_RL_NATIVE", "0")
        for fast, slow in zip(compiled, values_and_gradients(core, 5, 3), strict=True):
            assert_close(fast, slow, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_in_float32_at_the_default_size(self, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
        core = build(torch.float32, cell=cell)
        compiled = values_and_gradients(core, 5, 3)
        monkeypatch.setenv("RIMS_RL_NATIVE", "0")
        for fast, slow in zip(compiled, values_and_gradients(core, 5, 3), strict=True):
            assert_close(fast, slow, rtol=1e-3, atol=1e-4)


@needs_compiler
class TestThreads:
    @pytest.fixture(autouse=True)
    def _threads_as_before(self) -> Iterator[None]:
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    @pytest.mark.parametrize("threads", [2, 3, 16, 67])
    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_their_number_does_not_matter(self, threads: int, cell: str) -> None:
        core = build(unit_size=11, cell=cell)
        torch.set_num_threads(1)
        alone = values_and_gradients(core, 7, 13)
        torch.set_num_threads(threads)
        for together, single in zip(values_and_gradients(core, 7, 13), alone, strict=True):
            assert_close(together, single, rtol=1e-10, atol=1e-10)


@needs_compiler
class TestAutograd:
    def test_without_gradient_the_bits_are_the_same(self) -> None:
        core = build(unit_size=11)
        inputs, state = torch.randn(7, 3, INPUT_SIZE, dtype=torch.float64), core.initial_state(3)
        with torch.no_grad():
            silent = core(inputs, state)
        for with_graph, without in zip(core(inputs, state), silent, strict=True):
            assert torch.equal(with_graph, without)

    def test_without_gradient_nothing_is_kept_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        core, kept, allocate = build(unit_size=11), [], native._work_arrays

        def noted(shape: native.Shape, steps: int, batch: int, keep: bool, like: Tensor) -> dict[str, Tensor | None]:
            kept.append(keep)
            return allocate(shape, steps, batch, keep, like)

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
        monkeypatch.setenv("RIMS_RL_NATIVE", "0")
        for fast, slow in zip(compiled, gradients(), strict=True):
            assert_close(fast, slow, rtol=1e-10, atol=1e-10)

    def test_weights_changed_between_forward_and_backward_are_noticed(self) -> None:
        core = build(unit_size=11)
        outputs, _ = core(torch.randn(7, 3, INPUT_SIZE, dtype=torch.float64), core.initial_state(3))
        with torch.no_grad():
            core.from_state.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            outputs.sum().backward()


class TestWhereThereIsNoLoopInC:
    @pytest.fixture(autouse=True)
    def _forgotten_library(self) -> Iterator[None]:
        native._library.cache_clear()
        yield
        native._library.cache_clear()

    def test_without_a_working_compiler_the_eager_loop_serves_and_it_is_said_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
        core = build()
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            for _ in range(2):
                outputs, _ = core(torch.zeros(2, 3, INPUT_SIZE, dtype=torch.float64), core.initial_state(3))
        assert not native.available(torch.float64)
        assert outputs.shape == (2, 3, core.output_size)
        (record,) = caplog.records
        assert "without its compiled loop" in record.getMessage()
        assert "\n" not in record.getMessage()

    def test_a_compiler_that_fails_is_no_compiler(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", "false")
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            assert not native.available(torch.float32)
        assert list((tmp_path / "rims_rl").iterdir()) == []
        assert len(caplog.records) == 1

    @needs_compiler
    def test_a_compiler_of_several_words_is_one(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", "env cc")
        assert native.available(torch.float64)

    def test_the_environment_can_switch_it_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RIMS_RL_NATIVE", "0")
        assert not native.available(torch.float64)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
    def test_other_number_types_are_not_its_business(self, dtype: torch.dtype) -> None:
        assert not native.available(dtype)

    @needs_compiler
    def test_is_compiled_once_and_kept(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert native.available(torch.float64)
        (library,) = (tmp_path / "rims_rl").iterdir()
        made = library.stat().st_mtime_ns
        native._library.cache_clear()
        assert native.available(torch.float64)
        assert [path.stat().st_mtime_ns for path in (tmp_path / "rims_rl").iterdir()] == [made]
