"""The training that faults happen to: a process of its own, started, watched, and resumed however it ended."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from rims_rl.agents.checkpoint import CheckpointStore
from rims_rl.runs import RunFolder
from rims_rl.soak.processes import end_group, group_of, workers_of

POLL = 0.002
REFUSED = 2
"""Code of a command that was refused, or ended in one line."""
ORPHAN_SECONDS = 15.0
_LOG_LINES = 6


class Lost(Exception):  # noqa: N818 - not an error of the program, but what a soak looks for
    """A fault was not survived."""


class Subject:
    """A training run, and the process that works on it now."""

    def __init__(self, folder: RunFolder, steps: int, options: Sequence[str]) -> None:
        self.folder = folder
        self.steps = steps
        self.store = CheckpointStore(folder.checkpoints)
        self._options = [*options, "-n", str(steps)]
        self._log = folder.path.with_name(f"{folder.path.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self.step_at_start = -1

    def start(self) -> None:
        """Start training, or go on with it where there is something to go on with.

        Raises:
            Lost: when processes of the one before have outlived it.
        """
        if self._process is not None and (left := self._orphans()):
            raise Lost(f"{self.folder.path.name}: the processes {left} outlived their training")
        goes_on = self.folder.config_file.exists()
        words = ["--resume", str(self.folder.path)] if goes_on else ["--output", str(self.folder.path), *self._options]
        self.step_at_start = self.step
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rims_rl", "train", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How the process has ended, negative after a signal; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    @property
    def step(self) -> int:
        """Step of the newest checkpoint, whole or not; -1 while there is none."""
        return max(self.store.steps(), default=-1)

    @property
    def is_training(self) -> bool:
        """Whether this process has written a checkpoint of its own."""
        return self.code is None and self.step > self.step_at_start

    @property
    def is_at_its_end(self) -> bool:
        """Whether all steps are in a checkpoint: nothing but the final files and the process's end are left."""
        return self.step >= self.steps

    @property
    def has_ended_well(self) -> bool:
        """Whether the process has ended with nothing left to do: a resume of a run that is complete is refused."""
        return self.code == 0 or (self.code == REFUSED and self.is_at_its_end)

    def workers(self) -> list[int]:
        """Return the environments' processes."""
        return workers_of(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the training process, if it is still there."""
        assert self._process is not None
        self._process.send_signal(number)

    def limit_files(self, size: int | None) -> None:
        """Let no file of the process grow beyond `size` bytes, as a full disk does; None lifts the limit."""
        try:
            _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most if size is None else size, most))
        except ProcessLookupError:
            return

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the process's end or for `until`; return whether one came in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.code is not None or until():
                return True
            time.sleep(POLL)
        return False

    def _orphans(self) -> list[int]:
        """Return the processes that are left some time after the training has ended, and end them."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while left := group_of(self.pid):
            if time.monotonic() > deadline:
                end_group(self.pid)
                return left
            time.sleep(0.02)
        return []

    def end(self) -> None:
        """Kill the process and all that it has started."""
        if self._process is not None:
            end_group(self.pid)
            self._process.wait()

    def last_words(self) -> str:
        """Return the last lines that it printed, as one."""
        lines = self._log.read_text("utf-8", errors="replace").strip().splitlines() if self._log.exists() else []
        return " | ".join(line.strip() for line in lines[-_LOG_LINES:])
