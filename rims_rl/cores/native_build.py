"""The RIM's loop in C (`csrc/`): compiled once by the machine's own compiler and kept.

Where there is no compiler, or it fails, PyTorch serves instead, and the log says so once.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from rims_rl.compiling import load_compiled

MAIN = Path(__file__).with_name("csrc") / "loop.c"
REALS = {torch.float32: ("-DREAL=float", "-DREAL_IS_FLOAT"), torch.float64: ("-DREAL=double",)}


def available(dtype: torch.dtype) -> bool:
    """Whether the compiled loop can be used for tensors of this type."""
    return dtype in REALS and library(dtype) is not None


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled loop, or None, said once, when it cannot be had."""
    return load_compiled(MAIN, ("-pthread", *REALS[dtype]), "the RIM runs without its compiled loop, slower")


@cache
def team() -> int:
    """Return the address of the OpenMP function by which PyTorch's threads do a job; 0 where it is not to be found."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}
        return next(filter(None, map(_parallel, sorted(paths))), 0)
    except OSError:
        return 0


def _parallel(path: str) -> int:
    """Return the address of GOMP_parallel in a library that is loaded already; 0 where it has none."""
    function = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
    return ctypes.cast(function, ctypes.c_void_p).value or 0 if function is not None else 0
