"""Settings of the RIM that cannot work are refused in one line, and the presets are what they say."""

from __future__ import annotations

from typing import Any

import pytest

from rims_rl.cores import RIM, RIMConfig
from rims_rl.errors import ConfigError, UnknownNameError

pytestmark = pytest.mark.usefixtures("chosen_loop")


class TestBadSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"active_units": 7, "num_units": 5}, ["active_units=7", "num_units=5"]),
            ({"active_units": 0}, ["active_units", "0"]),
            ({"num_units": -1}, ["num_units", "-1"]),
            ({"unit_size": 0}, ["unit_size", "0"]),
            ({"unit_size": 8.5}, ["unit_size", "8.5"]),
            ({"num_units": True}, ["num_units", "True"]),
            ({"input_value_size": 0}, ["input_value_size", "0"]),
            ({"input_heads": 3, "input_value_size": 46}, ["input_value_size=46", "input_heads=3"]),
            ({"input_heads": 0}, ["input_heads", "0"]),
            ({"communication_heads": 0}, ["communication_heads", "0"]),
            ({"cell": "rnn"}, ["cell", "gru", "lstm", "'rnn'"]),
            ({"competition": "all"}, ["competition", "null", "units", "'all'"]),
            ({"inactive_show": "nothing"}, ["inactive_show", "state", "candidate", "'nothing'"]),
            ({"input_attention": False, "num_units": 5, "active_units": 3}, ["active_units=5", "3"]),
        ],
    )
    def test_are_refused_in_one_line_that_names_them(self, settings: dict[str, Any], named: list[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            RIMConfig(**settings)
        assert "\n" not in str(caught.value)
        assert [word for word in named if word not in str(caught.value)] == []

    def test_an_input_size_of_zero_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^input_size must be a whole number of at least 1, got 0$"):
            RIM(0)

    def test_an_unknown_setting_gets_the_nearest_name(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown setting of core rim 'num_unit'; did you mean 'num_units'"):
            RIMConfig.from_settings(num_unit=5)

    def test_an_unknown_preset_gets_the_nearest_name(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown RIM preset 'papr'; did you mean 'paper'"):
            RIMConfig.from_settings("papr")

    def test_the_presets_are_the_published_method_and_the_authors_code(self) -> None:
        paper, authors, ours = (RIMConfig.from_settings(name) for name in ("paper", "authors", None))
        assert (paper.competition, paper.inactive_show, paper.gated_communication) == ("null", "state", False)
        assert (authors.competition, authors.inactive_show, authors.gated_communication) == ("units", "candidate", True)
        assert ours == RIMConfig()
        assert (paper.bounded_messages, ours.bounded_messages) == (False, True)

    def test_a_setting_overrides_its_preset(self) -> None:
        config = RIMConfig.from_settings("authors", gated_communication=False)
        assert (config.competition, config.gated_communication, config.inactive_show) == ("units", False, "candidate")
