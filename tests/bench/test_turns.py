"""A turn does what it says."""

from __future__ import annotations

import pickle

import pytest
import torch

from rims_rl import RIM, RIMConfig
from rims_rl.bench import turns
from rims_rl.bench.turns import CoreTurn, Shape, TorchTurn, core_work
from rims_rl.cores import loops

SETTINGS = (("num_units", 3), ("active_units", 2), ("unit_size", 5), ("cell", "lstm"))


@pytest.fixture
def core(monkeypatch) -> RIM:
    monkeypatch.setattr(turns, "INPUT_SIZE", 7)
    return RIM(7, RIMConfig(**dict(SETTINGS)))


class TestTurns:
    def test_a_turn_with_gradient_reaches_every_weight_and_one_without_reaches_none(self, core):
        core_work(core, Shape(3, 2, gradient=False))()
        assert all(parameter.grad is None for parameter in core.parameters())
        core_work(core, Shape(3, 2))()
        assert all(parameter.grad is not None for parameter in core.parameters())

    def test_a_turn_without_gradient_keeps_no_graph(self, core, monkeypatch):
        seen, forward = [], core.forward
        monkeypatch.setattr(core, "forward", lambda *read: _noted(forward(*read), seen))
        core_work(core, Shape(3, 2, gradient=False))()
        core_work(core, Shape(3, 2))()
        assert [outputs.requires_grad for outputs in seen] == [False, True]

    @pytest.mark.parametrize("loop", ["compiled", "unrolled", "eager"])
    def test_the_loop_that_is_named_is_the_first_one_tried_during_the_turn_alone(self, core, monkeypatch, loop):
        seen, forward = [], core.forward
        monkeypatch.setattr(core, "forward", lambda *read: _noted(forward(*read), seen, _first_allowed()))
        turn = core_work(core, Shape(3, 2), loop)
        turn()
        core_work(core, Shape(3, 2))()
        assert seen == [loop, _first_allowed()]

    def test_on_a_gpu_a_turn_ends_when_its_work_is_done(self, monkeypatch):
        done = []
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(f"waited for {device}"))
        turns._turn(lambda: (done.append("asked"), torch.ones(1))[1], False, "cuda:1")()
        turns._turn(lambda: (done.append("asked"), torch.ones(1))[1], False, "cpu")()
        assert done == ["asked", "waited for cuda:1", "asked"]

    def test_the_reference_is_the_one_written_like_the_paper(self, core, monkeypatch):
        called = []
        reference = turns.reference_rim
        monkeypatch.setattr(turns, "reference_rim", lambda *read: (called.append(read[0]), reference(*read))[1])
        core_work(core, Shape(3, 2), "reference")()
        assert called == [core]

    def test_resets_lie_within_the_sequences_each_at_steps_of_its_own(self):
        starts = Shape(128, 8, resets=True).starts("cpu")
        assert starts is not None
        assert starts.shape == (128, 8)
        assert not starts[0].any()
        assert set(starts.sum(0).tolist()) == {3, 4}
        assert (starts.sum(1) <= 1).all()

    def test_inputs_may_be_slots(self):
        assert Shape(5, 3, slots=11).inputs("cpu").shape == (5, 3, 11, turns.INPUT_SIZE)


class TestRecipes:
    @pytest.mark.parametrize(
        "recipe",
        [CoreTurn("rim", Shape(3, 2), SETTINGS), TorchTurn("GRU", Shape(3, 2), width=11)],
        ids=["core", "torch"],
    )
    def test_they_travel_to_another_process_and_are_the_same_there(self, recipe):
        copy = pickle.loads(pickle.dumps(recipe))
        assert (copy, hash(copy)) == (recipe, hash(recipe))
        copy()()

    def test_settings_reach_the_core(self):
        core = CoreTurn("rim", Shape(3, 2), SETTINGS).build()
        assert (core.output_size, core.config.cell) == (15, "lstm")


def _first_allowed() -> str:
    return next(loop for loop in loops.LOOPS if loops.allowed(loop))


def _noted(result, seen, note=None):
    seen.append(result[0] if note is None else note)
    return result
