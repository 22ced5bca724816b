"""An experiment from its settings to its files: trials side by side, results, table and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from rims_rl.errors import CheckpointError, RimsError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.display import Display
from rims_rl.experiments.experiment import Experiment, Outcome
from rims_rl.experiments.folder import ExperimentFolder, check_names, folder_for, save_settings
from rims_rl.experiments.loop import Row, read_outcome, run_trial
from rims_rl.experiments.registry import make_experiment
from rims_rl.experiments.report import draw_all, print_table, write_results
from rims_rl.experiments.tracking import track
from rims_rl.experiments.workers import Job, StopRequest, run_jobs
from rims_rl.machine import processor_cores
from rims_rl.output import say
from rims_rl.runs import check_writable, locked
from rims_rl.signals import StopSignals
from rims_rl.validation import check_device


def run_experiment(name: str, config: ExperimentConfig) -> int:
    """Run an experiment, or go on with the one in `config.resume`; return the process's exit code.

    Returns:
        0 when every trial has a result, 1 when some failed, 130 or 143 when a signal ended it.

    Raises:
        ConfigError: for settings, data or a folder that can't be used; nothing was made then.
    """
    config = replace(config, device=_device(config.device))
    config.check()
    experiment = make_experiment(name, config)
    experiment.check()
    variants = experiment.variants()
    check_names(variants)
    for variant in variants:
        experiment.check_variant(variant)
    config = replace(config, torch_threads=_threads(config, config.seeds * len(variants)))
    try:
        return _run_in_folder(make_experiment(name, config), folder_for(name, config))
    except OSError as error:
        raise RimsError(f"{error.filename or 'the disk'}: {error.strerror or error}") from None


def _run_in_folder(experiment: Experiment[Any], folder: ExperimentFolder) -> int:
    if experiment.config.resume is None:
        check_writable(folder)
    with ExitStack() as stack:
        folder.create()
        stack.enter_context(locked(folder))
        save_settings(folder, experiment.name, experiment.config)
        return _run(experiment, folder, _jobs(experiment, folder))


def _device(name: str) -> str:
    """Return the device that a setting means."""
    check_device(name)
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _jobs(experiment: Experiment[Any], folder: ExperimentFolder) -> list[Job]:
    """Return all trials of an experiment, seeds outermost, so that every model has a result early."""
    config, variants = experiment.config, experiment.variants()
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    return [
        Job(experiment.name, config, variant, seed, folder, config.torch_threads)
        for seed in seeds
        for variant in variants
    ]


def _threads(config: ExperimentConfig, trials: int) -> int:
    """Return the CPU threads of a trial: it is kept in the settings, since a resume with others rounds otherwise."""
    return config.torch_threads or max(1, processor_cores() // _workers(config, trials))


def _workers(config: ExperimentConfig, trials: int) -> int:
    return max(1, min(config.workers or processor_cores(), trials))


def run_job(job: Job, say: Callable[[int, Row], None], stopped: Callable[[], bool]) -> Outcome | None:
    """Run one trial in this process; raises as `run_trial` does."""
    experiment = make_experiment(job.experiment, job.config)
    head = Outcome(job.variant.name, job.seed)
    with track(job, say) as heard:
        return run_trial(
            lambda: experiment.trial(job.variant, job.seed), head, job.config,
            job.folder.trial(job.variant.name, job.seed), heard, stopped,
        )  # fmt: skip


def _run(experiment: Experiment[Any], folder: ExperimentFolder, jobs: Sequence[Job]) -> int:
    """Run what has no result yet, and report on what has."""
    config = experiment.config
    waiting = [job for job in jobs if not folder.trial(job.variant.name, job.seed).result.exists()]
    request = StopRequest()
    watched = experiment.trial_class.watched
    with StopSignals(request, what="this update") as signals, Display(watched, config.updates) as display:
        ended = run_jobs(waiting, _workers(config, len(waiting)), display, lambda: request.stop_requested)
    outcomes, damaged = _outcomes(jobs, folder, ended)
    if outcomes:
        write_results(experiment, folder, outcomes)
        print_table(experiment, outcomes)
        draw_all(experiment, folder, outcomes)
    if ended:
        say(f"{len(ended)} of {len(jobs)} trials have no result; go on with --resume {folder.path}")
    say(f"results in {folder.path}")
    return signals.exit_code or (1 if ended or damaged else 0)


def _outcomes(jobs: Sequence[Job], folder: ExperimentFolder, ended: dict[str, str]) -> tuple[list[Outcome], int]:
    """Return the results on disk, those of failed trials as such, and how many are damaged."""
    outcomes, damaged = [], 0
    for job in jobs:
        if job.name in ended:
            if ended[job.name].startswith("failed"):
                outcomes.append(Outcome(job.variant.name, job.seed, ended=ended[job.name]))
            continue
        try:
            outcomes.append(read_outcome(folder.trial(job.variant.name, job.seed), job.variant.name, job.seed))
        except CheckpointError as error:
            damaged += 1
            say(str(error))
    return outcomes, damaged
