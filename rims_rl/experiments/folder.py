"""The folder of an experiment: its settings, its trials, and what came out.

A folder such as runs/copying_20260102-030405 holds

* config.yaml: every setting, the package versions and every command;
* trials/MODEL_seedN/: checkpoint of an unfinished trial; weights, arrays and result.json of a finished one;
* results.json, table.md and plots/: the outcome.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from rims_rl.errors import ConfigError, shortened
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.loop import TrialFolder
from rims_rl.experiments.variants import Variant
from rims_rl.runs import RUNS, RunFolder, command_line, resumed_before
from rims_rl.settings import checked_settings, parse_mapping, read_text
from rims_rl.storage.plain_files import expanded, write_text
from rims_rl.versions import versions

C = TypeVar("C", bound=ExperimentConfig)
_LONGEST_NAME = 120


class ReportFolder(RunFolder):
    """The paths of something that is measured part by part and reported on."""

    parts_name: ClassVar[str]
    """Name of the folder that holds the parts."""

    @property
    def parts(self) -> Path:
        """Folder of the parts."""
        return self.path / self.parts_name

    @property
    def results(self) -> Path:
        """Settings, versions and every figure."""
        return self.path / "results.json"

    @property
    def table(self) -> Path:
        """The tables as Markdown."""
        return self.path / "table.md"

    @property
    def plots(self) -> Path:
        """Folder of the plots and videos."""
        return self.path / "plots"

    def holds_a_run(self) -> bool:
        """Whether anything lies here that a new one would overwrite, or take for its own."""
        has_parts = self.parts.is_dir() and any(self.parts.iterdir())
        return super().holds_a_run() or self.results.exists() or has_parts

    def create(self) -> None:
        """Make the folder and those inside it; raises ConfigError when the system refuses."""
        try:
            for folder in (self.path, self.parts, self.plots):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror or error}") from None


class ExperimentFolder(ReportFolder):
    """The paths of one experiment."""

    parts_name = "trials"

    def trial(self, variant: str, seed: int) -> TrialFolder:
        """Return the folder of one trial."""
        return TrialFolder(self.parts / f"{folder_name(variant)}_seed{seed}")


def folder_name(variant: str) -> str:
    """Return a model's name as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9.=]+", "-", variant).strip("-.")


def check_names(variants: Sequence[Variant]) -> None:
    """Raise ConfigError when two models would share a folder, or one has too long a name for its own."""
    taken: dict[str, str] = {}
    for variant in variants:
        folder = folder_name(variant.name)
        if folder in taken:
            raise ConfigError(f"models {taken[folder]} and {variant.name} are named alike; give each model once")
        if len(folder) > _LONGEST_NAME:
            raise ConfigError(f"model {variant.name[:40]}... has {len(folder)} characters, at most {_LONGEST_NAME} fit")
        taken[folder] = variant.name


def folder_for(name: str, config: ExperimentConfig) -> ExperimentFolder:
    """Return the folder that the settings ask for, without touching the disk."""
    if config.resume is not None:
        return ExperimentFolder(expanded(config.resume))
    if config.output is not None:
        return ExperimentFolder(expanded(config.output))
    return ExperimentFolder(RUNS / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}")


def plain_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings as YAML- and JSON-safe values, without `resume` and `output`."""
    plain = {}
    for name, value in asdict(config).items():
        if name not in ("resume", "output"):
            plain[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    return plain


def save_settings(folder: ExperimentFolder, name: str, config: ExperimentConfig) -> None:
    """Write `config.yaml`: all settings, and under `about` the experiment, the versions and every command."""
    write_settings(folder, plain_settings(config), {"experiment": name}, is_resumed=config.resume is not None)


def write_settings(
    folder: ReportFolder, settings: dict[str, Any], head: dict[str, str], *, is_resumed: bool
) -> dict[str, Any]:
    """Write `config.yaml` and return what it says under `about`: its head, the versions and every command."""
    now, line = time.strftime("%Y-%m-%d %H:%M:%S"), shlex.join(command_line())
    about: dict[str, Any] = {**head, "command": line, "started": now, "versions": versions()}
    if is_resumed:
        about = {**about, **read_about(folder)}
        about["resumed"] = [*resumed_before(about), {"command": line, "at": now, "versions": versions()}]
    text = yaml.safe_dump({**settings, "about": about}, sort_keys=False, allow_unicode=True, width=120)
    write_text(folder.config_file, text)
    return about


def read_about(folder: ReportFolder) -> dict[str, Any]:
    """Return what `config.yaml` says under `about`."""
    entries = parse_mapping(str(folder.config_file), read_text(folder.config_file)).get("about")
    return dict(entries) if isinstance(entries, dict) else {}


def load_settings(path: Path, name: str, kind: type[C]) -> C:
    """Return the settings of the experiment in a folder, with `resume` set to it.

    Raises:
        ConfigError: when the folder is missing, or holds no experiment of this name.
    """
    folder = ExperimentFolder(expanded(path))
    if not expanded(folder.config_file).is_file():
        raise ConfigError(f"{path} holds no experiment: there is no config.yaml in it")
    entries = parse_mapping(str(folder.config_file), read_text(folder.config_file))
    found = read_about(folder).get("experiment")
    if found != name:
        held = shortened(found)[1:-1] if found else "a training run"
        raise ConfigError(f"{path} holds {held}, not the experiment {name}")
    entries.pop("about", None)
    preset = entries.pop("config", None)
    settings = checked_settings(entries, kind, str(folder.config_file))
    return replace(kind(), config=None if preset is None else shortened(preset).strip("'"), resume=path, **settings)
