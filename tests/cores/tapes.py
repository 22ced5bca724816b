"""Stand-ins for a GPU's graph: a recorder that runs the function again, and one that replays its operations."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rims_rl.cores.graphs import Arguments, Function, Recording


def rerun(function: Function, arguments: Arguments) -> Recording:
    """Stand in for a graph by running the function again on the same memory."""
    results = tuple(result.clone() for result in function(*arguments))

    def replay() -> None:
        for result, new in zip(results, function(*arguments), strict=True):
            result.copy_(new)

    return Recording(arguments, results, replay)


class Tape(TorchDispatchMode):
    """Every operation on tensors, with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Do the operations again, into the memory that they wrote to before."""
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(result: Any) -> list[Tensor]:
    parts = result if isinstance(result, (tuple, list)) else [result]
    return [part for part in parts if isinstance(part, Tensor)]


def tape(function: Function, arguments: Arguments) -> Recording:
    """Stand in for a graph by replaying the operations alone."""
    recorded = Tape()
    with recorded:
        results = function(*arguments)
    return Recording(arguments, results, recorded.replay)
