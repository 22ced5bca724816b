"""The side of a watched process: it does as it is asked, and ends with the one that asks.

A request is a pickled (method of what serves, arguments), its answer a pickled (value, None) or (None, `Raised`).
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

from rims_rl.envs.watched.faults import last_line

PICKLE_PROTOCOL = 5
_SECONDS_WITHOUT_PARENT = 3.0


class Servant(Protocol):
    """What a watched process asks: any of its methods, and in the end to close."""

    def close(self) -> None:
        """Let go of everything."""


class Raised(NamedTuple):
    """An exception, as data that can be pickled."""

    line: str
    """The end of the traceback."""
    traceback: str
    error: bytes | None
    """The exception itself, pickled; None where it cannot be."""


def serve(connection: Connection, make: Callable[[], Servant]) -> None:
    """Do as asked until the other end of the connection is closed, then close what has served."""
    _set_up_process()
    servant = make()
    with suppress(EOFError, OSError):
        while True:
            connection.send_bytes(_answer(servant, connection.recv_bytes()))
    servant.close()


def as_data(error: BaseException) -> Raised:
    """Return an exception as data."""
    return Raised(last_line(error), "".join(traceback.format_exception(error)), _pickled(error))


def _answer(servant: Servant, request: bytes) -> bytes:
    """Return the pickled answer to a request; whatever is raised on the way is an answer, too."""
    try:
        name, arguments = pickle.loads(request)
        return pickle.dumps((getattr(servant, name)(*arguments), None), PICKLE_PROTOCOL)
    except BaseException as error:
        return pickle.dumps((None, as_data(error)), PICKLE_PROTOCOL)


def _pickled(error: BaseException) -> bytes | None:
    """Return an exception as bytes, or None unless they give back one of the same type."""
    with suppress(Exception):
        data = pickle.dumps(error, PICKLE_PROTOCOL)
        if isinstance(error, Exception) and type(pickle.loads(data)) is type(error):
            return data
    return None


def _set_up_process() -> None:
    """Leave Ctrl-C and SIGTERM to the process that trains, end with it, and tell where native code fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _do_nothing)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    _let_go_of_the_fork_server()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(RuntimeError, OSError):  # there may be no stderr
        faulthandler.enable()


def _do_nothing(*_: object) -> None:
    """Handle a signal; one that is ignored would be ignored by an environment's own processes as well."""


def _let_go_of_the_fork_server() -> None:
    """Close what every child of the fork server holds, as it would live as long as the last of them."""
    held = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if held is not None:
        os.close(held)


def _end_with_parent() -> None:
    """Wait for the parent's end, then end this process, even if its environment hangs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(_SECONDS_WITHOUT_PARENT)  # in which an idle worker closes its environment and ends by itself
        os._exit(1)
