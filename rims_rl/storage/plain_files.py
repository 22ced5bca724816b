"""Reading and writing files in a folder that a stranger may have made.

Only plain files are opened: a pipe would be waited for, a device never ends. Nothing is read beyond an agreed size, and
nothing is written through a link, which could lead out of the folder.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rims_rl.errors import CheckpointError, ConfigError, printable, said

UNFINISHED = ".unfinished"
"""Ending of a file that is being written; no pattern that looks for checkpoints matches it."""
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe that nobody writes to would wait
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
WANDB_FOLDERS = ("wandb", ".wandb")
"""Folders whose file `settings` W&B obeys where it is started in the folder that holds them."""
_FOREIGN = frozenset({"wandb"})  # whose folder holds links of its own


def expanded(path: Path) -> Path:
    """Return a path with ~ replaced, once the system has answered what lies there.

    Raises:
        ConfigError: for a home of nobody, a name that is too long, a folder that may not be entered.
    """
    try:
        found = path.expanduser()
        found.exists()
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{_named(path)} cannot be used: {reason or said(error)}") from None
    return found


def check_target(option: str, path: Path) -> None:
    """Refuse, before hours of work go into it, a path that no file can be written at; creates nothing.

    Raises:
        ConfigError: for a folder, a folder that is missing, and one that may not be written to; `option` is its name.
    """
    target = expanded(path)
    folder = target.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{option} {_named(path)}: there is no folder {_named(path.parent)}")
    if target.is_dir():
        raise ConfigError(f"{option} {_named(path)}: that is a folder, not a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {_named(path)}: no permission to write into {_named(path.parent)}")


def only_plain(path: str, flags: int) -> int:
    """Open a plain file alone: `open(path, "rb", opener=only_plain)` raises OSError for a pipe, a device, a folder."""
    handle = os.open(path, flags | _NO_WAIT)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a plain file", path)
    return handle


def no_link(path: str, flags: int) -> int:
    """Open no link: `open(path, "wb", opener=no_link)` raises OSError where one lies."""
    return os.open(path, flags | _NO_LINK | _NO_WAIT, 0o666)


def read_bytes(path: Path, most: int) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: when it can't be read or is no plain file.
        ValueError: when it has more than `most` bytes.
    """
    with open(path, "rb", opener=only_plain) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has more than {most:,} bytes")
        return file.read(size)


def write_whole(path: Path, content: bytes, *, read_back: bool = False) -> None:
    """Write a file beside its place, wait until the disk has it, and rename it into place: whole or not at all.

    Args:
        path: its place; what lies there is replaced.
        content: what it shall hold.
        read_back: compare what the disk gives back before the rename.

    Raises:
        CheckpointError: when the disk gives back other bytes.
        OSError: when it refuses; whatever lay at `path` is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        _write_through(beside, content)
        if read_back and beside.read_bytes() != content:
            raise CheckpointError(f"{path} was not written: the disk gave back other bytes than it was given")
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file with the same promise: the old content or the new one, never a part."""
    write_whole(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write what JSON can say to where a user asked for it, the old file or the new one whole.

    Raises:
        ConfigError: when the file can't be written.
    """
    try:
        write_text(expanded(path), json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{_named(path)} cannot be written: {error.strerror or error}") from None


def _write_through(path: Path, content: bytes) -> None:
    """Write to a file and wait until the disk has it."""
    with open(path, "wb", opener=no_link) as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's new entry; where a file system can't, the file itself is safe already."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_json(path: Path, most: int) -> Any:
    """Return what a JSON file says; raises as `read_bytes` does, and ValueError for anything that is no JSON."""
    return parse_json(read_bytes(path, most).decode("utf-8"))


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: when it is no JSON, is nested too deep, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def check_only_files(folder: Path) -> None:
    """Raise ConfigError for a link, a pipe or the like anywhere in a folder that is going to be written to.

    A link could lead out of it. The folder itself may be one. What W&B keeps is not looked at: it makes links there;
    but settings of W&B's are refused, which no run makes and which could name another server for the API key.
    """
    for settings in (folder / name / "settings" for name in WANDB_FOLDERS):
        if os.path.lexists(settings):
            raise ConfigError(f"{settings} would tell W&B what to do: remove it")
    for path in _entries(folder):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # another process has just removed it
            continue
        except OSError as error:
            raise ConfigError(f"{_named(path)} cannot be looked at: {error.strerror or error}") from None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            raise ConfigError(f"{_named(path)} is {kind}: put a file or a folder in its place, or remove it")


def _named(path: Path) -> str:
    """Return a path as a message names it, which leaves room for what is wrong with it."""
    return printable(str(path), 1_000)


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder, at any depth, following no link."""
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in [*folders, *files])
        folders[:] = [name for name in folders if name not in _FOREIGN]
