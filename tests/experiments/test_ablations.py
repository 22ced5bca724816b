"""The RIM taken apart: every piece by its switch, on the copying task and on control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rims_rl.cores import core_config
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.experiments.ablations import Ablations, AblationsConfig, ablated
from rims_rl.experiments.control import ControlTrial
from rims_rl.experiments.experiment import Outcome
from tests.experiments.resuming import assert_resumed_equals_uninterrupted

RIM = {"num_units": 4, "active_units": 2, "unit_size": 5, "preset": "paper"}
COPYING = AblationsConfig(
    rim=RIM, embedding_size=7, train_blanks=3, test_blanks=(3,), test_sequences=4, batch_size=4, updates=3, eval_freq=2,
    device="cpu",
)  # fmt: skip
CONTROL = replace(COPYING, task="control", validation_episodes=2, test_episodes=3, batch_size=64)


class TestPieces:
    @pytest.mark.parametrize(
        ("name", "changed"),
        [
            ("whole", {}),
            ("no-input-attention", {"input_attention": False, "active_units": 4}),
            ("no-communication", {"communication": False}),
            ("all-active", {"active_units": 4}),
            ("active-3", {"active_units": 3}),
            ("no-null-row", {"competition": "units"}),
            ("bounded", {"bounded_messages": True}),
        ],
    )
    def test_a_name_changes_its_switch_alone(self, name: str, changed: dict) -> None:
        whole, found = vars(core_config("rim", RIM)), vars(core_config("rim", ablated(name, RIM)))
        assert {key: value for key, value in found.items() if value != whole[key]} == {
            key: value for key, value in changed.items() if value != whole[key]
        }
        assert found == {**whole, **changed}

    def test_the_authors_preset(self) -> None:
        assert ablated("authors", RIM)["preset"] == "authors"

    def test_an_unknown_one_names_the_nearest(self) -> None:
        with pytest.raises(
            UnknownNameError, match=r"^unknown ablation or core 'no-comunication'; did you mean 'no-comm"
        ):
            ablated("no-comunication", RIM)

    def test_by_default_all_of_them_without_twins(self) -> None:
        names = [variant.name for variant in Ablations(COPYING).variants()]
        assert names == [
            "whole", "no-input-attention", "no-communication", "all-active", "no-null-row", "bounded", "authors",
            "active-1", "active-3",
        ]  # fmt: skip

    def test_other_cores_stand_beside_them(self) -> None:
        variants = Ablations(replace(COPYING, models=("whole", "lstm"))).variants()
        assert [(variant.name, variant.core) for variant in variants] == [("whole", "rim"), ("lstm", "lstm")]

    def test_more_active_units_than_there_are_is_one_line(self) -> None:
        experiment = Ablations(replace(COPYING, models=("active-5",)))
        with pytest.raises(ConfigError, match=r"^active_units=5 is more than num_units=4$"):
            experiment.check_variant(experiment.variants()[0])

    def test_settings_that_cannot_work_are_one_line(self) -> None:
        with pytest.raises(ConfigError, match=r"^num_units must be a whole number of at least 1, got 'six'$"):
            Ablations(replace(COPYING, rim={**RIM, "num_units": "six"})).check()

    def test_in_control_the_training_preset_decides(self) -> None:
        with pytest.raises(ConfigError, match=r"^in control learning_rate is the training preset's: give --train-pre"):
            Ablations(replace(CONTROL, learning_rate=0.5)).check()

    def test_settings_without_the_number_of_units_are_one_line(self) -> None:
        with pytest.raises(ConfigError, match=r"^ablations need active_units among the settings of --rim$"):
            Ablations(replace(COPYING, rim={"num_units": 3})).check()


class TestTrials:
    def test_copying_resumed_half_way_equals_an_uninterrupted_one(self, tmp_path: Path) -> None:
        experiment = Ablations(COPYING)
        assert_resumed_equals_uninterrupted(experiment, experiment.variants()[2], tmp_path, stop_after=1)

    def test_control_resumed_half_way_equals_an_uninterrupted_one(self, tmp_path: Path) -> None:
        experiment = Ablations(CONTROL)
        whole = assert_resumed_equals_uninterrupted(experiment, experiment.variants()[0], tmp_path, stop_after=1)
        assert whole.figures["score"] == pytest.approx(float(whole.arrays["scores"].mean()))
        assert whole.arrays["scores"].shape == (3,)
        assert whole.rows[-1]["training_score"] > 0

    def test_controls_other_cores_are_as_large_as_the_rim(self) -> None:
        experiment = Ablations(replace(CONTROL, models=("whole", "gru")))
        rim, gru = (experiment.trial(variant, 0) for variant in experiment.variants())
        assert isinstance(rim, ControlTrial)
        assert isinstance(gru, ControlTrial)
        sizes = [sum(p.numel() for p in trial.agent.policy.core.parameters()) for trial in (rim, gru)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.1)

    def test_control_shows_its_score(self) -> None:
        experiment = Ablations(CONTROL)
        assert experiment.trial_class is ControlTrial
        assert [column.key for column in experiment.columns] == ["score"]


def test_bars_are_drawn_for_every_column(tmp_path: Path) -> None:
    outcomes = [
        Outcome(name, seed, figures={"cross_entropy_3": 1.0 + seed, "accuracy_3": 20.0})
        for name in ("whole", "active-1")
        for seed in (0, 1)
    ]
    drawn = Ablations(COPYING).draw(outcomes, tmp_path)
    assert [file.name for file in drawn] == ["cross_entropy_3.png", "accuracy_3.png"]
    assert all(file.is_file() for file in drawn)
