"""Trials side by side, each in a process of its own.

A worker that fails, diverges or dies takes nothing with it: the others go on, and its checkpoint stays for a resume.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import SpawnProcess
from queue import Empty
from typing import Any

from rims_rl.errors import RimsError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.display import Display
from rims_rl.experiments.folder import ExperimentFolder
from rims_rl.experiments.loop import Row
from rims_rl.experiments.variants import Variant

_SECONDS_BETWEEN_REPORTS = 0.5


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
    ended = {}
    for job in jobs:
        if stopped():
            ended[job.name] = "stopped"
            continue
        how = _outcome_of(job, partial(display.hear, job.name), stopped)
        if how.startswith(("failed", "stopped")):
            ended[job.name] = how
        display.end(job.name, how)
    return ended


def _outcome_of(job: Job, say: Callable[[int, Row], None], stopped: Callable[[], bool]) -> str:
    """Run one trial and return how it ended in a few words."""
    from rims_rl.experiments.runner import run_job

    try:
        done = run_job(job, say, stopped)
    except (RimsError, OSError) as error:
        return f"failed: {' '.join(str(error).split())}"
    return "stopped" if done is None else f"{done.ended} after {done.updates} updates, {done.seconds:.0f} s"


class _Pool:
    """The processes that run the trials."""

    def __init__(self, jobs: Sequence[Job], workers: int, display: Display, stopped: Callable[[], bool]) -> None:
        self.waiting = deque(jobs)
        self.workers = workers
        self.display = display
        self.stopped = stopped
        self.running: dict[str, SpawnProcess] = {}
        self.ended: dict[str, str] = {}
        self._how: dict[str, str] = {}
        self._context = multiprocessing.get_context("spawn")
        self._reports: Any = self._context.Queue()
        self._stop = self._context.Event()

    def run(self) -> dict[str, str]:
        """Run until every trial has ended."""
        try:
            while self.waiting or self.running:
                if self.stopped():
                    self._stop.set()
                    self.ended.update(dict.fromkeys((job.name for job in self.waiting), "stopped"))
                    self.waiting.clear()
                self._start_what_fits()
                self._listen()
                self._collect()
        finally:
            for process in self.running.values():
                process.terminate()
        return self.ended

    def _start_what_fits(self) -> None:
        while self.waiting and len(self.running) < self.workers:
            job = self.waiting.popleft()
            process = self._context.Process(target=_work, args=(job, self._reports, self._stop), daemon=True)
            process.start()
            self.running[job.name] = process

    def _listen(self, seconds: float = 0.2) -> None:
        """Pass on what the workers report, waiting for the first of it at most so long."""
        try:
            while True:
                name, update, row, how = self._reports.get(timeout=seconds)
                if how is None:
                    self.display.hear(name, update, row)
                else:
                    self._how[name] = how
                seconds = 0.0
        except Empty:
            return

    def _collect(self) -> None:
        """See which workers have ended, and how."""
        for name, process in list(self.running.items()):
            if process.is_alive():
                continue
            self._listen(0.05)
            process.join()
            del self.running[name]
            how = self._how.get(name, f"failed: {_death(process.exitcode)}")
            if how.startswith(("failed", "stopped")):
                self.ended[name] = how
            self.display.end(name, how)


def _death(code: int | None) -> str:
    """Say how a process died that left no word."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for lack of memory; fewer --workers or a smaller batch_size take less"
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _work(job: Job, reports: Any, stop: Any) -> None:
    """Run one trial in this process and report."""
    import torch

    request = StopRequest()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, too, and asks its workers to stop
    signal.signal(signal.SIGTERM, lambda *_: setattr(request, "stop_requested", True))
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    torch.set_num_threads(job.threads)
    newest = 0.0

    def say(update: int, row: Row) -> None:
        nonlocal newest
        if row or time.monotonic() - newest > _SECONDS_BETWEEN_REPORTS:
            newest = time.monotonic()
            reports.put((job.name, update, row, None))

    how = _outcome_of(job, say, lambda: stop.is_set() or request.stop_requested)
    reports.put((job.name, 0, {}, how))
