"""The training loop: interruptions change no result, and the best weights are those that are tested."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from rims_rl.errors import CheckpointError, NonFiniteError
from rims_rl.experiments import loop
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.loop import TrialFolder, read_outcome
from rims_rl.experiments.variants import Variant
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from tests.experiments.lines import Lines
from tests.experiments.resuming import assert_resumed_equals_uninterrupted, run

CONFIG = ExperimentConfig(updates=13, eval_freq=5, learning_rate=0.1, device="cpu")
LINE = Variant("line", "lstm")


class TestInterruption:
    @pytest.mark.parametrize("stop_after", [1, 4, 5, 7, 12])
    def test_a_resumed_trial_equals_an_uninterrupted_one(self, tmp_path: Path, stop_after: int) -> None:
        whole = assert_resumed_equals_uninterrupted(Lines(CONFIG), LINE, tmp_path, stop_after)
        assert whole.figures["seen"] == 13

    def test_a_checkpoint_is_written_between_validations_too(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
        saved: list[int] = []
        monkeypatch.setattr(loop._Loop, "save", lambda self: saved.append(self.course.update))
        run(Lines(CONFIG), LINE, tmp_path)
        assert saved == list(range(1, 14))

    def test_seconds_add_up_over_interruptions(self, tmp_path: Path, monkeypatch) -> None:
        clock = iter(range(1000))
        monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
        assert run(Lines(CONFIG), LINE, tmp_path, stop_after=6) is None
        first = read_tensors(tmp_path / "checkpoint.safetensors")[1]["trial"]["course"]["seconds"]
        outcome = run(Lines(CONFIG), LINE, tmp_path)
        assert outcome is not None
        assert outcome.seconds > first > 0

    def test_another_seed_gives_another_result(self, tmp_path: Path) -> None:
        one, other = run(Lines(CONFIG), LINE, tmp_path / "1", seed=1), run(Lines(CONFIG), LINE, tmp_path / "2", seed=2)
        assert one is not None
        assert other is not None
        assert one.rows[0] != other.rows[0]
        assert one.figures != other.figures


class TestRows:
    def test_there_is_one_before_training_and_one_per_validation_and_at_the_end(self, tmp_path: Path) -> None:
        outcome = run(Lines(CONFIG), LINE, tmp_path)
        assert outcome is not None
        assert [row["update"] for row in outcome.rows] == [0, 5, 10, 13]
        assert "loss" not in outcome.rows[0]
        assert all(row["loss"] > 0 for row in outcome.rows[1:])

    def test_the_figures_of_updates_are_averaged_since_the_last_validation(self, tmp_path: Path) -> None:
        class Counting(Lines.kinds["rising"]):  # type: ignore[misc,name-defined]
            def update(self, step: int) -> dict[str, float]:
                super().update(step)
                return {"loss": float(step)}

        class CountingLines(Lines):
            kinds: ClassVar = {"line": Counting}

        outcome = run(CountingLines(replace(CONFIG, updates=7)), LINE, tmp_path)
        assert outcome is not None
        assert [row["loss"] for row in outcome.rows[1:]] == [2.0, 5.5]


class TestTheBestWeights:
    def test_are_tested_though_training_goes_on(self, tmp_path: Path) -> None:
        outcome = run(Lines(CONFIG), Variant("rising", "lstm"), tmp_path)
        assert outcome is not None
        assert (outcome.best_update, outcome.updates) == (10, 13)
        ten = run(Lines(replace(CONFIG, updates=10)), Variant("rising", "lstm"), tmp_path / "ten")
        assert ten is not None
        torch.testing.assert_close(outcome.arrays["w"], ten.arrays["w"], rtol=0, atol=0)
        stored, about = read_tensors(tmp_path / "weights.safetensors")
        torch.testing.assert_close(stored["line/0.weight"], ten.arrays["w"], rtol=0, atol=0)
        assert about == {"variant": "rising", "seed": 3}

    def test_patience_ends_a_trial(self, tmp_path: Path) -> None:
        config = replace(CONFIG, updates=50, patience=2)
        outcome = run(Lines(config), Variant("rising", "lstm"), tmp_path)
        assert outcome is not None
        assert (outcome.ended, outcome.updates, outcome.best_update) == ("patience", 20, 10)

    def test_reaching_the_target_ends_a_trial(self, tmp_path: Path) -> None:
        outcome = run(Lines(replace(CONFIG, updates=50, target=1.0)), Variant("rising", "lstm"), tmp_path)
        assert outcome is not None
        assert (outcome.ended, outcome.updates) == ("target", 5)

    def test_a_figure_that_should_rise_ends_at_its_target_too(self, tmp_path: Path) -> None:
        outcome = run(Lines(replace(CONFIG, updates=50, target=4.0)), Variant("climbing", "lstm"), tmp_path)
        assert outcome is not None
        assert (outcome.ended, outcome.updates, outcome.best_update) == ("target", 15, 15)

    def test_a_first_value_that_is_no_number_does_not_stay_the_best(self, tmp_path: Path) -> None:
        class FirstUnknown(Lines.kinds["rising"]):  # type: ignore[misc,name-defined]
            def validate(self) -> dict[str, float]:
                figures = super().validate()
                return figures if self.remembered["validations"] > 1 else {"error": float("nan")}

        class UnknownLines(Lines):
            kinds: ClassVar = {"line": FirstUnknown}

        outcome = run(UnknownLines(CONFIG), LINE, tmp_path)
        assert outcome is not None
        assert outcome.best_update == 10

    def test_patience_counts_across_an_interruption(self, tmp_path: Path) -> None:
        experiment = Lines(replace(CONFIG, updates=50, patience=2))
        whole = assert_resumed_equals_uninterrupted(experiment, Variant("rising", "lstm"), tmp_path, stop_after=17)
        assert (whole.ended, whole.updates) == ("patience", 20)


class TestFaults:
    def test_divergence_names_the_update(self, tmp_path: Path) -> None:
        with pytest.raises(NonFiniteError, match=r"^training diverged at update 4: the loss is nan; a smaller"):
            run(Lines(replace(CONFIG, most_skipped=0)), Variant("diverging", "lstm"), tmp_path)

    def test_divergence_is_more_updates_in_a_row_than_may_be_left_out(self, tmp_path: Path) -> None:
        said = r"^training diverged at update 6: the loss is nan; .* for 3 updates in a row$"
        with pytest.raises(NonFiniteError, match=said):
            run(Lines(replace(CONFIG, most_skipped=2, eval_freq=13)), Variant("diverging", "lstm"), tmp_path)

    @pytest.mark.parametrize("stop_after", [4, 8])
    def test_updates_that_are_not_finite_are_left_out_and_counted(self, tmp_path: Path, stop_after: int) -> None:
        experiment, stumbling = Lines(replace(CONFIG, most_skipped=2)), Variant("stumbling", "lstm")
        outcome = assert_resumed_equals_uninterrupted(experiment, stumbling, tmp_path, stop_after)
        assert (outcome.updates, outcome.skipped, outcome.ended) == (13, 3, "finished")
        assert outcome.figures["seen"] == 10
        assert all(math.isfinite(value) for row in outcome.rows for value in row.values())

    def test_those_in_a_row_are_counted_across_an_interruption(self, tmp_path: Path) -> None:
        experiment, stumbling = Lines(replace(CONFIG, most_skipped=1)), Variant("stumbling", "lstm")
        assert run(experiment, stumbling, tmp_path, stop_after=8) is None
        outcome = run(experiment, stumbling, tmp_path)
        assert outcome is not None
        assert outcome.ended.startswith("diverged at update 8: the loss is ")

    def test_divergence_after_a_better_validation_ends_the_trial_with_those_weights(self, tmp_path: Path) -> None:
        outcome = run(Lines(replace(CONFIG, most_skipped=0)), Variant("diverging late", "lstm"), tmp_path)
        shorter = run(Lines(replace(CONFIG, updates=5)), Variant("line", "lstm"), tmp_path / "shorter")
        assert outcome is not None
        assert shorter is not None
        assert outcome.ended == "diverged at update 7: the gradient's norm is inf"
        assert (outcome.updates, outcome.best_update, outcome.diverged) == (7, 5, True)
        assert outcome.figures["weight"] == shorter.figures["weight"]

    def test_a_damaged_checkpoint_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint.safetensors").write_bytes(b"garbage")
        with pytest.raises(CheckpointError, match=r"checkpoint.safetensors"):
            run(Lines(CONFIG), LINE, tmp_path)

    def test_another_models_checkpoint_is_one_line(self, tmp_path: Path) -> None:
        write_tensors(tmp_path / "checkpoint.safetensors", {}, {"trial": {"modules": {"line": {}}}})
        with pytest.raises(CheckpointError, match=r"does not fit this trial: .*weight"):
            run(Lines(CONFIG), LINE, tmp_path)

    def test_a_damaged_result_says_how_to_redo_it(self, tmp_path: Path) -> None:
        run(Lines(CONFIG), LINE, tmp_path)
        folder = TrialFolder(tmp_path)
        folder.result.write_text(folder.result.read_text()[:-20])
        with pytest.raises(CheckpointError, match=r"holds a damaged result.*remove the folder to redo it$"):
            read_outcome(folder, "line", 3)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"variant": "other"}, "it is other seed 3, expected line seed 3"),
            ({"figures": {"weight": None}}, "figure weight is None, expected a number"),
            ({"figures": {}}, "it has no figures"),
        ],
    )
    def test_a_result_of_another_trial_or_without_numbers_is_refused(
        self, tmp_path: Path, change: dict, message: str
    ) -> None:
        run(Lines(CONFIG), LINE, tmp_path)
        folder = TrialFolder(tmp_path)
        folder.result.write_text(json.dumps({**json.loads(folder.result.read_text()), **change}))
        with pytest.raises(CheckpointError, match=message):
            read_outcome(folder, "line", 3)
