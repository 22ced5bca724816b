"""Learning curves are read as they were logged, and drawn, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.cli import main
from rims_rl.config import TrainConfig
from rims_rl.results import read_curve
from rims_rl.runs import RunFolder, save_config

HEADER = "step,rollout/ep_rew_mean,time/total_timesteps\n"


def run_of(path, rows=HEADER + "7,,7\n14,-2.5,14\n21,11,21\n", **settings):
    """Make a run folder with a progress.csv."""
    folder = RunFolder(path)
    folder.create()
    save_config(folder, TrainConfig(**settings), ["rims-rl", "train"])
    folder.progress_file.write_text(rows)
    return path


class TestCurves:
    def test_rows_without_a_finished_episode_are_left_out(self, tmp_path):
        curve = read_curve(run_of(tmp_path / "one"))
        np.testing.assert_array_equal(curve.steps, [14, 21])
        np.testing.assert_array_equal(curve.rewards, [-2.5, 11])

    def test_every_run_is_drawn_with_its_last_value(self, tmp_path):
        runs = [str(run_of(tmp_path / core, core=core)) for core in ("rim", "lstm")]
        assert main(["plot", *runs, "--output", str(tmp_path / "curves.svg")]) == 0
        drawn = (tmp_path / "curves.svg").read_text()
        assert drawn.count("#D55E00".lower()) + drawn.count("#0072b2") >= 2

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda folder: [], "at least one run"),
            (lambda folder: [folder / "none"], "no run folder"),
            (lambda folder: [run_of(folder / "new", HEADER)], "no finished episode"),
            (
                lambda folder: [run_of(folder / "a", env="pong"), run_of(folder / "b", env="qbert")],
                "different environments",
            ),
        ],
    )
    def test_what_cannot_be_drawn_is_one_line(self, tmp_path, capsys, make, reason):
        runs = [str(path) for path in make(tmp_path)]
        assert main(["plot", *runs, "--output", str(tmp_path / "curves.png")]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
        assert not (tmp_path / "curves.png").exists()
