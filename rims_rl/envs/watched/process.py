"""The parent's side of a process that is asked and watched: what it answers, and whether it lives."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, cast

from rims_rl.envs.watched.faults import Trouble, death, last_line, silence
from rims_rl.envs.watched.serving import PICKLE_PROTOCOL, Raised
from rims_rl.envs.watched.starting import NotStarted, Role, started
from rims_rl.errors import EnvironmentFault, RimsError

_BRIEF_SECONDS, _SECONDS_TO_DIE = 0.05, 1.0
_LEAST_SECONDS, _MOST_SECONDS = 1e-3, 3e8
"""What a socket is told to wait: 0 would be for ever, and ten years are."""
_UNKNOWN_CODE = 255
"""What multiprocessing takes for the exit code of a process whose fork server has died."""


class WatchedProcess(ABC):
    """A process that answers requests.

    At most one request is on its way. `gather` puts its answer, or a `Trouble`, into `outcome`.
    """

    process: BaseProcess
    connection: Connection

    def __init__(self) -> None:
        self.owes = False
        """Whether a request has not been answered yet."""
        self.outcome: Any = None
        self._seconds: float | None = None
        self._poll: Any = None
        self._is_orphan = False
        """Whether the fork server has died, so that the connection alone tells of the process."""

    @property
    @abstractmethod
    def culprit(self) -> str:
        """What messages call it."""

    @property
    def is_begun(self) -> bool:
        """Whether there is a process."""
        return hasattr(self, "process")

    @property
    def is_lost(self) -> bool:
        """Whether the process can't be asked any more."""
        return isinstance(self.outcome, Trouble) and self.outcome.is_lost

    @property
    def handles(self) -> list[Any]:
        """What becomes readable with an answer or with the end of the process."""
        return [self.connection] if self._is_orphan else [self.connection, self.process.sentinel]

    def begin(self, role: Role, seconds: float | None, request: bytes) -> None:
        """Start the process and send its first request, which it may take so long to answer; None: for ever."""
        self.outcome = None
        try:
            self.process, self.connection = started(role, seconds)
        except NotStarted as error:
            self.lose(Trouble(str(error)))
            return
        self._is_orphan = False
        self._poll = _poll_of(*self.handles)
        self.allow(seconds)
        self.send(request)

    def allow(self, seconds: float | None) -> None:
        """Let a message, either way, stand still for so long; None: for ever."""
        self._seconds = seconds
        if os.name == "posix":
            held = 0.0 if seconds is None else min(max(seconds, _LEAST_SECONDS), _MOST_SECONDS)
            time_value = struct.pack("ll", *divmod(round(held * 1e6), 10**6))
            with socket.socket(fileno=os.dup(self.connection.fileno())) as pipe:
                pipe.settimeout(None)  # waits, whatever socket.setdefaulttimeout() says
                pipe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, time_value)
                pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time_value)

    def send(self, request: bytes) -> None:
        """Send a pickled request; does nothing where the process is lost."""
        if self.is_lost:
            return
        self.owes, self.outcome = True, None
        self._try(partial(self.connection.send_bytes, request))

    def listen_briefly(self, seconds: float) -> bool:
        """Wait a moment, or as long as may be, for an answer or an end, and take it; tell whether there was one."""
        if self._poll is None:
            return False
        ready = dict(self._poll.poll(1000 * min(seconds, _BRIEF_SECONDS)))
        if ready:
            self.listen(self.connection.fileno() in ready)
        return bool(ready)

    def listen(self, is_readable: bool) -> None:
        """Take the answer, or see that the process has ended instead, or only the fork server that would tell."""
        if not is_readable and self.notice_orphan():
            self._poll = _poll_of(*self.handles)
        else:
            self._try(partial(self._take, self.connection.recv_bytes if is_readable else self._last_words))

    def notice_orphan(self) -> bool:
        """Tell whether only the fork server has ended, which knows the end of a process, and not the process."""
        if self.process.exitcode == _UNKNOWN_CODE and not self.connection.poll():
            self._is_orphan = True
        return self._is_orphan

    def lose(self, trouble: Trouble) -> None:
        """Give the process up and kill it, so that no late answer is taken for the next one."""
        self.owes, self.outcome = False, trouble
        self.kill()

    def let_go(self) -> None:
        """Close the connection."""
        if not self.connection.closed:
            self.notice_orphan()
            self.connection.close()

    def kill(self) -> None:
        """Kill the process if there is one that lives, or may live without its fork server."""
        if not self.is_begun:
            return
        if self.process.is_alive():
            self.process.kill()
        elif self._is_orphan:
            self._is_orphan = False
            with suppress(OSError):
                os.kill(cast(int, self.process.pid), signal.SIGKILL)

    def fault(self) -> EnvironmentFault:
        """Return the Trouble that is the outcome as an error, with the worker's traceback."""
        trouble: Trouble = self.outcome
        fault = EnvironmentFault(f"{self.culprit} {trouble.reason}", trouble.traceback)
        fault.__cause__ = trouble.error
        if trouble.traceback:
            fault.add_note(f"In its process:\n{trouble.traceback.rstrip()}")
        return fault

    def passed_on(self) -> Exception | None:
        """Return what the environment raised, with the worker's traceback as a note; None where it can't be sent."""
        trouble: Trouble = self.outcome
        if trouble.error is not None:
            trouble.error.add_note(f"{self.culprit}, in its process:\n{trouble.traceback.rstrip()}")
        return trouble.error

    def refusal(self) -> RimsError | None:
        """Return what the environment raised where that is an error of ours, which the caller is to see as it is."""
        refused = isinstance(self.outcome, Trouble) and isinstance(self.outcome.error, RimsError)
        return cast(RimsError, self.passed_on()) if refused else None

    def _take(self, receive: Callable[[], bytes]) -> None:
        self.outcome = _decoded(receive())
        self.owes = False

    def _last_words(self) -> bytes:
        if not self.connection.poll():
            raise EOFError
        return self.connection.recv_bytes()

    def _try(self, exchange: Callable[[], None]) -> None:
        """Use the connection, and see where it is lost; lost it is after an interrupt, too."""
        try:
            exchange()
        except BlockingIOError:  # the worker was stopped in the middle of a message
            self.lose(silence(self._seconds or 0.0))
        except TimeoutError:  # from a signal handler of the caller's: the connection has none
            self.lose(_interruption())
            raise
        except (EOFError, OSError):
            self.process.join(_SECONDS_TO_DIE)
            self.lose(death(self.process.exitcode))
        except BaseException:
            self.lose(_interruption())
            raise


def request_for(command: str, *arguments: Any) -> bytes:
    """Return a request, a method of what serves and its arguments; raises what pickling them raises."""
    return pickle.dumps((command, arguments), PICKLE_PROTOCOL)


def _poll_of(*handles: Any) -> Any:
    """Return what waits for one of these handles in two microseconds, or None where the system has no such thing."""
    if not hasattr(select, "poll"):
        return None
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    return poll


def _decoded(answer: bytes) -> Any:
    """Return the value in an answer, or the Trouble that it tells of."""
    try:
        value, raised = pickle.loads(answer)
        return value if raised is None else told(raised)
    except TimeoutError:  # as in `Worker._try`
        raise
    except Exception as error:
        reason = f"gave an answer that cannot be unpickled here: {last_line(error)}"
        return Trouble(reason, is_lost=False, traceback=traceback.format_exc())


def _interruption() -> Trouble:
    return Trouble("was interrupted by this process")


def told(raised: Raised) -> Trouble:
    """Return an exception in the worker as a Trouble."""
    error: Exception | None = None
    with suppress(Exception):  # its class may be known to the worker alone
        error = None if raised.error is None else pickle.loads(raised.error)
    return Trouble(f"raised {raised.line}", is_lost=False, traceback=raised.traceback, error=error)
