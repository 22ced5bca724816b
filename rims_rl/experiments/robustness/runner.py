"""A robustness report from its settings to its files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.errors import ConfigError, RimsError, printable
from rims_rl.experiments.robustness.cells import read_cell, run_cell
from rims_rl.experiments.robustness.conditions import Condition
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.folder import RobustnessFolder, folder_for, save_settings
from rims_rl.experiments.robustness.grid import Grid, make_grid
from rims_rl.experiments.robustness.play import Cell, agent_of, check_agent, world
from rims_rl.experiments.robustness.report import write_report
from rims_rl.experiments.robustness.subjects import read_subjects
from rims_rl.experiments.workers import StopRequest
from rims_rl.machine import processor_cores
from rims_rl.output import say
from rims_rl.runs import check_writable, locked
from rims_rl.signals import StopSignals, held_back

_SECONDS_TO_WAIT = 0.5


def run_robustness(config: RobustnessConfig) -> int:
    """Measure what is not measured yet, report on it, and return the process's exit code.

    Returns:
        0 when every cell has a result, 1 when some failed, 130 or 143 when a signal ended it.

    Raises:
        ConfigError: for settings, runs or a folder that can't be used; nothing was made then.
    """
    config.check()
    agent_of.cache_clear()  # a run may have been trained further since this process read it last
    folder, subjects = folder_for(config), read_subjects(config.runs)
    grid = make_grid(config, folder, subjects)
    if config.resume is None:
        check_writable(folder)
    _try_everything(grid)
    try:
        return _run_in_folder(config, folder, grid)
    except OSError as error:
        raise RimsError(f"{error.filename or 'the disk'}: {error.strerror or error}") from None


def _try_everything(grid: Grid) -> None:
    """Make one copy of every environment with dynamics of its own, load every agent, and see whether they fit.

    So what can't work is told at once, before anything is written.
    """
    with ExitStack() as stack:
        envs: dict[tuple[str, Condition], tuple[VecEnv, Any]] = {}
        for key, cell in grid.random.items():
            env = world(cell, copies=1)
            stack.callback(env.close)
            envs[key] = env, env.reset()
        for (subject, condition), cell in grid.scores.items():
            if condition == condition.dynamics:
                check_agent(cell, *envs[subject.world, condition])


def _run_in_folder(config: RobustnessConfig, folder: RobustnessFolder, grid: Grid) -> int:
    with ExitStack() as stack:
        folder.create()
        stack.enter_context(locked(folder))
        waiting = [cell for cell in grid.cells if read_cell(cell) is None]
        about = save_settings(folder, config)
        request = StopRequest()
        with StopSignals(request, what="the games under way") as signals, _progress(len(waiting)) as advance:
            failed = _measure(waiting, _workers(config, len(waiting)), advance, lambda: request.stop_requested)
        write_report(config, folder, grid, about)
    _say_what_lacks(folder, grid, failed)
    return signals.exit_code or (1 if failed else 0)


def _workers(config: RobustnessConfig, cells: int) -> int:
    return max(1, min(config.workers or processor_cores(), cells))


def _say_what_lacks(folder: RobustnessFolder, grid: Grid, failed: dict[str, int]) -> None:
    lacking = sum(not cell.file.exists() for cell in grid.cells)
    for reason, count in failed.items():
        say(f"{count} failed: {reason}")
    if lacking:
        say(f"{lacking} of {len(grid.cells)} cells have no result; go on with --resume {folder.path}")
    say(f"results in {folder.path}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Yield what to call with the name of every cell that is done."""
    console = get_console()
    name_of_cell = TextColumn("{task.description}", markup=False)
    columns = name_of_cell, BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("games", total=total)

        def advance(name: str) -> None:
            progress.update(task, advance=1, description=printable(name, 60))
            if not console.is_terminal:
                say(f"{name} ({progress.tasks[0].completed:.0f} of {total})")

        yield advance


def _measure(
    cells: Sequence[Cell], workers: int, advance: Callable[[str], None], stopped: Callable[[], bool]
) -> dict[str, int]:
    """Measure cells, some side by side; return for each reason how many failed of it. Others go on after a failure."""
    failed: dict[str, int] = {}
    results = _here(cells, stopped) if workers == 1 else _side_by_side(cells, workers, stopped)
    for cell, error in results:
        if isinstance(error, BrokenProcessPool) and stopped():
            continue  # a signal that ends us may have gone to the workers, too
        if error is not None:
            reason = _one_line(error)
            failed[reason] = failed.get(reason, 0) + 1
        advance(name_of(cell))
    return failed


def _here(cells: Sequence[Cell], stopped: Callable[[], bool]) -> Iterator[tuple[Cell, BaseException | None]]:
    """Run cells one after the other, on one thread as workers do, so that numbers are the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for cell in cells:
            if stopped():
                return
            yield cell, _error_of(cell)
    finally:
        torch.set_num_threads(threads)


def _error_of(cell: Cell) -> BaseException | None:
    """Run a cell and return what went wrong, whatever it is: the other cells go on, as they do beside a worker."""
    try:
        run_cell(cell)
    except Exception as error:
        return error
    return None


def _side_by_side(
    cells: Sequence[Cell], workers: int, stopped: Callable[[], bool]
) -> Iterator[tuple[Cell, BaseException | None]]:
    """Run cells in processes; when asked to stop, those under way are finished and no other is begun.

    A process that dies takes with it the cells that the others were at; the rest goes on in new processes.
    """
    waiting = deque(cells)
    while waiting and not stopped():
        yield from _in_new_processes(waiting, workers, stopped)


def _in_new_processes(
    waiting: deque[Cell], workers: int, stopped: Callable[[], bool]
) -> Iterator[tuple[Cell, BaseException | None]]:
    """Take cells from those that wait, one per process at a time, until all are done or a process dies."""
    context = multiprocessing.get_context("spawn")
    running: dict[Future[None], Cell] = {}
    is_broken = False
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        while running or (waiting and not is_broken and not stopped()):
            while waiting and len(running) < workers and not is_broken and not stopped():
                try:
                    with held_back(signal.SIGINT):  # for good: a worker leaves Ctrl-C to this process
                        running[pool.submit(run_cell, waiting[0])] = waiting[0]
                    waiting.popleft()
                except BrokenProcessPool:
                    is_broken = True
            done, _ = wait(running, timeout=_SECONDS_TO_WAIT, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                is_broken = is_broken or isinstance(error, BrokenProcessPool)
                yield running.pop(future), error


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, the processor's other cores to the other workers, and end when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one_line(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "a process died, perhaps for lack of memory; fewer --workers or --n-envs take less"
    return (
        f"{'' if isinstance(error, ConfigError) else type(error).__name__ + ': '}{' '.join(str(error).split())[:300]}"
    )


def name_of(cell: Cell) -> str:
    """Return what a cell is called on a terminal."""
    who = "random play" if cell.path is None else cell.path.name
    split = f" {cell.condition.split}" if cell.condition.split else ""
    return f"{who}: {cell.condition.name}{split}{', memory' if cell.watches_mechanism else ''}"
