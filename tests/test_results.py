"""Learning curves are read as they were logged, and drawn, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.cli import main
from rims_rl.config import TrainConfig
from rims_rl.errors import ConfigError
from rims_rl.results import group_curves, read_curve
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


def rows(*points):
    """Return a progress.csv of pairs of steps and scores."""
    return HEADER + "".join(f"0,{score},{step}\n" for step, score in points)


def grouped(folder, *runs):
    """Make runs, each given as its settings and perhaps its rows, and group their curves."""
    return group_curves([read_curve(run_of(folder / str(i), **settings)) for i, settings in enumerate(runs)])


class TestSeeds:
    def test_runs_that_differ_in_their_seed_alone_are_one_curve(self, tmp_path):
        where = {"torch_threads": 1, "wandb": "disabled", "name": "b"}
        rim, lstm = grouped(tmp_path, {"seed": 0}, {"core": "lstm", "seed": 4}, dict(seed=1, **where))
        assert [rim.label, lstm.label] == ["rim, 2 seeds", "lstm, seed 4"]
        assert [curve.config.seed for curve in rim.curves] == [0, 1]

    def test_other_settings_make_another_curve_that_says_which(self, tmp_path):
        runs = [
            {"distractor": kind, "core_kwargs": sizes}
            for kind in (None, "balls:0.5")
            for sizes in ({}, {"num_units": 8})
        ]
        labels = [group.label for group in grouped(tmp_path, *runs)]
        assert labels[0] == "rim, core_kwargs none, distractor none, seed 0"
        assert labels[3] == "rim, core_kwargs num_units:8, distractor balls:0.5, seed 0"
        assert len(set(labels)) == 4

    def test_another_total_is_another_training(self, tmp_path):
        assert len(grouped(tmp_path, {"total_timesteps": 1000}, {"total_timesteps": 2000, "seed": 1})) == 2

    def test_the_same_seed_twice_is_not_called_two_seeds(self, tmp_path):
        assert grouped(tmp_path, {"seed": 3}, {"seed": 3})[0].label == "rim, 2 runs"

    def test_the_mean_is_over_the_steps_that_all_have_done(self, tmp_path):
        long, short = rows((10, 0), (20, 10), (40, 30)), rows((15, 20), (30, 20))
        (group,) = grouped(tmp_path, {"rows": long}, {"rows": short, "seed": 1})
        steps, rewards = group.mean()
        assert (steps[0], steps[-1]) == (15, 30)
        np.testing.assert_allclose(rewards, (steps - 10 + 20) / 2)

    def test_runs_without_a_step_in_common_have_no_mean(self, tmp_path):
        (group,) = grouped(tmp_path, {"rows": rows((10, 0))}, {"rows": rows((20, 1), (30, 1)), "seed": 1})
        with pytest.raises(ConfigError, match="runs of rim, 2 seeds have no steps in common"):
            group.mean()

    def test_one_run_is_drawn_as_it_was_logged(self, tmp_path):
        (group,) = grouped(tmp_path, {"rows": rows((10, 0), (20, 7))})
        np.testing.assert_array_equal(np.stack(group.mean()), [[10, 20], [0, 7]])

    def test_the_legend_has_a_line_a_group_and_the_range_of_its_ends(self, tmp_path):
        ends = {0: 10, 1: 13, 2: 16}
        runs = [str(run_of(tmp_path / f"r{seed}", rows((5, 0), (9, end)), seed=seed)) for seed, end in ends.items()]
        runs.append(str(run_of(tmp_path / "other", rows((5, 0), (9, 4)), seed=0, gamma=0.9)))
        assert main(["plot", *runs, "--output", str(tmp_path / "curves.svg")]) == 0
        drawn = (tmp_path / "curves.svg").read_text()
        for text in ("rim, gamma 0.99, 3 seeds: 13.0 (10.0 to 16.0)", "rim, gamma 0.9, seed 0: 4.0"):
            assert f"<!-- {text} -->" in drawn
