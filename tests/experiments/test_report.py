"""The table says what was measured: means, spreads, seeds, failures, and the paper's numbers where there are some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.figures import (
    Label,
    by_variant,
    colours,
    draw_activity,
    draw_curves,
    place_labels,
)
from rims_rl.experiments.report import _mishaps, _times, cells, mean_and_spread
from tests.experiments.lines import Lines

EXPERIMENT = Lines(ExperimentConfig(models=("line", "other")))
ROWS = [{"update": 0, "error": 5.0}, {"update": 3, "loss": 1.0, "error": 2.0}]


def outcome(variant: str, seed: int, weight: float | None) -> Outcome:
    figures = {} if weight is None else {"weight": weight}
    activity = torch.tensor([[1, 0], [1, 1], [0, 1]])
    ended = "finished" if figures else "failed: diverged"
    return Outcome(variant, seed, 1234, 3, 3, ended, 1.0, figures=figures, rows=ROWS, arrays={"activity": activity})


class TestTable:
    def test_means_spreads_and_the_paper(self) -> None:
        outcomes = [
            outcome("line", 0, 1.0),
            outcome("line", 1, 2.0),
            outcome("other", 0, 7.0),
            outcome("other", 1, None),
        ]
        headings, rows = cells(EXPERIMENT, outcomes)
        assert headings == ["model", "parameters", "seeds", "weight", "paper"]
        assert rows == [
            ["line", "1,234", "2", "1.50 ± 0.71", "2.00"],
            ["other", "1,234", "1 (1 failed)", "7.00", ""],
            ["(nothing)", "", "", "0.25", ""],
        ]

    def test_a_trial_that_diverged_counts_and_is_named(self) -> None:
        late = replace(outcome("line", 3, 1.0), ended="diverged at update 7: the loss is nan", best_update=5)
        assert cells(EXPERIMENT, [late])[1][0][:3] == ["line", "1,234", "1"]
        (line,) = _mishaps([late])
        assert line == "line seed 3 diverged at update 7: the loss is nan; tested are its best weights, of update 5"

    def test_updates_that_were_left_out_are_told(self) -> None:
        assert _mishaps([replace(outcome("line", 3, 1.0), skipped=2), outcome("line", 4, 1.0)]) == [
            "line seed 3: 2 updates were not finite and left out"
        ]

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [((7, 12), "7 to 12 seconds"), ((600, 1200), "10 to 20 minutes"), ((3151.9,), "53 minutes")],
    )
    def test_how_long_trials_took_is_told_once(self, seconds: tuple[float, ...], said: str) -> None:
        assert _times([replace(outcome("line", 3, 1.0), seconds=each) for each in seconds]) == f"A trial took {said}."

    def test_the_papers_column_is_left_out_where_it_is_empty(self) -> None:
        assert cells(EXPERIMENT, [outcome("other", 0, 7.0)])[0] == ["model", "parameters", "seeds", "weight"]

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ([], ""),
            ([3.14159], "3.14"),
            ([1.0, 3.0], "2.00 ± 1.41"),
            ([1.0, float("nan")], "nan"),
            ([12345.0], "12,345.00"),
        ],
    )
    def test_numbers(self, values: list[float], text: str) -> None:
        assert mean_and_spread(values, 2) == text


class TestPlots:
    def test_curves_of_models_with_a_result(self, tmp_path: Path) -> None:
        drawn = draw_curves(
            [outcome("line", 0, 1.0), outcome("line", 1, None)], "error", "error", tmp_path / "a" / "b.png"
        )
        assert drawn == [tmp_path / "a" / "b.png"]
        assert drawn[0].stat().st_size > 10_000
        assert draw_curves([outcome("line", 1, None)], "error", "error", tmp_path / "none.png") == []

    def test_activity_of_trials_that_have_it(self, tmp_path: Path) -> None:
        assert draw_activity([outcome("line", 0, 1.0)], "activity", tmp_path / "x.png", {1: "here"}) == [
            tmp_path / "x.png"
        ]
        assert draw_activity([outcome("line", 0, 1.0)], "absent", tmp_path / "y.png", {}) == []

    def test_labels_that_would_overlap_stand_in_two_lines_and_end_within_the_strip(self) -> None:
        placed = place_labels({0: "symbols", 10: "blanks", 209: "marker, then answer"}, 220)
        assert placed == {
            0: Label("symbols", 0, "left"),
            10: Label("blanks", 1, "left"),
            209: Label("marker, then answer", 0, "right"),
        }
        assert [label.line for label in place_labels({0: "symbols", 10: "blanks"}, 40).values()] == [0, 0]

    def test_no_two_models_share_a_colour(self) -> None:
        names = ["rim", "lstm", *(f"other-{number}" for number in range(11)), "gru"]
        assert len(set(colours(names).values())) == len(names)

    def test_failed_trials_are_left_out(self) -> None:
        grouped = by_variant([outcome("a", 0, 1.0), outcome("b", 0, None), outcome("a", 1, 2.0)])
        assert {name: len(trials) for name, trials in grouped.items()} == {"a": 2}
