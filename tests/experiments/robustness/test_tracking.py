"""A report on Weights & Biases: one run with tables and plots, never in the way."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.folder import RobustnessFolder
from rims_rl.experiments.robustness.report import Sheet
from rims_rl.experiments.robustness.tracking import track_report
from rims_rl.tracking import WandbSettings

SHEET = Sheet("pong: mean score, and what is retained", ["condition", "rim"], [["clean", "3.00"]])


class FakeRun:
    """Stands in for a W&B run."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.finished = False

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[WandbSettings, Path, FakeRun]]:
    runs: list[tuple[WandbSettings, Path, FakeRun]] = []

    def start(settings: WandbSettings, folder: Path) -> FakeRun:
        runs.append((settings, folder, FakeRun("offline")))
        return runs[-1][2]

    monkeypatch.setattr("rims_rl.tracking.start_wandb_run", start)
    return runs


def track(folder: Path, mode: Any, plots: tuple[Path, ...] = ()) -> None:
    config = RobustnessConfig(runs=(Path("run"),), wandb=mode, wandb_project="mine")
    track_report(config, RobustnessFolder(folder), [SHEET], plots)


def test_tables_and_plots_are_logged_once_and_the_run_is_finished(
    started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = SimpleNamespace(Table=lambda columns, data: (columns, data), Image=lambda path: f"picture {path}")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    track(tmp_path / "report", "offline", (Path("plots/heat-map-pong.png"),))
    ((settings, folder, run),) = started
    assert run.logged == [
        ({SHEET.title: (SHEET.headings, SHEET.rows), "plots/heat-map-pong": "picture plots/heat-map-pong.png"}, 0)
    ]
    assert run.finished
    assert (settings.name, settings.project, settings.tags) == ("report", "mine", ("robustness",))
    assert (settings.config["runs"], settings.config["episodes"]) == (["run"], 20)
    assert folder == tmp_path / "report"


def test_disabled_it_is_not_touched(started, tmp_path: Path) -> None:
    track(tmp_path, "disabled")
    assert started == []


def test_a_w_and_b_that_breaks_is_one_line(
    started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())  # without Table
    track(tmp_path, "offline")
    assert "W&B did not take the report" in capsys.readouterr().out
    assert started[0][2].finished


@pytest.mark.slow
def test_offline_a_real_run_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rims_rl.experiments.figures import new_figure, save_figure

    picture = save_figure(new_figure(1, 1), tmp_path / "plots" / "heat-map-pong.png")
    track(tmp_path, "offline", (picture,))
    shown = capsys.readouterr()
    assert "W&B is offline" in shown.out
    assert "did not take" not in shown.out
    (written,) = tmp_path.rglob("*.wandb")
    for _ in range(100):  # W&B's own process may close the file a moment later
        if written.stat().st_size > 500:
            break
        time.sleep(0.1)
    assert written.stat().st_size > 500
    assert len(list((tmp_path / "wandb").rglob("*.table.json"))) == 1
    assert len(list((tmp_path / "wandb").rglob("*.png"))) == 1
