"""Starting the process of a worker: within a time, and again where the fork server fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from rims_rl.envs.watched.faults import last_line
from rims_rl.envs.watched.host import serve
from rims_rl.envs.watched.patience import Clock
from rims_rl.signals import held_back

_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
_PRELOADED = ["__main__", "rims_rl.envs", "rims_rl.envs.watched.fork_server"]
_ATTEMPTS, _SECONDS_BETWEEN = 5, 0.2
Started = tuple[BaseProcess, Connection]


class NotStarted(Exception):  # noqa: N818 - no error of the program's
    """A process could not be started; the message says why."""


def started(name: str, seconds: float | None) -> Started:
    """Return a process that serves what comes over a connection, and our end of it; None: wait for ever.

    Raises:
        NotStarted: the system refused several times, as it does for a moment when a fork server has just died, or the
            time is up, as when the fork server is stopped; then it has been killed, and the next start makes another.
    """
    clock = Clock(seconds)
    for attempt in range(_ATTEMPTS):
        try:
            return _start_within(clock, name)
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError):  # of a signal handler of the caller's
                raise
            reason = f"could not be started: {last_line(error)}"
        if attempt < _ATTEMPTS - 1:
            time.sleep(_SECONDS_BETWEEN)
    raise NotStarted(reason)


def _start_within(clock: Clock, name: str) -> Started:
    """Start a process in a thread, as nothing else can be kept from waiting for ever for the fork server."""
    found: list[Started | BaseException] = []
    thread = threading.Thread(target=partial(_start, name, found), daemon=True)
    thread.start()
    while thread.is_alive() and clock.left > 0:
        clock.count(thread.join)
    if not found:
        _kill_fork_server()
        raise NotStarted("could not be started in time")
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _start(name: str, found: list[Started | BaseException]) -> None:
    """Append a process, or what was raised on the way."""
    try:
        ours, theirs = multiprocessing.Pipe()
        with theirs:  # so that the death of the worker is the end of the connection
            process = _process(theirs, name)
            if _HAS_FORKSERVER:
                resource_tracker.ensure_running()  # whose own start would let SIGTERM through again
            with held_back(signal.SIGTERM):  # for the fork server: it leaves SIGTERM to this process
                process.start()
        found.append((process, ours))
    except BaseException as error:
        found.append(error)


def _process(connection: Connection, name: str) -> BaseProcess:
    """Return a worker that has not been started; forking this process itself is not safe once torch has threads."""
    context = multiprocessing.get_context("forkserver" if _HAS_FORKSERVER else "spawn")
    if _HAS_FORKSERVER:
        context.set_forkserver_preload(_PRELOADED)
    process: BaseProcess = context.Process(target=serve, args=(connection,), name=name, daemon=True)  # type: ignore[attr-defined]
    return process


def _kill_fork_server() -> None:
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
