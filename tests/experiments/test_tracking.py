"""Trials on Weights & Biases: one run each, grouped, gone on with after a resume, never in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.folder import ExperimentFolder
from rims_rl.experiments.tracking import track
from rims_rl.experiments.variants import Variant
from rims_rl.experiments.workers import Job
from rims_rl.tracking import WandbSettings

CONFIG = ExperimentConfig(wandb="offline", wandb_project="mine", device="cpu")


class FakeRun:
    """Stands in for a W&B run."""

    def __init__(self, run_id: str | None) -> None:
        self.id = run_id or "new"
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[WandbSettings, Path, FakeRun]]:
    runs: list[tuple[WandbSettings, Path, FakeRun]] = []

    def start(settings: WandbSettings, folder: Path, run_id: str | None) -> FakeRun:
        runs.append((settings, folder, FakeRun(run_id)))
        return runs[-1][2]

    monkeypatch.setattr("rims_rl.tracking.start_wandb_run", start)
    return runs


def job(folder: Path, **changes: Any) -> Job:
    config = replace(CONFIG, **changes)
    return Job("copying", config, Variant("rim:active_units=2", "rim"), 7, ExperimentFolder(folder), 1)


def test_rows_arrive_at_their_updates_and_the_run_is_finished(started, tmp_path: Path) -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    with track(job(tmp_path / "exp"), lambda update, row: heard.append((update, row))) as say:
        say(1, {})
        say(5, {"update": 5, "loss": 0.5})
    settings, folder, run = started[0]
    assert heard == [(1, {}), (5, {"update": 5, "loss": 0.5})]
    assert run.logged == [(5, {"loss": 0.5})]
    assert run.finished
    assert (settings.name, settings.group, settings.project) == ("copying rim:active_units=2 seed 7", "exp", "mine")
    assert settings.tags == ("copying", "rim:active_units=2")
    assert (settings.config["seed"], settings.config["updates"]) == (7, 30_000)
    assert folder == tmp_path / "exp" / "trials" / "rim-active-units=2_seed7"


def test_a_resumed_trial_goes_on_in_its_run_even_after_an_error(started, tmp_path: Path) -> None:
    started_with = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="diverged"), track(job(tmp_path), lambda *_: None):
            raise RuntimeError("diverged")
        started_with.append(started[-1][2].id)
        assert started[-1][2].finished
    (tmp_path / "trials" / "rim-active-units=2_seed7" / "wandb_run.json").write_text('{"id": "old"}')
    with track(job(tmp_path), lambda *_: None):
        pass
    assert started[-1][2].id == "old"


def test_disabled_it_is_not_touched(started, tmp_path: Path) -> None:
    with track(job(tmp_path, wandb="disabled"), print) as say:
        assert say is print
    assert started == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_offline_a_real_run_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with track(job(tmp_path), lambda *_: None) as say:
        say(5, {"update": 5, "loss": 0.5})
    assert "W&B is offline" in capsys.readouterr().out
    assert list((tmp_path / "trials").rglob("*.wandb"))
