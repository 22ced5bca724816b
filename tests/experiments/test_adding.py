"""The adding task: its data, its metric, and one trial from beginning to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rims_rl.errors import ConfigError
from rims_rl.experiments.adding import CHANCE, Adding, AddingConfig, adding_batch
from tests.experiments.resuming import assert_resumed_equals_uninterrupted

SMALL = AddingConfig(
    rim={"num_units": 3, "active_units": 2, "unit_size": 5}, embedding_size=7, train_length=6, test_lengths=(6, 11),
    test_sequences=9, batch_size=4, updates=5, eval_freq=3, device="cpu",
)  # fmt: skip


class TestData:
    @pytest.mark.parametrize("length", [2, 7, 50])
    def test_one_mark_per_half_and_the_sum_of_the_two_marked_numbers(self, length: int) -> None:
        inputs, sums = adding_batch(13, length)
        assert inputs.shape == (length, 13, 3)
        half = length // 2
        for example in range(13):
            first, second = (inputs[:, example, mark].nonzero().flatten().tolist() for mark in (1, 2))
            assert len(first) == len(second) == 1
            assert first[0] < half <= second[0]
            assert sums[example] == inputs[first[0], example, 0] + inputs[second[0], example, 0]

    def test_always_saying_the_mean_gives_chance(self) -> None:
        torch.manual_seed(0)
        _, sums = adding_batch(20_000, 4)
        assert float(((sums - 1.0) ** 2).mean()) == pytest.approx(CHANCE, abs=0.005)


class TestTrial:
    def test_a_tiny_one_resumed_half_way_equals_an_uninterrupted_one(self, tmp_path: Path) -> None:
        experiment = Adding(SMALL)
        whole = assert_resumed_equals_uninterrupted(experiment, experiment.variants()[0], tmp_path, stop_after=3)
        assert set(whole.figures) == {"squared_error_6", "squared_error_11"}
        assert whole.arrays["activity_11"].shape == (11, 3)
        assert whole.arrays["marks_11"].sum() == 2

    def test_perfect_prediction_gives_zero(self, monkeypatch: pytest.MonkeyPatch) -> None:
        experiment = Adding(SMALL)
        trial = experiment.trial(experiment.variants()[1], 0)

        def perfect(inputs: torch.Tensor) -> torch.Tensor:
            return (inputs[..., 0] * inputs[..., 1:].sum(-1)).sum(0).unsqueeze(1)

        monkeypatch.setattr(trial.model, "last", perfect)
        assert trial.validate()["squared_error"] == pytest.approx(0.0, abs=1e-12)
        monkeypatch.setattr(trial.model, "last", lambda inputs: perfect(inputs) + 0.5)
        assert trial.validate()["squared_error"] == pytest.approx(0.25)


def test_lengths_below_two_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^lengths must be at least 2, got 1 and \(50, 200\)$"):
        AddingConfig(train_length=1).check()
