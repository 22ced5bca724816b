"""The folder of a robustness report: its settings, a file per cell of the grid, and what came out.

A folder such as runs/robustness_20260102-030405 holds

* config.yaml: every setting, the package versions and every command;
* cells/: the games of every run in every condition, and what happened in the memories;
* results.json, table.md and plots/: the report.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rims_rl.errors import ConfigError
from rims_rl.experiments.robustness.conditions import Condition
from rims_rl.experiments.robustness.config import RobustnessConfig, plain_settings
from rims_rl.runs import RUNS, RunFolder, command_line, versions
from rims_rl.settings import checked_settings, parse_mapping, read_text
from rims_rl.storage.tensor_files import write_text


class RobustnessFolder(RunFolder):
    """The paths of one report."""

    @property
    def cells(self) -> Path:
        """Folder of the measurements."""
        return self.path / "cells"

    @property
    def results(self) -> Path:
        """Every figure of the report."""
        return self.path / "results.json"

    @property
    def table(self) -> Path:
        """The report as Markdown."""
        return self.path / "table.md"

    @property
    def plots(self) -> Path:
        """Folder of the plots."""
        return self.path / "plots"

    def cell(self, subject: str, condition: Condition, kind: str = "scores") -> Path:
        """Return the file of one measurement: `scores`, or `mechanism`."""
        return self.cells / f"{kind}_{subject}_{condition.slug}.json"

    def holds_a_run(self) -> bool:
        """Whether anything lies here that a new report would overwrite, or take for its own."""
        return super().holds_a_run() or self.results.exists() or self.cells.exists()

    def create(self) -> None:
        """Make the folder and those inside it; raises ConfigError when the system refuses."""
        try:
            for folder in (self.path, self.cells, self.plots):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror or error}") from None


def folder_for(config: RobustnessConfig) -> RobustnessFolder:
    """Return the folder that the settings ask for, without touching the disk."""
    path = config.resume or config.output or RUNS / f"robustness_{time.strftime('%Y%m%d-%H%M%S')}"
    return RobustnessFolder(path.expanduser())


def save_settings(folder: RobustnessFolder, config: RobustnessConfig) -> dict[str, Any]:
    """Write `config.yaml` and return what it says under `about`: versions and commands."""
    now, line = time.strftime("%Y-%m-%d %H:%M:%S"), shlex.join(command_line())
    about: dict[str, Any] = {"report": "robustness", "command": line, "started": now, "versions": versions()}
    if config.resume is not None:
        about = {**about, **_about(folder)}
        about["resumed"] = [*about.get("resumed", []), {"command": line, "at": now, "versions": versions()}]
    text = yaml.safe_dump({**plain_settings(config), "about": about}, sort_keys=False, allow_unicode=True, width=120)
    write_text(folder.config_file, text)
    return about


def load_settings(path: Path) -> RobustnessConfig:
    """Return the settings of the report in a folder, with `resume` set to it.

    Raises:
        ConfigError: when the folder is missing or holds no such report.
    """
    folder = RobustnessFolder(path.expanduser())
    if not folder.config_file.is_file():
        raise ConfigError(f"{path} holds no robustness report: there is no config.yaml in it")
    if _about(folder).get("report") != "robustness":
        raise ConfigError(f"{path} holds no robustness report, but something else")
    entries = parse_mapping(str(folder.config_file), read_text(folder.config_file))
    entries.pop("about", None)
    runs = tuple(Path(run) for run in entries.pop("runs", []))
    settings = checked_settings(entries, RobustnessConfig, str(folder.config_file))
    return replace(RobustnessConfig(), runs=runs, resume=path, **settings)


def _about(folder: RobustnessFolder) -> dict[str, Any]:
    entries = parse_mapping(str(folder.config_file), read_text(folder.config_file)).get("about")
    return dict(entries) if isinstance(entries, dict) else {}
