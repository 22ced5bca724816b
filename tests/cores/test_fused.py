"""The fused kernels against PyTorch's operations, in Triton's interpreter: no GPU is needed."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig, graphs, loops
from rims_rl.cores.graphs import Arguments, Function, Recording, Recordings
from rims_rl.cores.unrolled import fused
from rims_rl.cores.unrolled.loop import _forward_and_backward
from tests.cores.tapes import Tape, rerun

pytest.importorskip("triton", reason="Triton is there on Linux alone")

INPUT_SIZE, LENGTH, BATCH = 7, 3, 2
SMALL: dict[str, Any] = {
    **{"num_units": 3, "active_units": 2, "unit_size": 5, "input_key_size": 7, "input_value_size": 2 * 3},
    **{"communication_heads": 2, "communication_key_size": 3, "communication_value_size": 11},
}
"""The interpreter takes some milliseconds for every unit of every sequence at every step."""
EXACT = {"rtol": 1e-10, "atol": 1e-10}
both_cells = pytest.mark.parametrize("cell", ["gru", "lstm"])
CONFIGS: dict[str, dict[str, Any]] = {
    "bounded": {},
    "paper": {"preset": "paper"},
    "all-active": {"active_units": 3},
    "two-input-heads": {"input_heads": 2},
    "no-communication": {"communication": False},
    "no-input-attention": {"input_attention": False, "active_units": 3},
    "neither": {"input_attention": False, "active_units": 3, "communication": False},
    "all-of-one": {
        **{"num_units": 1, "active_units": 1, "unit_size": 1, "input_key_size": 1, "input_value_size": 1},
        **{"communication_heads": 1, "communication_key_size": 1, "communication_value_size": 1},
    },
}
CHECK = fused._found_right
OF_A_STEP = ["attend_and_update", "listen", "take_up", "take_up_backward", "listen_backward", "update_backward"]
Launches = list[str]


class Kernels:
    """The kernels, with a list of those that were launched."""

    def __init__(self, launched: Launches, change: Callable[[str, tuple[Any, ...]], None]) -> None:
        self.launched, self.change = launched, change

    def __getattr__(self, name: str) -> Any:
        return Launcher(self, name)


class Launcher:
    """One kernel: `launcher[grid](...)` runs it."""

    def __init__(self, kernels: Kernels, name: str) -> None:
        self.kernels, self.name = kernels, name

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        from rims_rl.cores.unrolled import kernels

        def launch(*arguments: Any, **sizes: Any) -> None:
            self.kernels.launched.append(self.name)
            getattr(kernels, self.name)[grid](*arguments, **sizes)
            self.kernels.change(self.name, arguments)

        return launch


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Make the kernels the first loop to be tried, unchecked, and return the names of those that are launched."""
    names: Launches = []
    monkeypatch.setenv(loops.SWITCH, "fused")
    monkeypatch.setattr(fused, "_kernels", lambda: Kernels(names, lambda *_: None))
    monkeypatch.setattr(fused, "_trusted", {})
    monkeypatch.setattr(fused, "_found_right", lambda *_: True)
    return names


def build(preset: str | None = None, dtype: torch.dtype = torch.float64, **settings: Any) -> RIM:
    torch.manual_seed(0)
    return RIM(INPUT_SIZE, RIMConfig.from_settings(preset, **{**SMALL, **settings})).to(dtype)


def arguments(core: RIM, steps: int = LENGTH, batch: int = BATCH, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    inputs = torch.randn(steps, batch, INPUT_SIZE, dtype=core.value.dtype, requires_grad=True)
    state = torch.randn(batch, core.state_size, dtype=core.value.dtype).tanh().requires_grad_()
    return inputs, state, torch.rand(steps, batch) < 0.3


def values_and_gradients(core: RIM, given: tuple[Tensor, Tensor, Tensor | None]) -> list[Tensor]:
    outputs, last = core(*given)
    torch.manual_seed(2)
    loss = (outputs * torch.randn_like(outputs)).sum() + (last * torch.randn_like(last)).sum()
    return [outputs, last, *torch.autograd.grad(loss, [*given[:2], *core.parameters()], allow_unused=True)]


def both(core: RIM, given: tuple[Tensor, Tensor, Tensor | None], other: str = "eager") -> list[tuple[Tensor, Tensor]]:
    """Return what the kernels give beside what another loop gives."""
    found = values_and_gradients(core, given)
    with loops.starting_at(other):
        expected = values_and_gradients(core, given)
    return [pair for pair in zip(found, expected, strict=True) if pair[1] is not None]


class TestEqualsTheOtherLoops:
    @both_cells
    @pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
    def test_in_float64(self, settings: dict[str, Any], cell: str, launched: Launches) -> None:
        core = build(cell=cell, **settings)
        for found, expected in both(core, arguments(core)):
            assert_close(found, expected, **EXACT)
        assert launched

    @both_cells
    def test_without_resets(self, cell: str) -> None:
        core = build(cell=cell)
        inputs, state, _ = arguments(core)
        for found, expected in both(core, (inputs, state, None)):
            assert_close(found, expected, **EXACT)

    @both_cells
    @pytest.mark.parametrize("communication", [True, False])
    def test_where_all_sequences_start_anew_at_every_step(self, communication: bool, cell: str) -> None:
        core = build(cell=cell, communication=communication)
        inputs, state, starts = arguments(core)
        for found, expected in both(core, (inputs, state, torch.ones_like(starts))):
            assert_close(found, expected, **EXACT)

    @both_cells
    def test_in_float32_at_the_default_size(self, cell: str) -> None:
        torch.manual_seed(0)
        core = RIM(INPUT_SIZE, RIMConfig(cell=cell))  # type: ignore[arg-type]
        for found, expected in both(core, arguments(core, steps=2, batch=2), "unrolled"):
            assert_close(found, expected, rtol=0.0, atol=1e-5 * expected.abs().max().item())

    @both_cells
    def test_a_single_step_of_one_sequence(self, cell: str, launched: Launches) -> None:
        core = build(cell=cell)
        for found, expected in both(core, arguments(core, steps=1, batch=1)):
            assert_close(found, expected, **EXACT)
        assert launched == OF_A_STEP

    def test_with_inputs_that_do_not_lie_densely(self) -> None:
        core = build()
        inputs, state, starts = arguments(core)
        wide = torch.stack([inputs, inputs], dim=-1)[..., 0].transpose(0, 1).contiguous().transpose(0, 1)
        for found, expected in both(core, (wide, state, starts.t().contiguous().t())):
            assert_close(found, expected, **EXACT)

    @both_cells
    def test_without_gradient_the_bits_are_the_same(self, cell: str, launched: Launches) -> None:
        core = build(cell=cell)
        with_graph = core(*arguments(core))
        launched.clear()
        with torch.no_grad():
            silent = core(*arguments(core))
        assert launched == OF_A_STEP[:3] * LENGTH
        for one, two in zip(with_graph, silent, strict=True):
            assert torch.equal(one, two)


class TestSelection:
    def test_ties_go_to_the_lower_index(self) -> None:
        core = build()
        inputs = torch.randn(1, BATCH, INPUT_SIZE, dtype=torch.float64)
        _, last = core(inputs, core.initial_state(BATCH))  # from zeros all units leave as much unread
        moved = core.unpack(last).h.ne(0.0).any(dim=-1)
        assert moved.tolist() == [[True, True, False]] * BATCH

    def test_of_numbers_that_are_none_the_lowest_indices_win(self) -> None:
        core = build(communication=False)
        inputs, state, _ = arguments(core, steps=1)
        with torch.no_grad():
            _, last = core(inputs * float("nan"), state)
        spoilt = core.unpack(last).h.isnan().any(dim=-1)
        assert spoilt.tolist() == [[True, True, False]] * BATCH


class Untouched:
    """Kernels that do nothing."""

    def __getattr__(self, name: str) -> Any:
        return defaultdict(lambda: lambda *_, **__: None)


def operations(core: RIM, steps: int) -> list[str]:
    """Return the names of the operations that launch something on a GPU, forward and backward, when recorded."""
    given = arguments(core, steps)
    tapes: list[Tape] = []

    def recorder(function: Function, arguments: Arguments) -> Recording:
        tapes.append(Tape())
        with tapes[-1]:
            return Recording(arguments, function(*arguments), lambda: None)

    with graphs.recorded_by(Recordings(recorder)):
        for _ in range(2):
            values_and_gradients(core, given)
    return [str(func) for tape in tapes for func, *_ in tape.calls if not launches_nothing(func)]


def launches_nothing(func: Any) -> bool:
    """Whether an operation makes a view, or room."""
    only_views = func._schema.returns and all(
        result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns
    )
    return bool(only_views) or "empty" in str(func) or "detach" in str(func)


class TestLaunches:
    def test_of_a_step_are_six_kernels(self, launched: Launches) -> None:
        core = build()
        values_and_gradients(core, arguments(core))
        launched.clear()
        values_and_gradients(core, arguments(core))
        assert launched == OF_A_STEP[:3] * LENGTH + OF_A_STEP[3:] * LENGTH

    @both_cells
    def test_and_six_matrix_products_and_nothing_else(self, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
        core = build(cell=cell)
        monkeypatch.setattr(fused, "_kernels", Untouched)
        monkeypatch.setattr(graphs, "_checked", lambda recording, _: recording)
        one_more = Counter(operations(core, steps=4)) - Counter(operations(core, steps=3))
        assert one_more == {"aten.bmm.out": 4, "aten.baddbmm_.default": 2}
        with loops.starting_at("unrolled"):
            before = Counter(operations(core, steps=4)) - Counter(operations(core, steps=3))
        assert before.total() == {"gru": 48, "lstm": 56}[cell]

    @pytest.mark.slow
    def test_a_graph_of_them_gives_the_same(self) -> None:
        core = build()
        with loops.starting_at("eager"):
            expected = [values_and_gradients(core, arguments(core, seed=seed)) for seed in range(3)]
        recordings = Recordings(rerun)
        with graphs.recorded_by(recordings):
            for seed in range(3):
                found = values_and_gradients(core, arguments(core, seed=seed))
                for one, two in zip(found, expected[seed], strict=True):
                    assert_close(one, two, **EXACT)
        assert len(recordings) == 2  # forward and backward


class TestWhereTheyDoNotServe:
    @pytest.mark.parametrize(
        "settings",
        [
            {"preset": "authors"},
            {"competition": "units"},
            {"gated_communication": True},
            {"inactive_show": "candidate"},
            {"dtype": torch.bfloat16},
            {"unit_size": 33},
        ],
        ids=lambda settings: ",".join(settings),
    )
    def test_the_loop_goes_on_without(
        self, settings: dict[str, Any], launched: Launches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fused, "_LARGEST_TILE", 32)
        core = build(**settings)
        with torch.no_grad():
            core(*arguments(core, steps=1, batch=1))
        assert not launched

    def test_nor_for_several_slots(self, launched: Launches) -> None:
        core = build()
        core(torch.randn(LENGTH, BATCH, 2, INPUT_SIZE, dtype=torch.float64), core.initial_state(BATCH))
        assert not launched

    def test_nor_on_a_processor_unless_asked_for(self, launched: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RIM, "_compiled_loop_fits", lambda *_: False)
        core = build()
        for switch in ("compiled", "unrolled"):
            monkeypatch.setenv(loops.SWITCH, switch)
            core(*arguments(core))
        assert not launched

    def test_nor_while_the_compiler_looks(self, launched: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        core = build()
        core(*arguments(core))
        assert not launched


class TestKernelsThatAreNotRight:
    @pytest.fixture(autouse=True)
    def _unchecked_yet(self, launched: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fused, "_found_right", CHECK)

    def both_without_kernels(self) -> None:
        core = build()
        for found, expected in both(core, arguments(core), "unrolled"):
            assert torch.equal(found, expected)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", OF_A_STEP)
    def test_are_not_used_and_it_is_said_once(
        self, name: str, launched: Launches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What a kernel wrote last but for sizes, its result, is spoilt slightly."""

        def spoil(which: str, given: tuple[Any, ...]) -> None:
            if which == name:
                written = [x for x in given if isinstance(x, Tensor) and x.is_floating_point()][-1]
                written.mul_(1.001)

        monkeypatch.setattr(fused, "_kernels", lambda: Kernels(launched, spoil))
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            self.both_without_kernels()
        (record,) = caplog.records
        assert "without fused kernels, slower: they are off by" in record.getMessage()

    def test_nor_where_triton_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def missing() -> Any:
            raise ModuleNotFoundError("No module named 'triton'")

        monkeypatch.setattr(fused, "_kernels", missing)
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            self.both_without_kernels()
        (record,) = caplog.records
        assert record.getMessage().endswith("slower: ModuleNotFoundError: No module named 'triton'")

    def test_those_that_are_right_are_used_whatever_new_tensors_are_by_default(self, launched: Launches) -> None:
        config, like = RIMConfig(**SMALL), torch.zeros(1)
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        try:
            assert fused.serve(config, 1, like, _forward_and_backward)
        finally:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)
        assert set(launched) == set(OF_A_STEP)

    def test_what_is_short_of_memory_is_tried_again(
        self, launched: Launches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(*_: Any) -> Any:
            raise torch.OutOfMemoryError("full")

        with pytest.raises(torch.OutOfMemoryError):
            fused.serve(RIMConfig(**SMALL), 1, torch.zeros(1), full)
        assert fused.serve(RIMConfig(**SMALL), 1, torch.zeros(1), _forward_and_backward)
        assert not caplog.records

    def test_one_example_of_three_has_to_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for errors, right in [((1.0, 1e-12, 1.0), True), ((1.0, 1.0, 1.0), False)]:
            found = iter(errors)
            monkeypatch.setattr(fused, "_largest_error", lambda *_, seed, found=found: next(found))
            assert fused._found_right(RIMConfig(), torch.zeros(1, dtype=torch.float64), lambda *_: ()) is right

    def test_what_is_no_number_is_not_right(self) -> None:
        def compute(plan: Any, inputs: Any) -> list[Tensor]:
            return [torch.full((2,), float("nan") if plan.fused else 1.0)]

        assert fused._largest_error(RIMConfig(), torch.zeros(1), compute, 0) == float("inf")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_gpus(capability: int) -> None:
    """To machine code, from the very arguments that the loop launches them with; Triton needs no GPU for that."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cores.compile_for_gpus", str(capability)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(OF_A_STEP)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu() -> None:
    """In a process in which Triton does not interpret."""
    done = subprocess.run([sys.executable, "-m", "tests.cores.fused_on", "cuda"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
