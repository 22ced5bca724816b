"""CUDA graphs for loops of many small operations: a loop is recorded once per shape, then replayed as one launch.

A recording works on tensors of its own: a call copies its arguments into them, replays, and copies the results out. So
weights may be updated in place or replaced, and many forward passes may run before the first backward pass: nothing
that a caller holds is ever overwritten. The copies cost one pass over the memory, which the launches saved outweigh.
Before it is used, a recording is replayed once and compared with the function.

A function is recorded when its name and the shapes of its arguments come a second time, so that shapes that never come
back cost nothing. The recordings used last are kept; where recording fails, which is said once, functions are called
plainly.

This module has not been run or measured on a GPU yet: it is tested with a recorder that runs the function again.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Arguments = tuple[Tensor | None, ...]
Results = tuple[Tensor, ...]
Function = Callable[..., Results]
T = TypeVar("T")
MOST_RECORDINGS = 16
"""How many recordings are kept; each holds the memory of its arguments, results and what lies between."""
_REMEMBERED = 16
"""For every recording kept, how many keys are remembered as seen."""
_WARM_UPS = 3


class Recording(NamedTuple):
    """A function recorded on tensors of its own."""

    arguments: Arguments
    """Copied into before a replay."""
    results: Results
    """Written by a replay."""
    replay: Callable[[], None]
    """Do it again."""


Recorder = Callable[[Function, Arguments], Recording]
"""Records a function on the given tensors, which are the recording's own."""


def record_on_gpu(function: Function, arguments: Arguments) -> Recording:
    """Capture a function of CUDA tensors as a graph, after some runs on a side stream that let libraries set up."""
    device = next(tensor.device for tensor in arguments if tensor is not None)
    with torch.cuda.device(device):
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(*arguments)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the GPU meanwhile.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            results = function(*arguments)

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return Recording(arguments, results, replay)


class Recordings:
    """The recordings used last, by the function's name and its arguments' shapes."""

    def __init__(self, recorder: Recorder, most: int = MOST_RECORDINGS) -> None:
        self.recorder, self.most = recorder, most
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._kept: OrderedDict[Hashable, Recording] = OrderedDict()
        self._failed = False
        self._lock = threading.Lock()
        """Held while a recording's own tensors are in use, which callers in several threads share."""

    def __len__(self) -> int:
        return len(self._kept)

    def call(self, name: Hashable, function: Function, arguments: Arguments) -> Results:
        """Return what `function(*arguments)` returns, which depends on nothing but the arguments' values and `name`."""
        if self._failed:
            return function(*arguments)
        key = (name, torch.is_inference_mode_enabled(), *map(_kind, arguments))
        with self._lock:
            recording = self._recording(key, function, arguments)
            if recording is not None:
                return _replayed(recording, arguments)
        return function(*arguments)

    def _recording(self, key: Hashable, function: Function, arguments: Arguments) -> Recording | None:
        """Look up a recording; one is made at the second call."""
        recording = self._kept.get(key)
        if recording is None and key in self._seen:
            recording = self._record(function, arguments)
        _use(self._seen, key, None, _REMEMBERED * self.most)
        if recording is not None:
            _use(self._kept, key, recording, self.most)
        return recording

    def _record(self, function: Function, arguments: Arguments) -> Recording | None:
        own = tuple(None if tensor is None else tensor.detach().clone() for tensor in arguments)
        try:
            return _checked(self.recorder(function, own), function(*arguments))
        except RuntimeError as error:
            self._failed = True
            reason = " ".join(str(error).split())[:300]
            logging.getLogger("rims_rl").warning("loops run without CUDA graphs, slower: %s", reason)
            return None


def _use(table: OrderedDict[Hashable, T], key: Hashable, value: T, most: int) -> None:
    """Put an entry last, and drop the first ones beyond `most`."""
    table[key] = value
    table.move_to_end(key)
    while len(table) > most:
        table.popitem(last=False)


def _checked(recording: Recording, expected: Results) -> Recording:
    """Return a recording that, replayed, gives what the function gives; RuntimeError for one that does not."""
    recording.replay()
    for result, right in zip(recording.results, expected, strict=True):
        if not torch.allclose(result, right, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise RuntimeError("a recording does not give what its function gives")
    return recording


def _kind(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)


def _replayed(recording: Recording, arguments: Arguments) -> Results:
    own = [tensor for tensor in recording.arguments if tensor is not None]
    torch._foreach_copy_(own, [tensor.detach() for tensor in arguments if tensor is not None])
    recording.replay()
    return tuple(result.clone() for result in recording.results)


_on_gpu = Recordings(record_on_gpu)
_everywhere: Recordings | None = None


@contextmanager
def recorded_by(recordings: Recordings) -> Iterator[None]:
    """Inside this context use these recordings, on every device: for tests of what is recorded, without a GPU."""
    global _everywhere
    before, _everywhere = _everywhere, recordings
    try:
        yield
    finally:
        _everywhere = before


def serve(device: torch.device) -> bool:
    """Whether calls on this device may be recorded: then no operation may depend on values."""
    return _everywhere is not None or device.type == "cuda"


def call(name: Hashable, function: Function, arguments: Arguments) -> Results:
    """Return what `function(*arguments)` returns, replayed where calls on the arguments' device are recorded."""
    recordings = _everywhere
    if recordings is None and any(tensor is not None and tensor.is_cuda for tensor in arguments):
        recordings = _on_gpu
    return function(*arguments) if recordings is None else recordings.call(name, function, arguments)
