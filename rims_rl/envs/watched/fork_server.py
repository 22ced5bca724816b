"""Imported by the fork server, which workers and other processes are children of.

It is started with Ctrl-C and SIGTERM held back; its children hear them again. It ends with the program, since workers
let go of it, and then kills those that don't end by themselves: stopped ones, and ones in native code that never
returns.
"""

import atexit
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_SECONDS_TO_END = 5.0


def _hear_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


def _end_workers() -> None:
    until = time.monotonic() + _SECONDS_TO_END
    with suppress(ChildProcessError):  # there is none left
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
        for pid in _children():
            os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    """Return the processes that this one has started and not waited for; none where the system does not tell."""
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


os.register_at_fork(after_in_child=_hear_signals)
os.register_at_fork(after_in_child=lambda: atexit.unregister(_end_workers))
atexit.register(_end_workers)
