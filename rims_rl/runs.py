"""Run folders: where they lie, what they hold, and who may write to them.

A folder such as runs/pong_rim_0_20260102-030405 holds

* config.yaml: every setting, the package versions and the exact command;
* progress.csv: one row per log interval;
* checkpoints/: the newest ones and the best;
* model.zip: for Stable-Baselines3;
* policy.safetensors: the weights alone, with policy.json beside them;
* videos/ and evaluation.json: what `record` and `evaluate` write.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import IO, Any

import yaml

from rims_rl.config import TrainConfig, as_plain
from rims_rl.errors import ConfigError, RunExistsError, shortened
from rims_rl.settings import checked_settings, parse_mapping, read_text
from rims_rl.storage.plain_files import check_only_files, expanded, no_link, write_text
from rims_rl.versions import versions

_LONGEST_SLUG = 120
_MOST_RESUMES = 100
"""Resumes that config.yaml tells of: the newest ones."""
RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path
    """The run's folder."""

    @property
    def config_file(self) -> Path:
        """Every setting, the versions and the command."""
        return self.path / "config.yaml"

    @property
    def progress_file(self) -> Path:
        """One row per log interval."""
        return self.path / "progress.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the newest checkpoints and the best one."""
        return self.path / "checkpoints"

    @property
    def model_file(self) -> Path:
        """The model for Stable-Baselines3."""
        return self.path / "model.zip"

    @property
    def policy_stem(self) -> Path:
        """The weights alone: add .safetensors, or .json for what they belong to."""
        return self.path / "policy"

    @property
    def wandb_file(self) -> Path:
        """The W&B run's id, so that a resumed run goes on in the same one."""
        return self.path / "wandb_run.json"

    @property
    def evaluation_file(self) -> Path:
        """The newest evaluation in the view of the training."""
        return self.evaluation_of("")

    def evaluation_of(self, view: str) -> Path:
        """Return the file of the newest evaluation in a view: a distractor or a variant, as text; empty: as trained."""
        return self.path / (f"evaluation_{_slug(view)}.json" if view else "evaluation.json")

    @property
    def videos(self) -> Path:
        """Folder of the videos."""
        return self.path / "videos"

    def video_of(self, weights: str, seed: int, view: str) -> Path:
        """Return the file of a video of some weights and a seed, in a view: a distractor or a variant, as text."""
        return self.videos / f"{weights}_{seed}{f'_{_slug(view)}' if view else ''}.mp4"

    def holds_a_run(self) -> bool:
        """Whether anything of a run lies here that a new one would overwrite."""
        files = (self.config_file, self.progress_file, self.model_file)
        return any(file.exists() for file in files) or any(self.checkpoints.glob("*.safetensors"))

    def create(self) -> None:
        """Make the folder and those inside it; raises ConfigError when the system refuses."""
        try:
            for folder in (self.path, self.checkpoints, self.videos):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror or error}") from None


def run_folder_for(config: TrainConfig) -> RunFolder:
    """Return the folder that this configuration asks for, without touching the disk."""
    if config.output is not None:
        return RunFolder(expanded(config.output))
    if config.name is not None:
        return RunFolder(RUNS / _slug(config.name))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{_slug(config.env)}_{_slug(config.core)}_{config.seed}_{stamp}"
    free = (RUNS / f"{name}{'' if number < 2 else f'-{number}'}" for number in count(1))
    return RunFolder(next(path for path in free if not path.exists()))


def check_writable(folder: RunFolder) -> None:
    """Refuse a folder that holds a run, is no folder, or can't be written; creates nothing.

    Raises:
        RunExistsError: when a run lies there.
        ConfigError: when the folder could not be made or written.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise ConfigError(f"{folder.path} is a file, not a folder")
    if folder.holds_a_run():
        raise RunExistsError(
            f"{folder.path} already holds a run; go on with it by --resume {folder.path}, or choose another folder"
        )
    nearest = next(parent for parent in [folder.path, *folder.path.absolute().parents] if parent.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{folder.path} cannot be made: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder.path} cannot be written: no permission in {nearest}")


def open_run(path: Path) -> RunFolder:
    """Return the folder of an existing run.

    Raises:
        ConfigError: when the folder is missing or holds no run.
    """
    folder = RunFolder(expanded(path))
    if not folder.path.is_dir():
        raise ConfigError(f"no run folder at {path}")
    if not expanded(folder.config_file).is_file():
        raise ConfigError(f"{path} holds no run: there is no config.yaml in it")
    return folder


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run's lock, so that two processes can't write to one folder; the system frees it however we end."""
    check_only_files(folder.path)
    lock = folder.path / ".lock"  # it stays: removing it would let a third one in
    try:
        handle = open(lock, "w", opener=no_link)  # noqa: SIM115 - the caller's errors are no errors of the lock
    except OSError as error:
        raise ConfigError(f"{lock} cannot be written: {error.strerror or error}") from None
    with handle:
        _lock(handle, folder.path)
        yield


def _lock(handle: IO[str], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such locks; the folder's name is unique there all the same
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RunExistsError(f"{path} is in use: another process is training in it") from None


def save_config(folder: RunFolder, config: TrainConfig, command: list[str]) -> None:
    """Write `config.yaml`: all settings, and under `about` the versions and every command that the run was given."""
    now, line = time.strftime("%Y-%m-%d %H:%M:%S"), shlex.join(command)
    about: dict[str, Any] = {"command": line, "started": now, "versions": versions()}
    if config.resume is not None:
        about = {**about, **_about(folder)}
        newest = {"command": line, "at": now, "versions": versions()}
        about["resumed"] = [*resumed_before(about)[1 - _MOST_RESUMES :], newest]
    text = yaml.safe_dump({**as_plain(config), "about": about}, sort_keys=False, allow_unicode=True, width=120)
    try:
        write_text(folder.config_file, text)
    except OSError as error:
        raise ConfigError(f"{folder.config_file} cannot be written: {error.strerror or error}") from None


def _about(folder: RunFolder) -> dict[str, Any]:
    entries = parse_mapping(str(folder.config_file), read_text(folder.config_file)).get("about")
    return dict(entries) if isinstance(entries, dict) else {}


def resumed_before(about: Mapping[str, Any]) -> list[Any]:
    """Return what `config.yaml` says under `about` of earlier resumes."""
    resumed = about.get("resumed")
    return resumed if isinstance(resumed, list) else []


def load_config(folder: RunFolder) -> TrainConfig:
    """Read a run's settings back, checked like a preset's; executes nothing that the file says."""
    entries = parse_mapping(str(folder.config_file), read_text(folder.config_file))
    entries.pop("about", None)
    preset = entries.pop("config", None)
    settings = checked_settings(entries, TrainConfig, str(folder.config_file))
    return replace(TrainConfig(), config=None if preset is None else shortened(preset).strip("'"), **settings)


def command_line() -> list[str]:
    """Return the command that this process was started with, as one would type it."""
    program = Path(sys.argv[0]).name
    start = ["python", "-m", "rims_rl"] if program == "__main__.py" else [program]
    return start + sys.argv[1:]


def describe_run(folder: RunFolder, config: TrainConfig) -> dict[str, Any]:
    """Return what results of this run should carry: where it lies, the task, the memory and the versions."""
    return {
        "run": str(folder.path), "env": config.env, "core": config.core, "seed": config.seed, "versions": versions()
    }  # fmt: skip


def _slug(text: str) -> str:
    """Return a text that is safe as one folder name, and short enough; long ones end in a checksum of the rest."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "run"
    return slug if len(slug) <= _LONGEST_SLUG else f"{slug[:_LONGEST_SLUG]}-{zlib.crc32(text.encode()):08x}"
