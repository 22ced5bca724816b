"""The results of single cells on the disk: one JSON file each, written whole, so that a report can go on anywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rims_rl.errors import CheckpointError
from rims_rl.experiments.robustness.config import plain_settings
from rims_rl.experiments.robustness.play import Cell, agent_of, play_cell
from rims_rl.storage.tensor_files import write_text

_RULES = ("episodes", "seed", "deterministic", "max_episode_steps", "n_envs")


def run_cell(cell: Cell) -> None:
    """Measure a cell and write its file; raises as `play_cell` does, and OSError where the disk refuses."""
    result = {**head_of(cell), **play_cell(cell)}
    write_text(cell.file, json.dumps(result, allow_nan=False) + "\n")


def head_of(cell: Cell) -> dict[str, Any]:
    """Return what a result must agree with to count for a cell: the weights and the rules of the measurement."""
    settings = plain_settings(cell.config)
    head: dict[str, Any] = {"condition": list(cell.condition), **{name: settings[name] for name in _RULES}}
    if cell.watches_mechanism:
        head |= {"onset": cell.config.onset, "window": cell.config.window}
    if cell.path is not None:
        agent = agent_of(cell.path, cell.config.checkpoint, cell.config.device)
        head |= {"weights": agent.name, "trained_steps": agent.step}
    return head


def read_cell(cell: Cell) -> dict[str, Any] | None:
    """Return a cell's result; None where there is none.

    Raises:
        CheckpointError: when the file is damaged, or its result is of other weights or rules.
        ConfigError: when the run has no such weights.
    """
    if not cell.file.exists():
        return None
    expected = head_of(cell)
    try:
        result = json.loads(cell.file.read_text("utf-8"))
        differing = [name for name, value in expected.items() if result[name] != value]
        _check_figures(result, cell.watches_mechanism)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{_short(cell.file)} is damaged ({error}); remove it to measure it anew") from None
    if differing:
        raise CheckpointError(
            f"{_short(cell.file)} was measured with another {differing[0]}; choose another --output, or remove it"
        )
    found: dict[str, Any] = result
    return found


def _check_figures(result: dict[str, Any], is_mechanism: bool) -> None:
    """Raise ValueError unless there is a score for every game, or a list of steps, and all are numbers."""
    figures = result["steps" if is_mechanism else "scores"]
    are_numbers = all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures)
    if not figures or not are_numbers or not (is_mechanism or len(figures) == result["episodes"]):
        raise ValueError("figures are missing")


def _short(file: Path) -> str:
    return f"{file.parent.parent.name}/{file.parent.name}/{file.name}"
