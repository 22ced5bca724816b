"""Models by name, with settings, of equal size."""

from __future__ import annotations

import pytest

from rims_rl.cores import parameter_count
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.folder import check_names
from rims_rl.experiments.variants import Variant, build_core, matched, parse_variant, variants_of

RIM = {"num_units": 3, "active_units": 2, "unit_size": 20}
CONFIG = ExperimentConfig(rim=RIM)


class TestNames:
    def test_the_rim_has_the_experiments_settings_and_its_own_on_top(self) -> None:
        assert parse_variant("rim", CONFIG) == Variant("rim", "rim", RIM)
        own = parse_variant("rim:active-units=1,cell=gru", CONFIG)
        assert own == Variant("rim:active-units=1,cell=gru", "rim", {**RIM, "active_units": 1, "cell": "gru"})

    def test_other_cores_have_theirs_alone(self) -> None:
        assert parse_variant("lstm:hidden_size=7", CONFIG) == Variant("lstm:hidden_size=7", "lstm", {"hidden_size": 7})

    @pytest.mark.parametrize("text", ["lstm:hidden_size", "lstm:=3", "lstm:hidden_size=", "lstm:a=1,,b=2"])
    def test_what_cannot_be_read_is_one_line(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"is not of the form core:setting=value,setting=value$"):
            parse_variant(text, CONFIG)

    def test_a_setting_that_is_given_twice_is_one_line(self) -> None:
        with pytest.raises(ConfigError, match=r"^'lstm:hidden_size=5,hidden-size=6' gives hidden-size twice$"):
            parse_variant("lstm:hidden_size=5,hidden-size=6", CONFIG)

    def test_names_that_would_share_a_folder_or_are_too_long_for_one_are_one_line(self) -> None:
        with pytest.raises(ConfigError, match=r"^models rim and rim: are named alike; give each model once$"):
            check_names([Variant("rim", "rim"), Variant("rim:", "rim")])
        with pytest.raises(ConfigError, match=r"^model a{40}\.\.\. has 121 characters, at most 120 fit$"):
            check_names([Variant("a" * 121, "rim")])

    def test_a_name_that_is_given_twice_or_not_at_all_is_one_line(self) -> None:
        with pytest.raises(ConfigError, match=r"^model gru is named twice; give each model once$"):
            variants_of(ExperimentConfig(models=("gru", "rim", "gru")))
        with pytest.raises(ConfigError, match=r"^--models needs at least one model, such as: rim lstm$"):
            variants_of(ExperimentConfig(models=()))


class TestSize:
    @pytest.mark.parametrize("core", ["lstm", "gru", "ntm", "dnc", "rmc", "entnet", "transformer", "feedforward"])
    def test_other_cores_get_as_many_parameters_as_the_rim(self, core: str) -> None:
        found = sum(parameter.numel() for parameter in build_core(Variant(core, core), 37, CONFIG).parameters())
        assert found == pytest.approx(parameter_count("rim", 37, **RIM), rel=0.1)

    def test_by_width_they_get_an_output_as_wide_as_the_rims(self) -> None:
        config = ExperimentConfig(rim=RIM, match="width")
        assert build_core(Variant("lstm", "lstm"), 37, config).output_size == 60
        assert build_core(Variant("rmc", "rmc"), 37, config).output_size == pytest.approx(60, rel=0.1)

    def test_a_width_that_is_named_stays(self) -> None:
        named = Variant("lstm:hidden_size=7", "lstm", {"hidden_size": 7})
        assert matched(named, 37, CONFIG) == named
        assert build_core(named, 37, CONFIG).output_size == 7

    def test_the_rim_stays_as_its_settings_say(self) -> None:
        other = parse_variant("rim:unit_size=5", CONFIG)
        assert build_core(other, 37, CONFIG).output_size == 15

    def test_none_leaves_the_cores_default(self) -> None:
        assert matched(Variant("lstm", "lstm"), 37, ExperimentConfig(match="none")).settings == {}

    def test_an_unknown_setting_names_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match=r"did you mean 'hidden_size'"):
            build_core(Variant("lstm", "lstm", {"hiden_size": 3}), 37, CONFIG)
