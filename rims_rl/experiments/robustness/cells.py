"""The results of single cells on the disk: one JSON file each, written whole, so that a report can go on anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rims_rl.errors import CheckpointError, said, shortened
from rims_rl.experiments.robustness.config import plain_settings
from rims_rl.experiments.robustness.play import Cell, agent_of, play_cell
from rims_rl.experiments.robustness.subjects import world_of
from rims_rl.storage.plain_files import read_json, write_text

_RULES = ("episodes", "seed", "deterministic", "max_episode_steps", "n_envs")
_RULES_OF_A_COURSE = frozenset({"condition", "weights", "trained_steps", "onset", "window", "seconds", *_RULES})
_BY_UNIT = frozenset({"active_clean", "active_disturbed", "null_clean", "null_disturbed", "unit_change"})
_MOST_BYTES = 64 * 2**20
_LARGEST = 1e30  # beyond it means and ratios may not be finite


def run_cell(cell: Cell) -> None:
    """Measure a cell and write its file; raises as `play_cell` does, and OSError where the disk refuses."""
    result = {**head_of(cell), **play_cell(cell)}
    write_text(cell.file, json.dumps(result, allow_nan=False) + "\n")


def head_of(cell: Cell) -> dict[str, Any]:
    """Return what a result must agree with to count for a cell: the weights and the rules of the measurement.

    Random play has no weights; there it is the world that it was played in.
    """
    settings = plain_settings(cell.config)
    head: dict[str, Any] = {"condition": list(cell.condition), **{name: settings[name] for name in _RULES}}
    if cell.watches_mechanism:
        head |= {"onset": cell.config.onset, "window": cell.config.window}
    if cell.path is not None:
        agent = agent_of(cell.path, cell.config.checkpoint, cell.config.device)
        head |= {"weights": agent.name, "trained_steps": agent.step}
    else:
        head |= {"world": world_of(cell.run)}
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
        result = read_json(cell.file, _MOST_BYTES)
        differing = [name for name, value in expected.items() if result[name] != value]
        (_check_course if cell.watches_mechanism else _check_scores)(result)
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise CheckpointError(f"{_short(cell.file)} is damaged ({said(error)}); remove it to measure it anew") from None
    if differing:
        raise CheckpointError(
            f"{_short(cell.file)} was measured with another {differing[0]}; choose another --output, or remove it"
        )
    found: dict[str, Any] = result
    return found


def _check_scores(result: dict[str, Any]) -> None:
    """Raise ValueError unless there is a finite score for every game."""
    scores = result["scores"]
    if not _is_numbers(scores) or len(scores) != result["episodes"]:
        raise ValueError("figures are missing")
    if any(0 < abs(score) < 1 / _LARGEST for score in scores):
        raise ValueError("a score is too small to be divided by")


def _check_course(result: dict[str, Any]) -> None:
    """Raise ValueError unless every figure of `watch_onset` is a list over the steps, of numbers or lists of them."""
    steps = result["steps"]
    if not _is_numbers(steps):
        raise ValueError("figures are missing")
    for name, figures in result.items():
        if name in _RULES_OF_A_COURSE:
            continue
        if not isinstance(figures, list) or len(figures) != len(steps):
            raise ValueError(f"{shortened(name)} is no list over {len(steps)} steps")
        there = [figure for figure in figures if figure is not None]
        is_alike = all(map(_is_number, there))
        if name in _BY_UNIT:
            is_alike = all(map(_is_numbers, there)) and len({len(figure) for figure in there}) <= 1
        if not is_alike:
            raise ValueError(f"{shortened(name)} holds something that is no number")


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _short(file: Path) -> str:
    return f"{file.parent.parent.name}/{file.parent.name}/{file.name}"
