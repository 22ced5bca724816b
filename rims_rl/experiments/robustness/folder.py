"""The folder of a robustness report: its settings, a file per cell of the grid, and what came out.

A folder such as runs/robustness_20260102-030405 holds

* config.yaml: every setting, the package versions and every command;
* cells/: the games of every run in every condition, and what happened in the memories;
* results.json, table.md and plots/: the report.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rims_rl.errors import ConfigError, shortened
from rims_rl.experiments.folder import ReportFolder, read_about, write_settings
from rims_rl.experiments.robustness.conditions import Condition
from rims_rl.experiments.robustness.config import RobustnessConfig, plain_settings
from rims_rl.runs import RUNS
from rims_rl.settings import checked_settings, parse_mapping, read_text
from rims_rl.storage.plain_files import expanded


class RobustnessFolder(ReportFolder):
    """The paths of one report."""

    parts_name = "cells"

    def cell(self, subject: str, condition: Condition, kind: str = "scores") -> Path:
        """Return the file of one measurement: `scores`, or `mechanism`."""
        return self.parts / f"{kind}_{subject}_{condition.slug}.json"


def folder_for(config: RobustnessConfig) -> RobustnessFolder:
    """Return the folder that the settings ask for, without touching the disk."""
    path = config.resume or config.output or RUNS / f"robustness_{time.strftime('%Y%m%d-%H%M%S')}"
    return RobustnessFolder(expanded(path))


def save_settings(folder: RobustnessFolder, config: RobustnessConfig) -> dict[str, Any]:
    """Write `config.yaml` and return what it says under `about`: versions and commands."""
    head, is_resumed = {"report": "robustness"}, config.resume is not None
    return write_settings(folder, plain_settings(config), head, is_resumed=is_resumed)


def load_settings(path: Path) -> RobustnessConfig:
    """Return the settings of the report in a folder, with `resume` set to it.

    Raises:
        ConfigError: when the folder is missing or holds no such report.
    """
    folder = RobustnessFolder(expanded(path))
    if not expanded(folder.config_file).is_file():
        raise ConfigError(f"{path} holds no robustness report: there is no config.yaml in it")
    if read_about(folder).get("report") != "robustness":
        raise ConfigError(f"{path} holds no robustness report, but something else")
    entries = parse_mapping(str(folder.config_file), read_text(folder.config_file))
    entries.pop("about", None)
    runs = entries.pop("runs", [])
    if not isinstance(runs, list) or not all(isinstance(run, str) and "\0" not in run for run in runs):
        raise ConfigError(f"{folder.config_file}: runs must be a list of paths, got {shortened(runs)}")
    settings = checked_settings(entries, RobustnessConfig, str(folder.config_file))
    return replace(RobustnessConfig(), runs=tuple(map(Path, runs)), resume=path, **settings)
