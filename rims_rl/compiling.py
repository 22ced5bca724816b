"""C code that the machine's own compiler makes at the first use, and that is kept.

Whoever uses it must do without, too: there may be no compiler, or one that fails.
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
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_FLAGS = ("-O3", "-march=native", "-fPIC", "-shared")


def load_compiled(main: Path, flags: Sequence[str], otherwise: str) -> ctypes.CDLL | None:
    """Return a compiled file as a library; None, with a line in the log, when it cannot be had.

    Args:
        main: the C file; a change in any other C file of its folder makes another library, too.
        flags: of the compiler, beside those for a fast shared library of this processor.
        otherwise: what happens without it, for the log: "the RIM runs without its compiled loop, slower".
    """
    try:
        return ctypes.CDLL(str(compiled(main, flags)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(getattr(error, "stderr", None) or error).split())[:300]
        logging.getLogger("rims_rl").warning("%s: %s", otherwise, reason)
        return None


def compiled(main: Path, flags: Sequence[str]) -> Path:
    """Return the path of the compiled library, which is made when it is not in the cache yet.

    Raises:
        OSError: without a compiler, or when the disk refuses.
        subprocess.SubprocessError: when the compiler fails.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("no C compiler (cc, gcc or clang) was found")
    command = [*shlex.split(compiler), *_FLAGS, *flags]  # CC may be several words, such as "ccache gcc"
    text = sources(main.parent) + " ".join([*command, main.name, platform.machine(), _processor()]).encode()
    target = cache_folder() / f"{main.stem}-{hashlib.sha256(text).hexdigest()[:20]}.so"
    if not target.exists():
        _compile(command, main, target)
    return target


def sources(folder: Path) -> bytes:
    """Return the text of all C files in a folder."""
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(folder.glob("*.[ch]")))


def _compile(command: list[str], main: Path, target: Path) -> None:
    """Compile beside the target and move it into place, so that no other process ever loads half a library."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        arguments = [*command, str(main), "-o", str(made), "-lm"]
        subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=120)
        os.replace(made, target)


def cache_folder() -> Path:
    """Return a folder of this user's for compiled code: XDG's cache, or a private temporary one when that is closed."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rims_rl"
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(base, os.W_OK):
            return base
    except (OSError, RuntimeError):  # RuntimeError: nobody knows this user's home
        pass
    return _private_folder()


@cache
def _private_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="rims_rl-"))


def _processor() -> str:
    """Return what tells this processor from others, because the code is compiled for it alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor()
