"""Starting the process of a worker: within a time, and again where the fork server fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from rims_rl.envs.watched.faults import last_line
from rims_rl.envs.watched.patience import Clock
from rims_rl.envs.watched.serving import Servant, serve
from rims_rl.signals import held_back

_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
_PRELOADED = ["rims_rl.envs", "rims_rl.envs.watched.fork_server"]
_MAIN_OF_PARENT = ("init_main_from_name", "init_main_from_path")
_ATTEMPTS, _SECONDS_BETWEEN = 5, 0.2
_WITHOUT_MAIN: set[str] = set()
"""Names of processes that are told nothing of the program's main module."""
Started = tuple[BaseProcess, Connection]


class Role(NamedTuple):
    """What a process is started for."""

    name: str
    make: Callable[[], Servant]
    """Makes what serves there; a class or a function of a module."""
    knows_main: bool = True
    """Whether requests may speak of the program's main module, which the process then imports.

    A script without a guard, `if __name__ == "__main__"`, would run once more there.
    """


class NotStarted(Exception):  # noqa: N818 - no error of the program's
    """A process could not be started; the message says why."""


def started(role: Role, seconds: float | None) -> Started:
    """Return a process that serves what comes over a connection, and our end of it; None: wait for ever.

    Raises:
        NotStarted: the system refused several times, as it does for a moment when a fork server has just died, or the
            time is up, as when the fork server is stopped; then it has been killed, and the next start makes another.
    """
    clock = Clock(seconds)
    for attempt in range(_ATTEMPTS):
        try:
            return _start_within(clock, role)
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError):  # of a signal handler of the caller's
                raise
            reason = f"could not be started: {last_line(error)}"
        if attempt < _ATTEMPTS - 1:
            time.sleep(_SECONDS_BETWEEN)
    raise NotStarted(reason)


def _start_within(clock: Clock, role: Role) -> Started:
    """Start a process in a thread, as nothing else can be kept from waiting for ever for the fork server."""
    found: list[Started | BaseException] = []
    thread = threading.Thread(target=partial(_start, role, found), daemon=True)
    thread.start()
    while thread.is_alive() and clock.left > 0:
        clock.count(thread.join)
    if not found:
        _kill_fork_server()
        raise NotStarted("could not be started in time")
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _start(role: Role, found: list[Started | BaseException]) -> None:
    """Append a process, or what was raised on the way."""
    try:
        ours, theirs = multiprocessing.Pipe()
        with theirs:  # so that the death of the worker is the end of the connection
            process = _process(theirs, role)
            if _HAS_FORKSERVER:
                resource_tracker.ensure_running()  # whose own start would let SIGTERM through again
            with held_back(signal.SIGTERM, signal.SIGINT):  # for the fork server: it leaves them to this process
                process.start()
        found.append((process, ours))
    except BaseException as error:
        found.append(error)


def _process(connection: Connection, role: Role) -> BaseProcess:
    """Return a worker that has not been started; forking this process itself is not safe once torch has threads."""
    context: Any = multiprocessing.get_context("forkserver" if _HAS_FORKSERVER else "spawn")
    if _HAS_FORKSERVER:
        context.set_forkserver_preload(["__main__", *_PRELOADED] if role.knows_main else _PRELOADED)
    process: BaseProcess = context.Process(target=serve, args=(connection, role.make), name=role.name, daemon=True)
    if not role.knows_main:
        _hide_main(role.name)
    return process


def _hide_main(name: str) -> None:
    """Keep the program's main module from processes of this name, for which multiprocessing has no switch."""
    if not _WITHOUT_MAIN:
        all_told: Callable[[str], dict[str, Any]] = spawn.get_preparation_data
        spawn.get_preparation_data = lambda name: _without_main(name, all_told(name))
    _WITHOUT_MAIN.add(name)


def _without_main(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """Return what multiprocessing tells a new process of this one."""
    return {key: value for key, value in told.items() if name not in _WITHOUT_MAIN or key not in _MAIN_OF_PARENT}


def _forget_fork_server() -> None:
    """Let a process that was forked from this one have a fork server of its own: it can't wait for its parent's."""
    server: Any = forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
    server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
    server._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_fork_server)


def _kill_fork_server() -> None:
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
