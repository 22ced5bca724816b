"""Trials side by side, each in a process of its own.

A worker that fails, diverges or dies takes nothing with it: the others go on, and its checkpoint stays for a resume.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

import torch

from rims_rl.errors import RimsError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.display import Display
from rims_rl.experiments.folder import ExperimentFolder
from rims_rl.experiments.loop import Row
from rims_rl.experiments.variants import Variant
from rims_rl.signals import held_back

_SECONDS_BETWEEN_REPORTS = 0.5
_SECONDS_TO_WAIT = 0.2
_STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """One trial to run."""

    experiment: str
    """The experiment's name."""
    config: ExperimentConfig
    """Its settings."""
    variant: Variant
    """The model."""
    seed: int
    """The trial's seed."""
    folder: ExperimentFolder
    """The experiment's folder."""
    threads: int
    """CPU threads for PyTorch."""

    @property
    def name(self) -> str:
        """What displays call it."""
        return f"{self.variant.name} seed {self.seed}"


class StopRequest:
    """What a signal sets, so that trials end after their update."""

    stop_requested = False


def run_jobs(jobs: Sequence[Job], workers: int, display: Display, stopped: Callable[[], bool]) -> dict[str, str]:
    """Run trials, `workers` at a time; return how those ended that have no result, by name: failed and why, or stopped.

    Args:
        jobs: the trials.
        workers: how many run side by side; a single one runs in this process.
        display: hears how far each is.
        stopped: when it says so, running trials save and end, and no other is started.
    """
    if workers == 1:
        return _run_here(jobs, display, stopped)
    return _Pool(jobs, workers, display, stopped).run()


def _run_here(jobs: Sequence[Job], display: Display, stopped: Callable[[], bool]) -> dict[str, str]:
    ended, threads = {}, torch.get_num_threads()
    for job in jobs:
        if stopped():
            ended[job.name] = "stopped"
            continue
        torch.set_num_threads(job.threads)
        how = _outcome_of(job, partial(display.hear, job.name), stopped)
        torch.set_num_threads(threads)
        if how.startswith(("failed", "stopped")):
            ended[job.name] = how
        display.end(job.name, how)
    return ended


def _outcome_of(job: Job, say: Callable[[int, Row], None], stopped: Callable[[], bool]) -> str:
    """Run one trial and return how it ended in a few words; of an error that nobody foresaw, a file keeps the rest."""
    from rims_rl.experiments.runner import run_job

    try:
        done = run_job(job, say, stopped)
    except (RimsError, OSError) as error:
        return f"failed: {_one_line(error)}"
    except Exception as error:
        file = job.folder.trial(job.variant.name, job.seed).path / "error.txt"
        with suppress(OSError):
            file.write_text(traceback.format_exc(), "utf-8")
        return f"failed: {type(error).__name__}: {_one_line(error)} (more in {file.parent.name}/{file.name})"
    return "stopped" if done is None else f"{done.ended} after {done.updates} updates, {done.seconds:.0f} s"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


class _Worker(NamedTuple):
    """A process that runs a trial."""

    process: SpawnProcess
    """The process; SIGTERM asks it to save and end."""
    reports: Connection
    """What it has to say: update, row, and at the end how it ended."""


class _Pool:
    """The processes that run the trials."""

    def __init__(self, jobs: Sequence[Job], workers: int, display: Display, stopped: Callable[[], bool]) -> None:
        self.waiting = deque(jobs)
        self.workers = workers
        self.display = display
        self.stopped = stopped
        self.running: dict[str, _Worker] = {}
        self.ended: dict[str, str] = {}
        self._how: dict[str, str] = {}
        self._context = multiprocessing.get_context("spawn")
        self._stopping = False

    def run(self) -> dict[str, str]:
        """Run until every trial has ended."""
        try:
            while self.waiting or self.running:
                if self.stopped() and not self._stopping:
                    self._stop()
                self._start_what_fits()
                self._listen()
                self._collect()
        finally:
            self._stop()
        return self.ended

    def _stop(self) -> None:
        """Ask every running trial to save and end, and start no other."""
        self._stopping = True
        for worker in self.running.values():
            worker.process.terminate()
        self.ended.update(dict.fromkeys((job.name for job in self.waiting), "stopped"))
        self.waiting.clear()

    def _start_what_fits(self) -> None:
        while self.waiting and len(self.running) < self.workers:
            job = self.waiting.popleft()
            reports, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(target=_work, args=(job, theirs), daemon=True)
            with held_back(*_STOPPING_SIGNALS):
                process.start()
            theirs.close()
            self.running[job.name] = _Worker(process, reports)

    def _listen(self) -> None:
        """Pass on what the workers report, waiting for the first of it a moment."""
        names = {worker.reports: name for name, worker in self.running.items()}
        for reports in wait(list(names), timeout=_SECONDS_TO_WAIT):
            assert isinstance(reports, Connection)
            self._hear(names[reports], reports)

    def _hear(self, name: str, reports: Connection) -> None:
        with suppress(EOFError, OSError):
            while reports.poll():
                update, row, how = reports.recv()
                if how is None:
                    self.display.hear(name, update, row)
                else:
                    self._how[name] = how

    def _collect(self) -> None:
        """See which workers have ended, and how."""
        for name, worker in list(self.running.items()):
            if worker.process.is_alive():
                continue
            self._hear(name, worker.reports)
            worker.process.join()
            worker.reports.close()
            del self.running[name]
            how = self._how.get(name) or self._without_a_word(worker.process.exitcode)
            if how.startswith(("failed", "stopped")):
                self.ended[name] = how
            self.display.end(name, how)

    def _without_a_word(self, code: int | None) -> str:
        asked = self._stopping and code in (-signal.SIGTERM, -signal.SIGINT)
        return "stopped" if asked else f"failed: {_death(code)}"


def _death(code: int | None) -> str:
    """Say how a process died that left no word."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for lack of memory; fewer --workers or a smaller batch_size take less"
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _work(job: Job, reports: Connection) -> None:
    """Run one trial in this process and report; ends, with all saved, on SIGTERM and when the parent is gone."""
    request, parent = StopRequest(), os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, too, and sends its workers SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: setattr(request, "stop_requested", True))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING_SIGNALS)
    torch.set_num_threads(job.threads)
    newest = 0.0

    def tell(update: int, row: Row, how: str | None = None) -> None:
        with suppress(OSError):  # the parent may be gone
            reports.send((update, row, how))

    def say(update: int, row: Row) -> None:
        nonlocal newest
        if row or time.monotonic() - newest > _SECONDS_BETWEEN_REPORTS:
            newest = time.monotonic()
            tell(update, row)

    tell(0, {}, _outcome_of(job, say, lambda: request.stop_requested or os.getppid() != parent))
