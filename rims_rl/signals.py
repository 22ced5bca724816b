"""A clean end of training on Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SHOW_CURSOR = b"\x1b[?25h"


def _say(line: str) -> None:
    """Write a line to stderr without Python's buffers, which a signal may have interrupted in mid-write."""
    os.write(2, f"\n{line}\n".encode())


class StopSignals:
    """While entered, Ctrl-C and SIGTERM end training cleanly at the next good moment; the second one ends it at once.

    The first one sets `stop_requested` on the model, or on whatever else asks it.

    `exit_code` is what the process should end with: None without a signal, 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, model: Any, say: Callable[[str], None] = _say, what: str = "this rollout") -> None:
        self.model = model
        self.what = what
        self.exit_code: int | None = None
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)  # a progress bar has hidden it and gets no chance to bring it back
            self._say("stopped at once, without saving")
            os._exit(128 + number)
        self.exit_code = 128 + number
        self.model.stop_requested = True
        name = signal.Signals(number).name
        self._say(f"{name}: finishing {self.what} and saving; once more to quit at once without saving")


@contextmanager
def held_back(*signals: signal.Signals) -> Iterator[None]:
    """Let signals wait; a process that is started meanwhile holds them back until it says otherwise."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
