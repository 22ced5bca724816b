"""What the command line says of an environment that raises: its traceback, and one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rims_rl.cli import main

pytestmark = pytest.mark.faults
OPTIONS = [
    "train", "--env", "rims_rl_tests/Raising-v0", "--core-kwargs", "num_units:3,active_units:2,unit_size:5",
    "--n-envs", "1", "--n-steps", "8", "--batch-size", "8", "--wandb", "disabled", "--verbose", "0", "--device", "cpu",
    "-n", "32",
]  # fmt: skip


class Raising(gym.Env[Any, Any]):
    """Raises in its fifth step."""

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own form
    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 5
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(3, np.float32), self._reward_deep_inside(), False, False, {}

    def _reward_deep_inside(self) -> float:
        return 1 / self.left


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register("rims_rl_tests/Raising-v0", entry_point=Raising, max_episode_steps=10)
    yield
    del gym.registry["rims_rl_tests/Raising-v0"]


@pytest.mark.parametrize("processes", [[], ["--subprocess", "--env-restarts", "1"]])
def test_an_environment_that_raises_is_told_with_its_traceback(processes, tmp_path, capsys, caplog):
    assert main([*OPTIONS, *processes, "--output", str(tmp_path / "run")]) == 2
    *traceback, line = capsys.readouterr().err.rstrip().split("\n")
    assert re.match(r"rims-rl: environment 0 \(.*\) raised ZeroDivisionError: division by zero$", line)
    assert any("in _reward_deep_inside" in entry for entry in traceback)
    warnings = [record.getMessage() for record in caplog.records if "takes its place" in record.getMessage()]
    assert ["in _reward_deep_inside" in warning for warning in warnings] == [True] * bool(processes)
