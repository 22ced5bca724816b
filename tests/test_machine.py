"""A number stands beside the machine that it was measured on."""

from __future__ import annotations

import torch

import rims_rl.machine
from rims_rl.machine import machine, processor_name


def test_its_threads_are_those_in_use():
    assert machine()["torch_threads"] == torch.get_num_threads()
    assert machine()["cores"] >= 1


def test_the_processor_has_its_maker_s_name_or_that_of_its_architecture(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(rims_rl.machine, "Path", lambda _: cpuinfo)
    cpuinfo.write_text("flags : a b\nmodel name\t: Some Processor 7\nmodel name\t: Some Processor 7\n")
    assert processor_name() == "Some Processor 7"
    cpuinfo.write_text("Hardware : unknown\n")
    monkeypatch.setattr(rims_rl.machine.platform, "processor", lambda: "")
    monkeypatch.setattr(rims_rl.machine.platform, "machine", lambda: "aarch64")
    assert processor_name() == "aarch64"
