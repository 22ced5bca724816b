"""The copying task: its data, its metric, and one trial from beginning to end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.experiments.copying import CHANCE, TOKENS, Copying, CopyingConfig, answer_figures, copying_batch
from tests.experiments.resuming import assert_resumed_equals_uninterrupted

SMALL = CopyingConfig(
    models=("rim", "lstm"), rim={"num_units": 3, "active_units": 2, "unit_size": 5, "preset": "paper"},
    embedding_size=7, train_blanks=3, test_blanks=(3, 5), test_sequences=11, batch_size=4, updates=6, eval_freq=4,
    device="cpu",
)  # fmt: skip


class TestData:
    def test_ten_symbols_then_blanks_then_the_marker_then_blanks(self) -> None:
        inputs, targets = copying_batch(batch=5, blanks=4)
        assert inputs.shape == targets.shape == (24, 5)
        assert inputs[:10].min() >= 1
        assert inputs[:10].max() <= 8
        assert inputs[10:].tolist() == [[0] * 5] * 3 + [[9] * 5] + [[0] * 5] * 10
        assert targets[:14].eq(0).all()
        assert torch.equal(targets[14:], inputs[:10])

    def test_every_symbol_is_as_likely_as_any_other(self) -> None:
        torch.manual_seed(0)
        counts = torch.bincount(copying_batch(4000, 1)[0][:10].flatten(), minlength=9)[1:]
        assert (counts - 5000).abs().max() < 5 * math.sqrt(5000)


class TestMetric:
    def test_perfect_prediction_gives_zero_and_a_hundred(self) -> None:
        _, targets = copying_batch(3, 7)
        cross_entropy, accuracy = answer_figures(100.0 * F.one_hot(targets, TOKENS).float(), targets)
        assert cross_entropy == pytest.approx(0.0, abs=1e-6)
        assert accuracy == 100.0

    def test_guessing_among_the_eight_symbols_gives_chance(self) -> None:
        torch.manual_seed(0)
        _, targets = copying_batch(500, 7)
        logits = torch.full((*targets.shape, TOKENS), -100.0)
        logits[..., 1:9] = 0.0
        assert answer_figures(logits, targets)[0] == pytest.approx(CHANCE, abs=1e-5)
        assert pytest.approx(math.log(8)) == CHANCE
        logits[..., 3] = 0.1
        assert answer_figures(logits, targets)[1] == pytest.approx(12.5, abs=1.5)

    def test_blanks_before_the_answer_do_not_count(self) -> None:
        _, targets = copying_batch(3, 7)
        logits = 100.0 * F.one_hot(targets, TOKENS).float()
        logits[:-10] = torch.randn_like(logits[:-10])
        assert answer_figures(logits, targets)[1] == 100.0


class TestTrial:
    def test_a_tiny_one_resumed_half_way_equals_an_uninterrupted_one(self, tmp_path: Path) -> None:
        experiment = Copying(SMALL)
        rim = experiment.variants()[0]
        whole = assert_resumed_equals_uninterrupted(experiment, rim, tmp_path, stop_after=3)
        assert set(whole.figures) == {f"{what}_{n}" for what in ("cross_entropy", "accuracy") for n in (3, 5)}
        assert whole.arrays["activity_5"].shape == (25, 3)
        assert whole.arrays["activity_5"].sum(dim=1).eq(2).all()

    def test_dropout_is_resumed_exactly_too(self, tmp_path: Path) -> None:
        experiment = Copying(replace(SMALL, dropout=0.5))
        assert_resumed_equals_uninterrupted(experiment, experiment.variants()[1], tmp_path, stop_after=3)

    def test_validation_has_the_training_length_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        experiment, drawn = Copying(SMALL), []
        trial = experiment.trial(experiment.variants()[1], 0)
        draw = trial._batch
        monkeypatch.setattr(trial, "_batch", lambda batch, blanks: drawn.append((batch, blanks)) or draw(batch, blanks))
        with torch.no_grad():
            trial.validate()
        assert drawn == [(4, 3), (4, 3), (3, 3)]


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train_blanks": 0}, "train_blanks must be at least 1, got 0"),
            ({"test_blanks": ()}, "test_blanks must be numbers of at least 1, got ()"),
            ({"test_blanks": (0, 5)}, "test_blanks must be numbers of at least 1, got (0, 5)"),
            ({"dropout": 1.0}, "dropout must lie in [0, 1), got 1.0"),
            ({"seeds": 1001}, "seeds must be at most 1000, got 1001"),
            ({"target": float("nan")}, "target must be finite, got nan"),
            ({"updates": 0}, "updates must be at least 1, got 0"),
            ({"learning_rate": -1.0}, "learning_rate must be positive and finite, got -1.0"),
        ],
    )
    def test_bad_ones_are_one_line(self, changes: dict, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            CopyingConfig(**changes).check()
        assert str(caught.value) == message

    def test_models_of_equal_size_by_default(self) -> None:
        experiment = Copying(CopyingConfig(embedding_size=64, device="cpu"))
        sizes = [experiment.trial(variant, 0).parameters() for variant in experiment.variants()]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.01)

    def test_an_unknown_model_names_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown core 'lsmt'; did you mean 'lstm'"):
            Copying(CopyingConfig(models=("lsmt",))).variants()

    def test_the_papers_numbers_stand_beside_its_own_lengths_alone(self) -> None:
        papers = {column.key: dict(column.paper) for column in Copying(CopyingConfig(match="width")).columns}
        assert (papers["cross_entropy_50"]["lstm"], papers["cross_entropy_200"]["lstm"]) == ("0.00", "3.56")
        for others in (SMALL, CopyingConfig(), CopyingConfig(match="width", train_blanks=49)):
            assert not any(column.paper for column in Copying(others).columns)
            assert "paper" not in Copying(others).caption
