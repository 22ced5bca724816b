"""The RIM's time loops, fastest first, and the switch by which tests and benchmarks start further down.

`compiled` is the loop in C (`native.py`), for processors with a compiler; `fused` is that of Triton's kernels, for GPUs
(`unrolled/fused.py`); `unrolled` is written out by hand in PyTorch's operations (`unrolled`), and serves everywhere;
`eager` is the plain one under autograd (`RIM._run`), which alone can trace and be differentiated twice. The environment
variable RIMS_RL_LOOP names the first one to be tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rims_rl.errors import ConfigError, UnknownNameError

LOOPS = ("compiled", "fused", "unrolled", "eager")
SWITCH = "RIMS_RL_LOOP"


def allowed(loop: str) -> bool:
    """Whether a loop of LOOPS may be used: whether it is the first one to be tried, or comes after it.

    Raises:
        UnknownNameError: RIMS_RL_LOOP names no loop.
    """
    first = os.environ.get(SWITCH, LOOPS[0])
    if first not in LOOPS:
        raise UnknownNameError(f"loop in {SWITCH}", first, LOOPS)
    return LOOPS.index(loop) >= LOOPS.index(first)


def refuse_second_derivatives() -> None:
    """Raise ConfigError in a backward pass that shall be differentiated itself; to be called by one that can't be.

    PyTorch's own `once_differentiable` lets it pass where the loss is a plain sum, and gives wrong numbers.
    """
    if torch.is_grad_enabled():
        raise ConfigError(f"this loop has no second derivative (create_graph=True): set {SWITCH}=eager for one")


@contextmanager
def starting_at(loop: str) -> Iterator[None]:
    """Inside this context use `loop` or, where it does not serve, one further down."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = loop
    try:
        allowed(LOOPS[-1])
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
