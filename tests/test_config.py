"""Settings: how the command line's texts become values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rims_rl.config import (
    AS_TRAINED,
    FIELD_NAMES,
    RESUMABLE,
    EvaluateConfig,
    RecordConfig,
    TrainConfig,
    as_plain,
    parse_count,
    parse_pairs,
    parse_scalar,
    parse_schedule,
)
from rims_rl.errors import ConfigError


class TestPairs:
    def test_values_become_numbers_booleans_null_or_text(self) -> None:
        found = parse_pairs(["num_units:7", "rate:3e-5", "communication:false", "value_size:null", "cell:lstm"])
        assert found == {"num_units": 7, "rate": 3e-5, "communication": False, "value_size": None, "cell": "lstm"}

    def test_blanks_and_commas_both_separate(self) -> None:
        assert parse_pairs(["a:1,b:2 c:3", "d:4"]) == {"a": 1, "b": 2, "c": 3, "d": 4}

    def test_dashes_in_names_are_underscores(self) -> None:
        assert parse_pairs(["num-units:5"]) == {"num_units": 5}

    def test_only_the_first_colon_separates(self) -> None:
        assert parse_pairs(["core:my_package:Core"]) == {"core": "my_package:Core"}

    @pytest.mark.parametrize("text", ["num_units", "num_units:", ":3", "="])
    def test_a_text_without_key_or_value_is_refused_by_name(self, text: str) -> None:
        with pytest.raises(ConfigError, match="is not of the form key:value"):
            parse_pairs([text])

    def test_nothing_is_evaluated(self) -> None:
        assert parse_scalar("__import__('os').getcwd()") == "__import__('os').getcwd()"


class TestCounts:
    @pytest.mark.parametrize(("text", "count"), [("30720", 30_720), ("30_720", 30_720), ("3e4", 30_000), ("-5", -5)])
    def test_counts_may_be_written_as_one_writes_them(self, text: str, count: int) -> None:
        assert parse_count(text) == count

    @pytest.mark.parametrize("text", ["1.5", "many", "nan", "inf", ""])
    def test_what_is_no_whole_number_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="whole number"):
            parse_count(text)


class TestSchedules:
    def test_a_plain_number_stays_constant(self) -> None:
        assert parse_schedule("learning_rate", "3e-4") == (3e-4, False)
        assert parse_schedule("learning_rate", 0.25) == (0.25, False)

    def test_lin_falls_to_zero(self) -> None:
        assert parse_schedule("learning_rate", "lin_2.5e-4") == (2.5e-4, True)

    @pytest.mark.parametrize("text", ["cos_0.1", "lin_", "lin", "0", "-1e-3", "inf", "nan", "lin_nan"])
    def test_anything_else_is_refused_by_its_name(self, text: str) -> None:
        with pytest.raises(ConfigError, match="clip_range must be"):
            parse_schedule("clip_range", text)


class TestPlainForm:
    def test_it_survives_json_and_yaml(self) -> None:
        config = replace(TrainConfig(), output=Path("somewhere"), wandb_tags=("a", "b"), core_kwargs={"num_units": 3})
        plain = as_plain(config)
        assert json.loads(json.dumps(plain)) == plain
        assert yaml.safe_load(yaml.safe_dump(plain)) == plain

    def test_it_holds_every_setting_but_resume(self) -> None:
        assert set(as_plain(TrainConfig())) == set(FIELD_NAMES) - {"resume"}


def test_what_is_seen_is_what_was_seen_in_training_unless_it_is_asked_for() -> None:
    for config in (EvaluateConfig(Path("run")), RecordConfig(Path("run"))):
        assert (config.distractor, config.distractor_split, config.variant) == (AS_TRAINED, None, None)
    assert (TrainConfig().distractor, TrainConfig().distractor_split) == (None, None)


def test_what_a_resume_may_change_are_settings() -> None:
    assert set(FIELD_NAMES) >= RESUMABLE
