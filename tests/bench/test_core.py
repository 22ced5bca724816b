"""Which memories are compared, and what a row says."""

from __future__ import annotations

from functools import partial

import pytest

from rims_rl.bench import core, turns
from rims_rl.bench.config import CoreBenchConfig
from rims_rl.bench.core import comparisons, default_settings, measure_cores
from rims_rl.bench.measure import interleaved
from rims_rl.bench.turns import CoreTurn, Shape
from rims_rl.cores import core_names, make_core

LOOPS = {"no compiler": "unrolled", "plain autograd": "eager"}


@pytest.fixture
def small(monkeypatch) -> None:
    """Make every shape, and the input, small."""
    tiny, step = Shape(3, 2), Shape(1, 2, gradient=False)
    monkeypatch.setattr(turns, "INPUT_SIZE", 7)
    monkeypatch.setattr(core, "interleaved", partial(interleaved, warm_ups=1, grain=0.0))
    monkeypatch.setattr(core, "SHAPES", (tiny, step))
    monkeypatch.setattr(core, "WITHOUT_COMPILER", (tiny,))
    monkeypatch.setattr(core, "VARIANT_SHAPE", tiny)
    monkeypatch.setattr(core, "REFERENCE_SHAPE", Shape(1, 1))
    monkeypatch.setattr(core, "STEP_SHAPE", step)
    monkeypatch.setattr(core, "UNITS", (3,))
    monkeypatch.setattr(core, "GROWTH", {"T": [Shape(2, 1), Shape(3, 1)], "slots": [Shape(2, 1, slots=5)]})


class TestWhatIsCompared:
    def test_both_kinds_of_units_meet_torch_s_networks_at_every_shape_that_is_promised(self):
        found = {
            (comparison.ours.name, peer.name, comparison.shape.steps, comparison.shape.batch, comparison.shape.gradient)
            for comparison in comparisons()
            for peer in comparison.peers
        }
        for ours, peer in (("RIM (LSTM)", "nn.LSTM"), ("RIM (GRU)", "nn.LSTM"), ("RIM (GRU)", "nn.GRU")):
            for steps, batch in ((128, 8), (128, 2), (32, 8), (128, 64)):
                assert (ours, peer, steps, batch, True) in found
            assert (ours, peer, 1, 8, False) in found
        for ours in ("RIM (LSTM)", "RIM (GRU)"):
            assert {(f"{ours}, no compiler", "nn.LSTM", 128, batch, True) for batch in (8, 2)} <= found
            assert (f"{ours}, plain autograd", "nn.LSTM", 128, 8, True) in found
            assert (f"{ours}, resets", "without resets", 128, 8, True) in found
            assert (f"{ours}, preset authors", "nn.LSTM", 128, 8, True) in found
            assert any(row[:2] == (ours, "slow reference") for row in found)

    def test_each_name_is_what_is_measured(self):
        for comparison in comparisons():
            turn = comparison.ours.recipe
            assert isinstance(turn, CoreTurn)
            name, settings = comparison.ours.name, dict(turn.settings)
            assert name.startswith(f"RIM ({settings['cell'].upper()})")
            assert turn.loop == LOOPS.get(name.partition(", ")[2], "fastest")
            assert turn.shape.resets == ("resets" in name)
            assert (settings.get("preset") == "authors") == ("authors" in name)
            assert (turn.shape.steps, turn.shape.batch) == (comparison.shape.steps, comparison.shape.batch)

    def test_a_gpu_does_without_other_things_than_a_processor(self):
        names = {comparison.ours.name for comparison in comparisons("cuda")}
        assert {"RIM (LSTM), no fused kernels", "RIM (GRU), no fused kernels"} <= names
        assert not any("compiler" in name for name in names)

    def test_all_of_one_comparison_read_the_same_shape_but_for_resets(self):
        for comparison in comparisons():
            for peer in comparison.peers:
                shape = peer.recipe.shape
                assert (shape.steps, shape.batch) == (comparison.shape.steps, comparison.shape.batch)
                assert shape.gradient == comparison.shape.gradient
                assert not shape.resets

    def test_the_rim_is_as_wide_as_its_peers(self):
        assert make_core("rim", 7).output_size == turns.WIDTH


@pytest.mark.usefixtures("small")
class TestResult:
    def test_a_row_s_ratio_is_that_of_its_times_when_there_is_one_turn(self):
        result = measure_cores(CoreBenchConfig(repeats=1, memory=False), lambda _: None)
        for row in result.rows:
            assert row.ratio == pytest.approx(row.ours_ms / row.peer_ms)
            assert (row.ours_mib, row.peer_mib) == (None, None)
        assert {name: [point.size for point in points] for name, points in result.growth.items()} == {
            "T": [2, 3],
            "slots": [5],
            "units": [3],
        }
        assert result.cores == []

    def test_memory_is_asked_for_by_what_is_measured(self, monkeypatch):
        monkeypatch.setattr(core, "peak_memory", lambda recipe, turns: 100.0 * turns + recipe.shape.steps)
        result = measure_cores(CoreBenchConfig(repeats=1), lambda _: None)
        assert {(row.ours_mib, row.peer_mib) for row in result.rows} == {(203.0, 203.0), (201.0, 201.0)}
        assert [point.mib for point in result.growth["T"]] == [202.0, 203.0]


class TestEveryCore:
    @pytest.mark.usefixtures("small")
    def test_all_leaves_none_out(self, monkeypatch):
        monkeypatch.setattr(core, "comparisons", lambda device: iter(()))
        monkeypatch.setattr(core, "GROWTH", {})
        result = measure_cores(CoreBenchConfig(repeats=1, memory=False, cores=("all",)), lambda _: None)
        assert [row.core for row in result.cores] == core_names()
        for row in result.cores:
            built = make_core(row.core, 7, **dict(default_settings(row.core)))
            assert row.parameters == sum(parameter.numel() for parameter in built.parameters())
            assert (row.output_size, row.state_size) == (built.output_size, built.state_size)

    def test_only_what_is_a_size_of_the_output_is_set(self):
        assert default_settings("lstm") == ()
        assert default_settings("ntm") == (("output_size", 512),)
        assert make_core("ntm", 7, **dict(default_settings("ntm"))).output_size == 512
