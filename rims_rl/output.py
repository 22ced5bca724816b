"""What is printed: nothing in it reaches the terminal but text, and a full disk under it must not end a training."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich import get_console

from rims_rl.errors import printable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def say(line: str) -> None:
    """Print one line on the console, above a progress bar where there is one."""
    get_console().print(printable(line), highlight=False, markup=False, soft_wrap=True)


def complain(line: str) -> None:
    """Print one line on stderr; where that is a file on a full disk, the line is lost and the program goes on."""
    print(line, file=_forgiving(sys.stderr))


class PrintableFormatter(logging.Formatter):
    """Formats the messages of a log as lines that do nothing to a terminal; there may be several, as of a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the message."""
        return "\n".join(map(printable, super().formatMessage(record).split("\n")))


class UnbufferedText(io.TextIOBase):
    """Writes text straight to a file descriptor, and loses what a full disk refuses."""

    def __init__(self, stream: TextIO) -> None:
        self._descriptor, self._encoding = stream.fileno(), stream.encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """How text becomes bytes."""
        return self._encoding

    def write(self, text: str) -> int:
        """Write a text; return its length, also where the disk took only a part."""
        content = text.encode(self._encoding, "replace")
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
        except OSError as error:
            if error.errno not in _FULL:
                raise
        return len(text)

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is."""
        return True


@contextmanager
def full_disks_forgiven() -> Iterator[None]:
    """Let what is printed to a file be lost where the disk is full; terminals and streams of tests stay as they are."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_forgiving(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _forgiving(stream: Any) -> Any:
    try:
        stream.flush()
        return stream if stream.isatty() else UnbufferedText(stream)
    except (OSError, AttributeError, ValueError):  # no file behind it, as where a test reads what is printed
        return stream
