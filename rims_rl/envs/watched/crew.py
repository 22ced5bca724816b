"""All workers of a VecEnv together: asking them, waiting for them, replacing them, ending them."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any

import gymnasium as gym

from rims_rl.envs.watched.faults import Trouble, silence
from rims_rl.envs.watched.host import Built
from rims_rl.envs.watched.patience import Clock, Patience
from rims_rl.envs.watched.process import WatchedProcess
from rims_rl.envs.watched.worker import Worker
from rims_rl.errors import ConfigError, RimsError

_log = logging.getLogger(__name__)
_SECONDS_TO_CLOSE, _SECONDS_TO_CLEAN_UP, _SECONDS_TO_DIE = 5.0, 1.0, 1.0


class Crew:
    """The workers of a VecEnv; a fault among them is mended where patience allows, or ends them all and is raised."""

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]], patience: Patience) -> None:
        if multiprocessing.current_process().daemon:
            raise ConfigError("a daemonic process can have no processes of its own; use subprocess=False here")
        if not env_fns:
            raise ConfigError("there must be at least one environment, got none")
        self.workers = [Worker(index, make) for index, make in enumerate(env_fns)]
        self.patience = patience
        self.may_mend = False
        # Runs at the latest before multiprocessing's own end, which would wait for ever for a process that is stopped.
        self.end = Finalize(self, end, (self.workers, _SECONDS_TO_CLOSE), exitpriority=10)

    def check_open(self) -> None:
        """Raise RimsError once the workers have been ended."""
        if not self.end.still_active():
            raise RimsError("these environments have been closed; make new ones")

    @contextmanager
    def ended_on_error(self) -> Iterator[None]:
        """End all workers when something is raised."""
        try:
            yield
        except BaseException:
            self.end()
            raise

    def build(self) -> Built:
        """Start all workers; return what the first one has built. Any fault is raised."""
        self._start(self.workers)
        for worker in self.workers:
            if isinstance(worker.outcome, Trouble):
                raise worker.refusal() or worker.fault()
        built: Built = self.workers[0].outcome
        return built

    def catch_up(self) -> None:
        """Wait for all answers that are still to come."""
        gather(self.workers, self.patience.seconds)

    def settle(self, options: Sequence[dict[str, Any]] | None = None) -> None:
        """Replace workers that a step or a reset has brought into trouble; a `RimsError` of a copy is raised.

        Args:
            options: of the reset, for the environments of workers that are replaced.
        """
        refusals = {worker: refusal for worker in self.workers if (refusal := worker.refusal())}
        self._mend([worker for worker in self._in_trouble(self.workers) if worker not in refusals], options)
        for refusal in refusals.values():
            raise refusal

    def answers(self, asked: list[Worker], request: bytes) -> list[Any]:
        """Return the answers of some workers, those of lost ones from the processes that take their place."""
        self.ask(asked, request)
        return self.outcomes(asked)

    def ask(self, asked: list[Worker], request: bytes) -> None:
        """Send a request to some workers, or to the processes that take their place, until each has answered."""
        waiting = asked
        while waiting:
            for worker in waiting:
                worker.send(request)
            gather(waiting, self.patience.seconds)
            waiting = [worker for worker in waiting if worker.is_lost]
            self._mend(waiting)

    def outcomes(self, asked: list[Worker]) -> list[Any]:
        """Return what some workers have answered, or raise what one of them has raised."""
        for worker in self._in_trouble(asked):
            raise worker.passed_on() or worker.fault()
        return [worker.outcome for worker in asked]

    def _in_trouble(self, workers: Iterable[Worker]) -> list[Worker]:
        return [worker for worker in workers if isinstance(worker.outcome, Trouble)]

    def _start(self, workers: Sequence[Worker]) -> None:
        """Start processes, and wait until they have built their environments."""
        for worker in workers:
            worker.start(self.patience.seconds_to_start)
        gather(workers, self.patience.seconds_to_start)
        for worker in workers:
            if not worker.is_lost:
                worker.allow(self.patience.seconds)

    def _mend(self, troubled: list[Worker], options: Sequence[dict[str, Any]] | None = None) -> None:
        """Replace processes until each copy has begun a new episode, or raise the fault that may not be mended."""
        with self.ended_on_error():
            while troubled:
                for worker in troubled:
                    self._account_for(worker)
                end(troubled, _SECONDS_TO_CLEAN_UP)
                self._start(troubled)
                for worker in troubled:
                    if not isinstance(worker.outcome, Trouble):
                        worker.ask_first_reset(options[worker.index] if options else {})
                gather(troubled, self.patience.seconds)
                troubled = self._in_trouble(troubled)

    def _account_for(self, worker: Worker) -> None:
        """Count and tell a fault, or raise it where it is one too many."""
        fault = worker.fault()
        if not self.may_mend or worker.restarts >= self.patience.restarts:
            raise fault
        worker.restarts += 1
        worker.gap = worker.gap or str(fault)
        seed = "no seed" if worker.next_seed is None else f"seed {worker.next_seed}"
        told = "%s; a new process takes its place with %s (restart %d of %d)"
        behind = f"\n{fault.traceback.rstrip()}" if fault.traceback else ""
        _log.warning(f"{told}%s", fault, seed, worker.restarts, self.patience.restarts, behind)


def gather(workers: Iterable[WatchedProcess], seconds: float | None) -> None:
    """Wait until every worker has answered, or is lost: dead, or silent for so many seconds (None: for ever)."""
    clock = Clock(seconds)
    owing = [worker for worker in workers if worker.owes]
    for worker in owing:  # mostly all answer soon, and waiting in their order wakes this process the fewest times
        if not clock.count(worker.listen_briefly):
            break
    while owing := [worker for worker in owing if worker.owes]:
        handles: dict[Any, WatchedProcess] = {}
        for worker in owing:
            handles |= dict.fromkeys(worker.handles, worker)
        ready = clock.count(partial(wait, list(handles)))
        for worker in {handles[handle] for handle in ready}:
            worker.listen(worker.connection in ready)
        if seconds is not None and clock.left <= 0:
            _lose_all([worker for worker in owing if worker.owes], silence(seconds))


def _lose_all(workers: list[WatchedProcess], trouble: Trouble) -> None:
    for worker in workers:
        worker.lose(trouble)


def end(workers: Sequence[WatchedProcess], seconds: float) -> None:
    """End the processes: politely within some seconds, then by SIGKILL."""
    workers = [worker for worker in workers if worker.is_begun]
    try:
        for worker in workers:
            worker.let_go()  # which an idle worker takes for a request to close its environment
        _join(workers, seconds)
    finally:  # after an interrupt, too: multiprocessing would wait for ever for a process that is stopped
        for worker in workers:
            worker.kill()
        _join(workers, _SECONDS_TO_DIE)


def _join(workers: Sequence[WatchedProcess], seconds: float) -> None:
    """Wait until no process lives, but together no longer than this."""
    until = time.monotonic() + seconds
    for worker in workers:
        if worker.process.is_alive():
            worker.process.join(max(0.0, until - time.monotonic()))
