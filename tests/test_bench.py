"""The benchmark measures what it says, in turns; never how long anything takes."""

from __future__ import annotations

import json

import pytest
import torch

from rims_rl import RIM, RIMConfig, bench
from rims_rl.cli import main
from rims_rl.cores import native


class TestTurns:
    def test_works_take_turns_and_the_first_rounds_do_not_count(self):
        done = []
        rounds = bench.interleaved([lambda: done.append("a"), lambda: done.append("b")], repeats=3)
        assert [len(one) for one in rounds] == [2, 2, 2]
        assert done[:4] == ["a", "b", "a", "b"]
        assert done.count("a") == done.count("b")

    def test_a_turn_with_gradient_reaches_every_weight_and_one_without_reaches_none(self):
        core = RIM(7, RIMConfig(num_units=3, active_units=2, unit_size=5))
        bench.core_work(core, bench.Shape(3, 2, gradient=False))()
        assert all(parameter.grad is None for parameter in core.parameters())
        bench.core_work(core, bench.Shape(3, 2))()
        assert all(parameter.grad is not None for parameter in core.parameters())

    def test_the_loop_without_a_compiler_is_measured_as_such(self, monkeypatch):
        core = RIM(7, RIMConfig(num_units=3, active_units=2, unit_size=5))
        seen = []
        monkeypatch.setattr(core, "forward", lambda *_: (seen.append(native.available(torch.float32)), torch.ones(1)))
        bench.eager_work(core, bench.Shape(3, 2, gradient=False))()
        assert seen == [False]


class TestCommand:
    def test_it_prints_ratios_and_writes_them(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(bench, "SHAPES", (bench.Shape(2, 3), bench.Shape(1, 2, gradient=False)))
        monkeypatch.setattr(bench, "GROWTH", {"T": [bench.Shape(2, 1)], "B": [bench.Shape(2, 1)]})
        assert main(["bench", "core", "--repeats", "1", "--json", str(tmp_path / "core.json")]) == 0
        written = json.loads((tmp_path / "core.json").read_text())
        assert {(row["ours"], row["peer"]) for row in written["rows"]} >= {("RIM, gru units", "nn.GRU")}
        for row in written["rows"]:
            assert row["ratio"] == pytest.approx(row["ours_ms"] / row["peer_ms"])  # one turn: no medians apart
        assert "ratio" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("option", "value", "reason"),
        [("--repeats", "0", "at least 1"), ("--torch-threads", "-1", "at least 0"), ("--json", "no/x", "no folder")],
    )
    def test_what_cannot_work_is_one_line(self, option, value, reason, capsys):
        assert main(["bench", "core", option, value]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
