"""A training run from its settings to its files: begin, go on, stop on a signal, finish."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from rich import get_console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.agents import RIMPPO
from rims_rl.agents.callbacks import ActivityCallback, CheckpointCallback, EvaluationCallback, StopSignals, rollouts_of
from rims_rl.agents.checkpoint import CheckpointStore, Stored, restore, save_policy
from rims_rl.agents.state_checks import step_of
from rims_rl.agents.weights import weights_of
from rims_rl.building import build_env, build_model
from rims_rl.config import EvaluateConfig, TrainConfig
from rims_rl.errors import ConfigError, NonFiniteError, RimsError
from rims_rl.evaluation import evaluate_run, evaluation_env, step_limit
from rims_rl.loading import check_network, check_same_run, facts, is_finished
from rims_rl.logging import ConsoleWriter, CsvWriter, PacedLogger, ProgressCallback, clock
from rims_rl.output import say
from rims_rl.profiling import profile_table
from rims_rl.recording import VideoCallback, check_encoder
from rims_rl.runs import (
    RunFolder,
    check_writable,
    load_config,
    locked,
    open_run,
    run_folder_for,
    save_config,
)
from rims_rl.storage.plain_files import no_link, write_text
from rims_rl.storage.tensor_files import write_tensors
from rims_rl.tracking import WandbRun, WandbWriter, start_wandb, stored_run_id
from rims_rl.validation import check_settings
from rims_rl.versions import versions

_MOST_FINAL_MINUTES = 60.0
"""Cap on the time of the evaluation after training; those during training have one of their own."""


@dataclass(frozen=True)
class Session:
    """One sitting of a run: all of it, or what lies between two stops."""

    config: TrainConfig
    """The run's settings."""
    folder: RunFolder
    """Where it lies."""
    env: VecEnv
    """The training environments."""
    model: RIMPPO
    """The model."""
    resumed_at: int | None = None
    """Step that the session goes on from; None at the run's beginning."""


def train(config: TrainConfig, command: list[str]) -> int:
    """Train an agent in a folder of its own; return 0, or 130 or 143 when a signal ended it.

    Args:
        config: the run's settings.
        command: the command line, kept in the run's folder.

    Raises:
        ConfigError: for settings that can't work, or a folder that can't be used; nothing was made then.
        NonFiniteError: for NaN or infinity in training; the checkpoints are good.
    """
    check_settings(config)
    folder = run_folder_for(config)
    check_writable(folder)
    if config.video_freq:
        check_encoder()
    with ExitStack() as stack:
        env = build_env(config)
        stack.callback(env.close)
        model = build_model(config, env)
        folder.create()
        stack.enter_context(locked(folder))
        save_config(folder, config, command)
        return _run(Session(config, folder, env, model), stack)


def resume(config: TrainConfig, command: list[str]) -> int:
    """Go on with the run in `config.resume`; returns and raises as `train` does.

    Args:
        config: the run's own settings, those of `config.RESUMABLE` possibly changed.
        command: the command line, added to those in the run's folder.

    Raises:
        CheckpointError: when no checkpoint of the run can be read.
    """
    assert config.resume is not None
    folder = open_run(config.resume)
    check_settings(config)
    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        stored = _newest(config, folder)
        env = build_env(config)
        stack.callback(env.close)
        model = build_model(config, env)
        if stored is not None:
            restore(model, stored.tensors, stored.manifest, str(stored.path))
            _say_how_exact(config, load_config(folder), stored.path, bool(stored.manifest.get("exact")))
        save_config(folder, config, command)
        return _run(Session(config, folder, env, model, model.num_timesteps), stack)


def _newest(config: TrainConfig, folder: RunFolder) -> Stored | None:
    """Return the checkpoint to go on from; None where a run was ended before its first one, and begins anew.

    Raises:
        CheckpointError: when none can be read, or it is of another run.
        ConfigError: when the run has done all its steps.
    """
    store = CheckpointStore(folder.checkpoints)
    if not store.steps() and not store.best_file.exists() and not folder.model_file.exists():
        say(f"{folder.path} was ended before its first checkpoint: it begins anew")
        return None
    stored = store.newest()
    check_same_run(config, stored)
    check_network(config, stored)
    done = step_of(stored.manifest, str(stored.path))
    if done >= config.total_timesteps and is_finished(folder, done):
        raise ConfigError(
            f"{folder.path} has done {done:,} of its {config.total_timesteps:,} steps; "
            f"train it further by a larger --total-timesteps"
        )
    return stored


def _say_how_exact(config: TrainConfig, before: TrainConfig, path: Path, exact: bool) -> None:
    """Say where the run goes on, and what will not be as if it had never stopped."""
    note = "exactly as if it had not stopped" if exact else "approximately: what the environments were doing is lost"
    say(f"going on from {path.name}, {note}")
    if config.total_timesteps != before.total_timesteps:
        say(f"the run now ends at {config.total_timesteps:,} steps, and so do its falling schedules")


def _run(session: Session, stack: ExitStack) -> int:
    """Train, save and report; `stack` closes what was opened, whatever happens."""
    config, model, folder = session.config, session.model, session.folder
    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    parameters = sum(parameter.numel() for parameter in model.policy.parameters())
    say(f"{folder.path}: {config.core} on {config.env}, {parameters:,} parameters, {model.device.type}")
    tracker = _start_tracking(session, {"parameters": parameters, "versions": versions()})
    stack.callback(tracker.finish)
    checkpoints = _checkpoints(session)
    callbacks = [*_callbacks(session, tracker, stack), checkpoints]  # last, so that they hold what the others did
    model.set_logger(_logger(session, tracker))
    began = time.monotonic()
    with StopSignals(model) as signals:
        remaining = config.total_timesteps - model.num_timesteps
        if config.profile:
            model.stopwatch.start()
        with _failures_told(session):
            model.learn(
                remaining, CallbackList(callbacks), log_interval=1, reset_num_timesteps=session.resumed_at is None
            )
        _say_where_the_time_went(session)
        _save_results(session)
    _report(session, time.monotonic() - began, signals.exit_code, checkpoints.saved_at)
    if signals.exit_code is None:
        _send_results(session, tracker)
    return signals.exit_code or 0


@contextmanager
def _failures_told(session: Session) -> Iterator[None]:
    """Keep the evidence of a failure, and say how the run goes on; the failure itself passes."""
    try:
        yield
    except Exception as error:
        if isinstance(error, NonFiniteError) and error.evidence:
            _keep_evidence(session, error)
        steps = CheckpointStore(session.folder.checkpoints).steps()
        if steps:
            say(f"ended by an error; go on from step {steps[-1]:,} with: rims-rl train --resume {session.folder.path}")
        raise


def _keep_evidence(session: Session, error: NonFiniteError) -> None:
    """Write what was not finite, and the weights that it came from, beside the checkpoints."""
    path = session.folder.path / f"not_finite_{session.model.num_timesteps:09d}.safetensors"
    manifest = {"kind": "evidence", "reason": str(error), "num_timesteps": session.model.num_timesteps}
    with suppress(OSError, RimsError):
        write_tensors(path, {**error.evidence, **weights_of(session.model.policy, "policy/")}, manifest)
        say(f"what was not finite lies in {path}")


def _start_tracking(session: Session, facts: dict[str, object]) -> WandbRun:
    """Start the W&B run, or go on with the one whose id lies in the folder."""
    file = session.folder.wandb_file
    run_id = stored_run_id(file) if session.resumed_at is not None else None
    tracker = start_wandb(session.config, session.folder, run_id, facts)
    if tracker.id is not None:
        try:
            write_text(file, json.dumps({"id": tracker.id, "mode": tracker.mode}) + "\n")
        except OSError as error:
            say(f"{file} cannot be written ({error.strerror or error}): a resume will begin another W&B run")
    return tracker


def _logger(session: Session, tracker: WandbRun) -> Logger:
    writers: list[KVWriter] = [CsvWriter(session.folder.progress_file, session.resumed_at), WandbWriter(tracker)]
    if session.config.verbose:
        writers.insert(0, ConsoleWriter())
    steps = session.config.n_envs * session.config.n_steps
    return PacedLogger(str(session.folder.path), writers, steps, session.config.log_interval)


def _callbacks(session: Session, tracker: WandbRun, stack: ExitStack) -> list[BaseCallback]:
    """Return the run's callbacks but its checkpoints."""
    config, folder = session.config, session.folder
    callbacks: list[BaseCallback] = [ActivityCallback(config.log_interval)]
    if config.eval_freq:
        env = evaluation_env(config, min(config.n_envs, config.eval_episodes), config.seed)
        stack.callback(env.close)
        callbacks.append(EvaluationCallback(env, config.eval_freq, config.eval_episodes, step_limit(config)))
    if config.video_freq:
        callbacks.append(VideoCallback(config, folder, tracker, config.video_freq))
    if config.verbose:
        progress = ProgressCallback(config.total_timesteps)
        stack.callback(progress.close)
        callbacks.append(progress)
    return callbacks


def _checkpoints(session: Session) -> CheckpointCallback:
    config = session.config
    store = CheckpointStore(session.folder.checkpoints, config.keep_checkpoints)
    return CheckpointCallback(store, config.save_freq, facts(session.model, config))


def _say_where_the_time_went(session: Session) -> None:
    if session.config.profile:
        steps = session.model.num_timesteps - (session.resumed_at or 0)
        get_console().print(profile_table(session.model.stopwatch.stop(), steps))


def _save_results(session: Session) -> None:
    """Write the rest of progress.csv, `model.zip` and the policy alone; none of them ever half written.

    Raises:
        RimsError: when the disk refuses; the checkpoints are written by then, or their failure was said.
    """
    _log_the_rest(session)
    beside = session.folder.path / ".model.unfinished.zip"
    about = {**facts(session.model, session.config), "step": session.model.num_timesteps}
    try:
        with open(beside, "wb", opener=no_link) as file:
            session.model.save(file)
        os.replace(beside, session.folder.model_file)
        save_policy(session.model.policy, session.folder.policy_stem, about)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise RimsError(
            f"{session.folder.path}: the final files cannot be written: {error.strerror or error}"
        ) from None


def _log_the_rest(session: Session) -> None:
    """Log the updates since the last table, if there were any and no others will follow."""
    model, config = session.model, session.config
    if model.num_timesteps >= config.total_timesteps and rollouts_of(model) % config.log_interval:
        model.dump_logs()
        cast(PacedLogger, model.logger).dump_now(model.num_timesteps)


def _report(session: Session, seconds: float, exit_code: int | None, saved_at: int | None) -> None:
    """Say what was done and how to go on, in one line."""
    path, steps = session.folder.path, session.model.num_timesteps
    if saved_at != steps:
        say(f"the last checkpoint could not be written; the newest good one is of step {saved_at or 'none'}")
    if exit_code is None:
        say(f"done: {steps:,} steps, {clock(seconds)}; see how it plays: rims-rl evaluate {path}")
    else:
        saved = "stopped and saved" if saved_at == steps else "stopped"
        say(f"{saved} at {steps:,} steps; go on with: rims-rl train --resume {path}")


def _send_results(session: Session, tracker: WandbRun) -> None:
    """Give the final policy to W&B, and evaluate it when evaluations were asked for."""
    folder, config = session.folder, session.config
    files = [folder.policy_stem.with_suffix(ending) for ending in (".safetensors", ".json")]
    tracker.log_artifact(files, f"policy-{tracker.id}")
    if config.eval_freq:
        copies, limit = config.n_envs, _MOST_FINAL_MINUTES
        asked = EvaluateConfig(run=folder.path, episodes=config.eval_episodes, n_envs=copies, max_minutes=limit)
        result = evaluate_run(asked)
        tracker.log({"eval/final_reward": result["mean"]}, session.model.num_timesteps)
