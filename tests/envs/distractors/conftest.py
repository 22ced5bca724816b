"""Frames and folders that several tests use."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rims_rl.envs.emulator import typical_screens


@pytest.fixture
def two_images(tmp_path):
    """A folder with a red and a blue image, the red one first by name."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, bgr in (("a.png", (0, 0, 255)), ("b.png", (255, 0, 0))):
        cv2.imwrite(str(folder / name), np.full((90, 120, 3), bgr, np.uint8))
    return folder


@pytest.fixture(scope="session")
def seaquest_frame():
    """A screen of Seaquest (210, 160, 3)."""
    return typical_screens("seaquest")[5]
