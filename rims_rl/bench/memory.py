"""Peak memory of one contender, measured in a fresh process of its own.

The figure is the most resident memory that the process had while the contender was built and took its turns, less what
it had before: after everything was imported and PyTorch's libraries had run once. Weights, inputs, kept activations,
gradients and buffers are in it, the interpreter and the libraries are not. Memory that is freed is given back to the
system at once, so that the figure is what is held together and not what the allocator keeps. Worker processes add their
proportional share (pages that several share are divided among them) at the end of the turns. On a GPU it is the
allocator's own peak.

The peak is the kernel's VmHWM and not `ru_maxrss`: the latter survives exec, so that a child of a large process looks
large whatever it does. Measured on Linux alone; elsewhere there is no figure.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import nn

from rims_rl.bench.measure import Recipe
from rims_rl.errors import RimsError

MIB = 2**20
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc maps and unmaps blocks from this size on, and does not raise the threshold by itself."""


@cache
def peak_memory(recipe: Recipe, turns: int = 1) -> float | None:
    """Return the peak memory of a contender's turns in MiB, or None where it can't be measured.

    Raises:
        RimsError: when the process died, as it does when the machine's memory is used up.
    """
    if not sys.platform.startswith("linux"):
        return None
    with _environment(_GIVE_BACK), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak_of, recipe, turns, torch.get_num_threads()).result()
        except BrokenProcessPool:
            raise RimsError(f"the process that measured the memory of {recipe} died; see --no-memory") from None


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables for processes that start inside this context."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _peak_of(recipe: Recipe, turns: int, threads: int) -> float | None:
    """Build and run in this process, which has done nothing else; return the peak in MiB."""
    torch.set_num_threads(threads)
    _load_libraries()
    gc.collect()
    before = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew from VmRSS
    except OSError:
        return None
    work = recipe()
    for _ in range(turns):
        work()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() / MIB
    return _resident("VmHWM") - before + _memory_of_workers()


def _load_libraries() -> None:
    """Run what makes PyTorch load its libraries: products, convolutions and torch's own LSTM, backwards too."""
    images, sequence = torch.ones(2, 3, 8, 8), torch.ones(3, 2, 5)
    loss = nn.Conv2d(3, 2, 3)(images).sum() + nn.LSTM(5, 3)(sequence)[0].sum() + nn.Linear(5, 2)(sequence).sum()
    loss.backward()


def _resident(name: str) -> float:
    """Return a line of this process's status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def _memory_of_workers() -> float:
    """Return the proportional share of the processes that this one started, in MiB."""
    rollups = [Path(f"/proc/{child.pid}/smaps_rollup") for child in multiprocessing.active_children()]
    lines = [line for rollup in rollups for line in rollup.read_text().splitlines()]
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
