"""Recording and replaying without a GPU: a recorder that runs the function again, and one that replays its operations.

The second one is what a CUDA graph does: it knows nothing of Python, only which operations were done on which memory.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig, graphs, loops
from rims_rl.cores.graphs import Arguments, Function, Recording, Recordings
from tests.cores.tapes import Tape, rerun, tape

INPUT_SIZE, LENGTH, BATCH, SLOTS = 7, 5, 3, 2


class Counting:
    """A recorder that counts what it records and what is replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, function: Function, arguments: Arguments) -> Recording:
        self.recorded += 1
        recording = rerun(function, arguments)

        def replay() -> None:
            self.replayed += 1
            recording.replay()

        return recording._replace(replay=replay)


def double(x: Tensor, y: Tensor | None) -> tuple[Tensor, ...]:
    return (2.0 * x, x if y is None else x + y)


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.float64)


class TestWhatIsRecorded:
    def test_is_what_comes_a_second_time(self) -> None:
        recorder = Counting()
        recordings = Recordings(recorder)
        seen = []
        for _ in range(4):
            recordings.call("double", double, (ones(3), None))
            seen.append((recorder.recorded, recorder.replayed))
        assert seen == [(0, 0), (1, 2), (1, 3), (1, 4)]  # the first replay is compared with the function

    @pytest.mark.parametrize(
        "other",
        [
            ("double", (ones(5), None)),
            ("double", (ones(3).float(), None)),
            ("double", (ones(3), ones(3))),
            ("another", (ones(3), None)),
        ],
        ids=["shape", "type", "none", "name"],
    )
    def test_another_kind_of_call_is_another_recording(self, other: tuple[str, Arguments]) -> None:
        recordings = Recordings(rerun)
        for name, arguments in [("double", (ones(3), None)), other] * 2:
            recordings.call(name, double, arguments)
        assert len(recordings) == 2

    def test_the_one_not_used_for_longest_goes_first(self) -> None:
        recorder = Counting()
        recordings = Recordings(recorder, most=2)
        for size in (2, 2, 3, 3, 2, 5, 5):  # 5 drives 3 out, because 2 was used after it
            recordings.call("double", double, (ones(size), None))
        assert len(recordings) == 2
        assert recorder.recorded == 3
        recordings.call("double", double, (ones(2), None))
        assert recorder.recorded == 3
        recordings.call("double", double, (ones(3), None))
        assert recorder.recorded == 4

    def test_shapes_that_come_once_drive_nothing_out(self) -> None:
        recorder = Counting()
        recordings = Recordings(recorder, most=2)
        for size in (2, 2, *range(100, 120), 2):
            recordings.call("double", double, (ones(size), None))
        assert recorder.recorded == len(recordings) == 1

    def test_what_was_seen_is_forgotten_in_the_end(self) -> None:
        recordings = Recordings(rerun, most=2)
        for size in range(1000):
            recordings.call("double", double, (ones(size), None))
        assert len(recordings._seen) < 100


@pytest.mark.parametrize("recorder", [rerun, tape])
class TestReplaying:
    def test_gives_what_the_function_gives_whatever_the_arguments(self, recorder: graphs.Recorder) -> None:
        recordings = Recordings(recorder)
        for value in (2.0, 3.0, 5.0, 7.0):
            twice, total = recordings.call("double", double, (value * ones(3), ones(3)))
            assert twice.tolist() == [2.0 * value] * 3
            assert total.tolist() == [value + 1.0] * 3

    def test_never_writes_to_earlier_results(self, recorder: graphs.Recorder) -> None:
        recordings = Recordings(recorder)
        results = [recordings.call("double", double, (value * ones(3), None)) for value in (2.0, 3.0, 5.0, 7.0)]
        assert [twice[0].item() for twice, _ in results] == [4.0, 6.0, 10.0, 14.0]
        assert [same[0].item() for _, same in results] == [2.0, 3.0, 5.0, 7.0]

    def test_never_writes_to_the_arguments(self, recorder: graphs.Recorder) -> None:
        recordings, arguments = Recordings(recorder), [value * ones(3) for value in (2.0, 3.0, 5.0)]
        for argument in arguments:
            recordings.call("double", double, (argument, None))
        assert [argument[0].item() for argument in arguments] == [2.0, 3.0, 5.0]

    def test_takes_arguments_that_share_their_memory(self, recorder: graphs.Recorder) -> None:
        recordings = Recordings(recorder)
        for value in (2.0, 3.0, 5.0):
            twice, _ = recordings.call("double", double, ((value * ones(1)).expand(3), None))
            assert twice.tolist() == [2.0 * value] * 3


class TestSharing:
    def test_threads_do_not_mix_their_arguments(self) -> None:
        recordings = Recordings(rerun)

        def work(number: int) -> bool:
            given = number * ones(3)
            found = [recordings.call("double", double, (given, None))[0] for _ in range(50)]
            return all(torch.equal(one, 2.0 * given) for one in found)

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            with ThreadPoolExecutor(4) as pool:
                assert all(pool.map(work, range(4)))
        finally:
            sys.setswitchinterval(before)

    def test_a_recording_made_in_inference_mode_is_not_used_outside(self) -> None:
        recordings = Recordings(rerun)
        with torch.inference_mode():
            for _ in range(2):
                recordings.call("double", double, (ones(3), None))
        for _ in range(2):
            doubled, _ = recordings.call("double", double, (ones(3), None))
            assert torch.equal(doubled, 2.0 * ones(3))


class TestARecorderThatFails:
    def test_is_said_once_and_functions_are_called_plainly(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails(function: Function, arguments: Arguments) -> Recording:
            raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

        recordings = Recordings(fails)
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            for size in (2, 2, 2, 3, 3):
                assert recordings.call("double", double, (ones(size), None))[0].tolist() == [2.0] * size
        (record,) = caplog.records
        assert "without CUDA graphs" in record.getMessage()
        assert "\n" not in record.getMessage()
        assert len(recordings) == 0

    def test_one_that_gives_other_numbers_is_not_used(self, caplog: pytest.LogCaptureFixture) -> None:
        def wrong(function: Function, arguments: Arguments) -> Recording:
            return Recording(arguments, tuple(result + 1.0 for result in function(*arguments)), lambda: None)

        recordings = Recordings(wrong)
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            for _ in range(3):
                assert torch.equal(recordings.call("double", double, (ones(3), None))[0], 2.0 * ones(3))
        (record,) = caplog.records
        assert "does not give what its function gives" in record.getMessage()


class TestDevices:
    def test_nothing_is_recorded_on_a_processor(self) -> None:
        assert not graphs.serve(torch.device("cpu"))
        for _ in range(3):
            graphs.call("double", double, (ones(3), None))
        assert len(graphs._on_gpu) == 0

    def test_loops_on_a_gpu_must_not_depend_on_values(self) -> None:
        assert graphs.serve(torch.device("cuda"))


CONFIGS: dict[str, dict[str, Any]] = {
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
    "authors": {"preset": "authors"},
    "no-input-attention": {"input_attention": False, "active_units": 5},
}


def build(**settings: Any) -> RIM:
    torch.manual_seed(0)
    sizes = {"num_units": 5, "active_units": 3, "unit_size": 11, "communication_heads": 2}
    return RIM(INPUT_SIZE, RIMConfig.from_settings(**{**sizes, **settings})).double()


def sequence(core: RIM, seed: int, slots: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return other inputs, states and episode starts for every seed."""
    torch.manual_seed(seed)
    middle = () if slots is None else (slots,)
    inputs = torch.randn(LENGTH, BATCH, *middle, INPUT_SIZE, dtype=torch.float64)
    return inputs, torch.randn(BATCH, core.state_size, dtype=torch.float64).tanh(), torch.rand(LENGTH, BATCH) < 0.3


def loss_of(core: RIM, seed: int, slots: int | None = None) -> Tensor:
    outputs, last = core(*sequence(core, seed, slots))
    return outputs.square().sum() + last.sin().sum()


def gradients(core: RIM, loss: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, list(core.parameters()))]


def assert_all_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, two in zip(found, expected, strict=True):
        assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.fixture(autouse=True)
def _unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loops.SWITCH, "unrolled")


@pytest.fixture(params=[rerun, tape])
def recordings(request: pytest.FixtureRequest) -> Iterator[Recordings]:
    kept = Recordings(request.param)
    with graphs.recorded_by(kept):
        yield kept


class TestTheRIMsLoop:
    @pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
    @pytest.mark.parametrize("slots", [None, SLOTS])
    def test_replayed_on_other_inputs_and_resets_is_the_plain_one(
        self, recordings: Recordings, slots: int | None, settings: dict[str, Any]
    ) -> None:
        core = build(**settings)
        replayed = [gradients(core, loss_of(core, seed, slots)) for seed in range(4)]
        assert len(recordings) == 2  # forward and backward
        with graphs.recorded_by(Recordings(rerun)):  # the first call of its kind is plain
            plain = gradients(core, loss_of(core, 3, slots))
        assert_all_close(replayed[3], plain)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_several_forward_passes_may_come_before_their_backward_passes(
        self, recordings: Recordings, cell: str
    ) -> None:
        core = build(cell=cell)
        one_by_one = [gradients(core, loss_of(core, seed)) for seed in range(4)]
        losses = [loss_of(core, seed) for seed in range(4)]
        for seed in (2, 0, 3, 1):
            assert_all_close(gradients(core, losses[seed]), one_by_one[seed])
        assert len(recordings) == 2

    def test_a_backward_pass_can_be_done_again(self, recordings: Recordings) -> None:
        core = build()
        losses = [loss_of(core, seed) for seed in range(3)]
        first = torch.autograd.grad(losses[1], list(core.parameters()), retain_graph=True)
        torch.autograd.grad(losses[2], list(core.parameters()))
        assert_all_close(list(torch.autograd.grad(losses[1], list(core.parameters()))), list(first))
        assert len(recordings) == 2

    def test_sees_weights_that_were_updated_in_place(self, recordings: Recordings) -> None:
        core, twin = build(), build()
        with torch.no_grad():
            for weight in twin.parameters():
                weight.mul_(1.25)
        for seed in range(3):
            loss_of(core, seed).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in core.parameters():
                weight.mul_(1.25)
        assert_all_close(gradients(core, loss_of(core, 3)), gradients(twin, loss_of(twin, 3)))
        assert len(recordings) == 2

    def test_serves_another_core_of_the_same_settings_by_its_own_weights(self, recordings: Recordings) -> None:
        core, other = build(), build()
        with torch.no_grad():
            other.from_state.mul_(1.25)
        plain = loss_of(other, 0)
        for seed in range(3):
            loss_of(core, seed)
        assert_all_close([loss_of(other, 0)], [plain])
        assert len(recordings) == 1

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_without_gradient_is_a_recording_of_its_own(self, recordings: Recordings, cell: str) -> None:
        core = build(cell=cell)
        for seed in range(3):
            with torch.no_grad():
                silent = loss_of(core, seed)
            assert_close(loss_of(core, seed).detach(), silent, rtol=1e-12, atol=1e-12)
        assert len(recordings) == 2

    def test_no_operation_asks_for_a_value(self) -> None:
        tapes: list[Tape] = []

        def noted(function: Function, arguments: Arguments) -> Recording:
            tapes.append(Tape())
            with tapes[-1]:
                return rerun(function, arguments)

        core = build(preset="authors", cell="lstm")
        with graphs.recorded_by(Recordings(noted)):
            for seed in range(2):
                loss_of(core, seed, SLOTS).backward()  # type: ignore[no-untyped-call]
        names = {str(func) for recorded in tapes for func, *_ in recorded.calls}
        assert len(tapes) == 2
        assert "aten.bmm.out" in names
        assert not {name for name in names if "scalar_dense" in name or "nonzero" in name or "equal" in name}
