"""`rims-rl bench`: its help, its refusals in one line, and one whole run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from functools import partial

import pytest

from rims_rl import bench
from rims_rl.bench import core, turns
from rims_rl.bench.config import BENCHMARKS
from rims_rl.bench.measure import interleaved
from rims_rl.bench.turns import Shape
from rims_rl.cli import main


class TestHelp:
    @pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
    def test_bench_alone_says_what_there_is(self, arguments, capsys):
        assert main(["bench", *arguments]) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {what} " in shown for what in BENCHMARKS)
        assert max(len(line) for line in shown.splitlines()) <= 100

    @pytest.mark.parametrize("what", BENCHMARKS)
    def test_every_option_is_explained(self, what, capsys):
        assert main(["bench", what, "--help"]) == 0
        shown = capsys.readouterr().out
        for entry in fields(BENCHMARKS[what]):
            assert f"--{entry.name.replace('_', '-')}" in shown

    def test_help_needs_neither_torch_nor_the_rest(self):
        heavy = "{'torch', 'stable_baselines3', 'gymnasium', 'ale_py'}"
        code = (
            "import sys; from rims_rl.cli import main; [main(['bench', *more]) for more in ([], ['env', '--help'])]; "
        )
        code += f"sys.exit(len({heavy} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["cores"], "unknown benchmark 'cores'; did you mean 'core'"),
            (["--repeats", "3"], "bench needs to know what to measure before --repeats: core, train, env"),
            (["core", "--repeat", "3"], "did you mean '--repeats'"),
            (["core", "--repeats", "0"], "--repeats must be at least 1, got 0"),
            (["core", "--torch-threads", "-1"], "--torch-threads must be at least 0, got -1"),
            (["core", "--json", "no/x"], "--json no/x: there is no folder no"),
            (["core", "--cores", "rim", "lstn"], "unknown core 'lstn'; did you mean 'lstm'"),
            (["core", "--device", "cud"], "device 'cud' cannot be used"),
            (["train", "--device", "auto"], "--device must name what is measured"),
            (["train", "--env", "pongg"], "did you mean 'pong'"),
            (["train", "--env", "CartPole-v1"], "unknown Atari game 'CartPole-v1'"),
            (["train", "--batch-size", "100"], "batch_size=100"),
            (["train", "--n-epochs", "0"], "n_epochs must be at least 1"),
            (["env", "--n-envs", "0", "8"], "--n-envs must be at least 1, got 0"),
            (["env", "--n-envs"], "--n-envs"),
            (["env", "--n-steps", "7"], "--n-steps must be at least --n-envs, got 7 and 64"),
            (["env", "--env", "joust"], "no single-player version"),
            (["env", "--distractor", "ballz:0.5"], "unknown kind of distractor 'ballz'; did you mean 'balls'?"),
            (["env", "--distractor", "balls:7"], "intensity must be from 0 to 1, got 7.0"),
            (["env", "--distractor", "background:0.5:folder=nowhere"], "there is no folder nowhere"),
        ],
    )
    def test_it_is_one_line_and_nothing_is_measured(self, arguments, reason, capsys, monkeypatch):
        monkeypatch.setattr(bench, "_measured", lambda *_: pytest.fail("measured"))
        assert main(["bench", *arguments]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("rims-rl: ")
        assert shown.err.count("\n") == 1
        assert reason in shown.err


class TestRun:
    def test_it_prints_ratios_and_writes_them(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(turns, "INPUT_SIZE", 7)
        monkeypatch.setattr(core, "interleaved", partial(interleaved, warm_ups=1, grain=0.0))
        for name in ("SHAPES", "WITHOUT_COMPILER"):
            monkeypatch.setattr(core, name, (Shape(2, 3), Shape(1, 2, gradient=False)))
        for name in ("VARIANT_SHAPE", "REFERENCE_SHAPE", "STEP_SHAPE"):
            monkeypatch.setattr(core, name, Shape(2, 1))
        monkeypatch.setattr(core, "UNITS", (3,))
        monkeypatch.setattr(core, "GROWTH", {"T": [Shape(2, 1)]})
        file = tmp_path / "core.json"
        arguments = ["bench", "core", "--repeats", "1", "--no-memory", "--cores", "lstm", "--json", str(file)]
        assert main(arguments) == 0
        written, shown = json.loads(file.read_text()), capsys.readouterr().out
        assert {(row["ours"], row["peer"]) for row in written["rows"]} >= {("RIM (GRU)", "nn.GRU")}
        for row in written["rows"]:
            assert row["ratio"] == pytest.approx(row["ours_ms"] / row["peer_ms"])  # one turn: no medians apart
            assert f"{row['ratio']:.2f}" in shown or f"{row['ratio']:.3f}" in shown
        assert [row["core"] for row in written["cores"]] == ["lstm"]
