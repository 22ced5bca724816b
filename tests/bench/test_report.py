"""A result is kept with all that it depends on."""

from __future__ import annotations

import json
import sys

from rims_rl.bench.config import CoreBenchConfig
from rims_rl.bench.report import print_report, progress, write_report
from rims_rl.bench.results import CoreResult, Growth
from rims_rl.machine import describe_machine, machine
from rims_rl.versions import versions

RESULT = CoreResult([], {"T": [Growth(3, 5.0, 7.0)]})


class TestFile:
    def test_it_holds_command_machine_versions_settings_and_numbers(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["/somewhere/rims-rl", "bench", "core", "--cores", "a b"])
        file = tmp_path / "core.json"
        write_report(file, CoreBenchConfig(repeats=7, cores=("lstm",), json=file), RESULT)
        written = json.loads(file.read_text("utf-8"))
        assert written["command"] == "rims-rl bench core --cores 'a b'"
        assert written["versions"] == versions()
        assert written["machine"] == machine()
        assert (written["settings"]["repeats"], written["settings"]["cores"]) == (7, ["lstm"])
        assert written["growth"] == {"T": [{"size": 3, "ms": 5.0, "mib": 7.0}]}
        assert str(tmp_path) not in file.read_text("utf-8")


class TestMachine:
    def test_it_stands_under_the_tables(self, capsys):
        print_report(RESULT)
        assert " ".join(capsys.readouterr().out.split()).endswith(describe_machine())


def test_progress_leaves_nothing_where_output_is_no_terminal(capsys):
    with progress() as say:
        say("measuring")
    assert capsys.readouterr().out == ""
