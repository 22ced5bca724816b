"""What the experiments' tests share: a trial that is interrupted and resumed must equal one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rims_rl.experiments.experiment import Experiment, Outcome
from rims_rl.experiments.loop import TrialFolder, read_outcome, run_trial
from rims_rl.experiments.variants import Variant


def run(
    experiment: Experiment[Any], variant: Variant, folder: Path, stop_after: int | None = None, seed: int = 3
) -> Outcome | None:
    """Run one trial in this process; with `stop_after`, it is stopped after so many of its own updates."""
    done = 0

    def say(update: int, row: dict[str, float]) -> None:
        nonlocal done
        done += not row

    return run_trial(
        lambda: experiment.trial(variant, seed),
        Outcome(variant.name, seed),
        experiment.config,
        TrialFolder(folder),
        say,
        lambda: stop_after is not None and done >= stop_after,
    )


def assert_resumed_equals_uninterrupted(
    experiment: Experiment[Any], variant: Variant, folder: Path, stop_after: int
) -> Outcome:
    """Run a trial whole and in two parts, each part by objects of its own, and compare everything but the time."""
    whole = run(experiment, variant, folder / "whole")
    assert whole is not None
    again = type(experiment)(experiment.config)
    assert run(again, variant, folder / "parts", stop_after) is None
    assert (folder / "parts" / "checkpoint.safetensors").is_file()
    parts = run(type(experiment)(experiment.config), variant, folder / "parts")
    assert parts is not None
    assert 0 < stop_after < whole.updates == parts.updates
    assert parts.rows == whole.rows
    assert parts.figures == whole.figures
    assert (parts.best_update, parts.ended) == (whole.best_update, whole.ended)
    assert parts.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        torch.testing.assert_close(parts.arrays[name], array, rtol=0, atol=0, equal_nan=True)
    assert read_outcome(TrialFolder(folder / "parts"), variant.name, 3).figures == whole.figures
    assert not (folder / "parts" / "checkpoint.safetensors").exists()
    return whole
