"""The last steps from frames to observations in C (`csrc/screen.c`): compiled once by the machine's own compiler.

Where there is no compiler, or it fails, OpenCV serves instead, with the same pixels, and the log says so once.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rims_rl.cores.native_build import _cache_folder, _processor

SOURCE = Path(__file__).with_name("csrc") / "screen.c"
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fPIC", "-shared")  # see screen.c on contraction
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
    try:
        found = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(getattr(error, "stderr", None) or error).split())[:300]
        logging.getLogger("rims_rl").warning("altered Atari screens are shrunk without compiled code: %s", reason)
        return None
    found.push.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int] * 3
    found.push.restype = None
    return found


def _compiled() -> Path:
    """Return the path of the compiled library, which is made when it is not in the cache yet."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("no C compiler (cc, gcc or clang) was found")
    command = [*shlex.split(compiler), *_FLAGS]
    text = SOURCE.read_bytes() + " ".join([*command, platform.machine(), _processor()]).encode()
    target = _cache_folder() / f"screen-{hashlib.sha256(text).hexdigest()[:20]}.so"
    if not target.exists():
        _compile(command, target)
    return target


def _compile(command: list[str], target: Path) -> None:
    """Compile beside the target and move it into place, so that no other process ever loads half a library."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        arguments = [*command, str(SOURCE), "-o", str(made), "-lm"]
        subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=120)
        os.replace(made, target)


def _data(array: NDArray[np.uint8]) -> Any:
    """Return a pointer to an array's data; TypeError when they do not lie in C's order."""
    return ctypes.byref(ctypes.c_char.from_buffer(array.data))
