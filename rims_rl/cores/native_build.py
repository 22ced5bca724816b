"""The RIM's loop in C (`csrc/`): compiled once by the machine's own compiler and kept.

Where there is no compiler, or it fails, PyTorch serves instead, and the log says so once.
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
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).with_name("csrc")
_FLAGS = ("-O3", "-march=native", "-fPIC", "-shared", "-pthread")
_REALS = {torch.float32: ("-DREAL=float", "-DREAL_IS_FLOAT"), torch.float64: ("-DREAL=double",)}


def available(dtype: torch.dtype) -> bool:
    """Whether the compiled loop can be used for tensors of this type."""
    return dtype in _REALS and library(dtype) is not None


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled loop, or None, said once, when it cannot be had."""
    try:
        return ctypes.CDLL(str(_compiled(dtype)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(getattr(error, "stderr", None) or error).split())[:300]
        logging.getLogger("rims_rl").warning("the RIM runs without its compiled loop, slower: %s", reason)
        return None


def _compiled(dtype: torch.dtype) -> Path:
    """Return the path of the compiled library, which is made when it is not in the cache yet."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("no C compiler (cc, gcc or clang) was found")
    command = [*shlex.split(compiler), *_FLAGS, *_REALS[dtype]]  # CC may be several words, such as "ccache gcc"
    text = sources() + " ".join([*command, platform.machine(), _processor()]).encode()
    target = _cache_folder() / f"rim-{hashlib.sha256(text).hexdigest()[:20]}.so"
    if not target.exists():
        _compile(command, target)
    return target


def sources() -> bytes:
    """Return the text of all files that are compiled; a change in any of them makes another library."""
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]")))


def _compile(command: list[str], target: Path) -> None:
    """Compile beside the target and move it into place, so that no other process ever loads half a library."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        arguments = [*command, str(FOLDER / "loop.c"), "-o", str(made), "-lm"]
        subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=120)
        os.replace(made, target)


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


def _cache_folder() -> Path:
    """Return a folder of this user's for compiled code: XDG's cache, or a private temporary one when that is closed."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rims_rl"
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(base, os.W_OK):
            return base
    except (OSError, RuntimeError):  # RuntimeError: nobody knows this user's home
        pass
    return Path(tempfile.mkdtemp(prefix="rims_rl-"))


def _processor() -> str:
    """Return what tells this processor from others, because the code is compiled for it alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor()
