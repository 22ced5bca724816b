"""Peak memory is what one contender needs, in a process that did nothing else."""

from __future__ import annotations

import sys

import pytest

from rims_rl.bench import memory
from rims_rl.bench.memory import peak_memory
from rims_rl.errors import RimsError
from tests.bench.recipes import Dies, HasWorker, Holds

linux = pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux alone")


@linux
class TestPeak:
    def test_what_is_built_and_what_a_turn_holds_add_up_once(self):
        large_here = bytearray(300 * memory.MIB)
        large_here[::4096] = b"x" * len(large_here[::4096])
        assert 59 <= peak_memory(Holds(37, 23), turns=3) < 65  # not 106: a turn's memory is freed; not 300: not ours

    def test_the_memory_of_worker_processes_is_added(self):
        assert 40 <= peak_memory(HasWorker(41)) < 120  # a bare interpreter and this module beside the 41

    def test_a_process_that_dies_is_one_line(self):
        with pytest.raises(RimsError, match=r"measured the memory of Dies\(\) died; see --no-memory"):
            peak_memory(Dies())

    def test_on_a_gpu_it_is_what_the_gpu_s_allocator_held(self, monkeypatch):
        monkeypatch.setattr(memory.torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(memory.torch.cuda, "max_memory_allocated", lambda: 7 * memory.MIB)
        assert memory._peak_of(Holds(1, 1), turns=1, threads=1) == 7.0

    def test_this_process_keeps_its_own_environment(self, monkeypatch):
        monkeypatch.setenv("ALREADY", "here")
        with memory._environment({"ALREADY": "changed", "NEW": "set"}):
            assert (memory.os.environ["ALREADY"], memory.os.environ["NEW"]) == ("changed", "set")
        assert (memory.os.environ["ALREADY"], memory.os.environ.get("NEW")) == ("here", None)


def test_elsewhere_there_is_no_figure(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert peak_memory.__wrapped__(Dies()) is None
