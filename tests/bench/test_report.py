"""A result is kept with all that it depends on."""

from __future__ import annotations

import json

import torch

from rims_rl.bench import report
from rims_rl.bench.config import CoreBenchConfig
from rims_rl.bench.report import describe_machine, machine, print_report, processor_name, progress, write_report
from rims_rl.bench.results import CoreResult, Growth
from rims_rl.runs import versions

RESULT = CoreResult([], {"T": [Growth(3, 5.0, 7.0)]})


class TestFile:
    def test_it_holds_command_machine_versions_settings_and_numbers(self, tmp_path, monkeypatch):
        monkeypatch.setattr(report.sys, "argv", ["/somewhere/rims-rl", "bench", "core", "--cores", "a b"])
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
    def test_its_threads_are_those_in_use(self):
        assert machine()["torch_threads"] == torch.get_num_threads()
        assert machine()["cores"] >= 1

    def test_the_processor_has_its_maker_s_name_or_that_of_its_architecture(self, monkeypatch, tmp_path):
        cpuinfo = tmp_path / "cpuinfo"
        monkeypatch.setattr(report, "Path", lambda _: cpuinfo)
        cpuinfo.write_text("flags : a b\nmodel name\t: Some Processor 7\nmodel name\t: Some Processor 7\n")
        assert processor_name() == "Some Processor 7"
        cpuinfo.write_text("Hardware : unknown\n")
        monkeypatch.setattr(report.platform, "processor", lambda: "")
        monkeypatch.setattr(report.platform, "machine", lambda: "aarch64")
        assert processor_name() == "aarch64"

    def test_it_stands_under_the_tables(self, capsys):
        print_report(RESULT)
        assert " ".join(capsys.readouterr().out.split()).endswith(describe_machine())


def test_progress_leaves_nothing_where_output_is_no_terminal(capsys):
    with progress() as say:
        say("measuring")
    assert capsys.readouterr().out == ""
