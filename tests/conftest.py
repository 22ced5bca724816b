"""What every test shares: one thread for PyTorch, so that tests are as fast beside each other as alone, and a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _trained_pong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.pong_run import DISTRACTOR, train_pong

    return train_pong(tmp_path_factory.mktemp("pong") / "run", "--distractor", DISTRACTOR)


@pytest.fixture
def distracted_run(_trained_pong: Path, tmp_path: Path) -> Path:
    """A folder of one's own with a small run on Pong that was trained with `DISTRACTOR`."""
    return shutil.copytree(_trained_pong, tmp_path / "pong")
