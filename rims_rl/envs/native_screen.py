"""The last steps from frames to observations in C (`csrc/screen.c`): compiled once by the machine's own compiler.

Where there is no compiler, or it fails, OpenCV serves instead, with the same pixels, and the log says so once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rims_rl.compiling import load_compiled

MAIN = Path(__file__).with_name("csrc") / "screen.c"
_FLAGS = ("-ffp-contract=off",)  # see screen.c on contraction
_SIDES = range(85, 513)  # what screen.c can shrink

Push = Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]], None]


def native_push(height: int, width: int) -> Push | None:
    """Return what puts the maximum of two frames (H, W) at the end of a stack (S, 84, 84), or None without it.

    All three must be C-contiguous; the first frame keeps the maximum.
    """
    found = library() if height in _SIDES and width in _SIDES and (height % 84 or width % 84) else None
    if found is None:
        return None
    function = found.push

    def push(newest: NDArray[np.uint8], previous: NDArray[np.uint8], stack: NDArray[np.uint8]) -> None:
        function(_data(newest), _data(previous), _data(stack), height, width, len(stack))

    return push


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled code, or None, said once, when it cannot be had."""
    found = load_compiled(MAIN, _FLAGS, "altered Atari screens are shrunk without compiled code")
    if found is not None:
        found.push.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int] * 3
        found.push.restype = None
    return found


def _data(array: NDArray[np.uint8]) -> Any:
    """Return a pointer to an array's data; TypeError when they do not lie in C's order."""
    return ctypes.byref(ctypes.c_char.from_buffer(array.data))
