"""The promise that every reader keeps for every file, checked around one call."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rims_rl.errors import RimsError

SECONDS = 10
_SPARE_MEMORY = 3 * 2**30
_RUNS_CODE = frozenset(
    {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect"}
    | {"ctypes.dlopen", "webbrowser.open"}
)
_WRITES = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree"}
    | {"os.chmod", "os.chown"}
)
CANARY = "rims_canary"
"""A module that hostile files name; nobody may import it."""


class TooSlow(BaseException):
    """A reader took longer than any file of its size may take."""


class _Watch:
    """What Python's audit events tell of a call: files written and code run."""

    def __init__(self) -> None:
        self.allowed: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)  # for good: Python has no way to take one away

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event in _RUNS_CODE or (event == "import" and str(arguments[0]).startswith(CANARY)):
            self.seen.append(f"{event}{arguments[:1]}")
        opens = event == "open" and self._opens_for_writing(arguments)
        if (opens or event in _WRITES) and not self._is_inside(arguments[0], follow=opens):
            self.seen.append(f"{event} of {arguments[0]!r}")

    @staticmethod
    def _opens_for_writing(arguments: tuple[Any, ...]) -> bool:
        mode, flags = arguments[1], arguments[2]
        return bool(set("wax+") & set(mode or "")) or bool(isinstance(flags, int) and flags & 3)

    def _is_inside(self, path: Any, *, follow: bool) -> bool:
        if not isinstance(path, str | bytes | Path):
            return isinstance(path, int)  # a handle that is open already
        place = Path(path.decode("utf-8", "replace") if isinstance(path, bytes) else path)
        found = place.resolve() if follow else place.parent.resolve() / place.name
        return str(place) == "/dev/null" or found.is_relative_to(self.allowed or "/")


_watch = _Watch()


@contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    _watch.allowed, _watch.seen = folder.resolve(), []
    try:
        yield _watch.seen
    finally:
        _watch.allowed = None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def too_slow(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _little_memory() -> Iterator[None]:
    """Let the process take some gigabytes more than it has, so that what a file asks for beyond them fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _SPARE_MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def survives(read: Callable[[], Any], folder: Path, *, names: str | None = None, seconds: float = SECONDS) -> Any:
    """Return what a reader returns, or the error of ours that it raises; fails the test for whatever else it does.

    Args:
        read: reads a file that may be hostile.
        folder: where it may write.
        names: what an error's message must hold, usually the file's name.
        seconds: how long it may take.
    """
    with _watched(folder) as seen, _little_memory(), _at_most(seconds):
        try:
            result = read()
        except RimsError as error:
            result = error
    assert not seen, f"the reader did what a file told it to: {seen}"
    if isinstance(result, RimsError):
        check_message(result, names)
    return result


def check_message(error: RimsError, names: str | None) -> None:
    """Fail unless the error is one line of bearable length, without control characters, that names the file."""
    message = str(error)
    assert message.isprintable(), ascii(message)
    assert len(message) <= 2_000, message[:300]
    assert names is None or names in message, f"{message!r} does not name {names}"
