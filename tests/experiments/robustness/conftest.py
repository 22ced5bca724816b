"""One small report on two untrained agents, and copies of it that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rims_rl.cli import main
from rims_rl.experiments.robustness import grid
from tests.experiments.robustness.small import ONE_KIND, OPTIONS, RANDOM_GAMES, untrained_run, with_core


@pytest.fixture(scope="session", autouse=True)
def _few_random_games() -> Iterator[None]:
    """Let random play be short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "RANDOM_GAMES", RANDOM_GAMES)
        yield


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on Breakout: a RIM that sees places, and an LSTM."""
    folder = tmp_path_factory.mktemp("runs")
    rim = with_core("rim", encoder="nature-slots", encoder_kwargs={"features_dim": 5})
    return [untrained_run(folder / "rim", rim), untrained_run(folder / "lstm", with_core("lstm"))]


@pytest.fixture(scope="session")
def _report(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robustness") / "report"
    assert main(["robustness", *map(str, runs), *ONE_KIND, *OPTIONS, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def report(_report: Path, tmp_path: Path) -> Path:
    """A folder of one's own with a report of both runs under balls that training never showed."""
    return shutil.copytree(_report, tmp_path / "report")
