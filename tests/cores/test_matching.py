"""Cores of equal size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rims_rl.cores import RIM, core_config, core_names, make_core, matched_config, parameter_count
from rims_rl.cores.lstm import LSTM, LSTMConfig
from rims_rl.errors import ConfigError, UnknownNameError
from tests.cores.every_core import INPUT_SIZE


def counted(core: nn.Module) -> int:
    return sum(parameter.numel() for parameter in core.parameters())


class TestCounting:
    @pytest.mark.parametrize("name", core_names())
    def test_the_count_is_that_of_the_built_core(self, name: str) -> None:
        assert parameter_count(name, INPUT_SIZE) == counted(make_core(name, INPUT_SIZE))

    def test_an_lstm_of_7_on_5_inputs_has_what_its_equations_say(self) -> None:
        assert parameter_count("lstm", 5, hidden_size=7) == 4 * 7 * (5 + 7 + 2)

    def test_counting_draws_no_random_number(self) -> None:
        before = torch.random.get_rng_state()
        parameter_count("rim", 5)
        assert torch.equal(before, torch.random.get_rng_state())


class TestMatching:
    @pytest.mark.parametrize("name", core_names())
    def test_every_core_comes_near_the_same_number(self, name: str) -> None:
        config = matched_config(name, INPUT_SIZE, parameters=200_000)
        count = counted(make_core(name, INPUT_SIZE, **vars(config)))
        assert abs(count - 200_000) < 0.05 * 200_000

    @pytest.mark.parametrize("parameters", [4 * 7 * 14 - 1, 4 * 7 * 14, 4 * 7 * 14 + 1])
    def test_it_is_the_nearest_from_both_sides(self, parameters: int) -> None:
        assert matched_config("lstm", 5, parameters) == LSTMConfig(7)

    @pytest.mark.parametrize(("name", "width", "heads"), [("rmc", "slot_size", 6), ("transformer", "model_size", 6)])
    def test_a_width_that_heads_divide_stays_so(self, name: str, width: str, heads: int) -> None:
        config = matched_config(name, INPUT_SIZE, parameters=50_000, heads=heads)
        assert getattr(config, width) % heads == 0

    def test_other_settings_stay_as_they_are_given(self) -> None:
        config = matched_config("rim", INPUT_SIZE, parameters=100_000, num_units=7, active_units=3, preset="authors")
        assert (config.num_units, config.active_units, config.competition) == (7, 3, "units")
        given = {"preset": "authors", "num_units": 7, "active_units": 3, "unit_size": config.unit_size}
        assert config == core_config("rim", given)

    def test_a_class_of_ones_own_is_matched_like_any_other(self) -> None:
        class Mine(LSTM):
            pass

        assert matched_config(Mine, 5, 4 * 7 * 14) == LSTMConfig(7)


class TestWhatCannotBeMatched:
    def test_too_few_parameters_are_one_line_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"no RIM on 13 inputs comes near 10 parameters; the nearest has [\d,]+"):
            matched_config("rim", INPUT_SIZE, parameters=10)

    def test_the_width_cannot_be_given_too(self) -> None:
        with pytest.raises(ConfigError, match="unit_size is what the matching chooses"):
            matched_config("rim", INPUT_SIZE, parameters=100_000, unit_size=5)

    def test_an_unknown_setting_is_named(self) -> None:
        with pytest.raises(UnknownNameError, match=r"'num_unit'.*num_units"):
            matched_config("rim", INPUT_SIZE, parameters=100_000, num_unit=5)

    def test_a_setting_that_no_width_mends_is_named(self) -> None:
        with pytest.raises(ConfigError, match="active_units=9 is more than num_units=6"):
            matched_config("rim", INPUT_SIZE, parameters=100_000, active_units=9)

    def test_a_core_that_names_no_width_is_refused(self) -> None:
        class Nameless(RIM):
            width_setting = None

        with pytest.raises(ConfigError, match="Nameless cannot be matched"):
            matched_config(Nameless, 5, 1000)

    def test_a_class_that_is_no_core_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"a core must be a name or a subclass of RecurrentCore, got .*Linear"):
            matched_config(nn.Linear, 5, 1000)  # type: ignore[arg-type]

    def test_no_parameters_at_all_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="parameters must be a whole number of at least 1, got 0"):
            matched_config("rim", 5, 0)
