"""Cores by name, by class, and what happens with a name or setting that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rims_rl.cores import RIM, RecurrentCore, RIMConfig, core_config, core_names, make_core
from rims_rl.errors import ConfigError, UnknownNameError


class SumState(NamedTuple):
    h: Tensor


class RunningSum(RecurrentCore):
    """A user's own core: a scaled running sum, whose constructor takes keywords of its own."""

    def __init__(self, input_size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.input_size = self.output_size = self.state_size = input_size
        self.scale = nn.Parameter(torch.tensor(scale))

    def unpack(self, state: Tensor) -> SumState:
        return SumState(state.unsqueeze(1))

    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = state + self.scale * inputs.cumsum(dim=0)
        return outputs, outputs[-1]


@dataclass(frozen=True)
class SumConfig:
    scale: float = 1.0


class ConfiguredSum(RunningSum):
    """The same with a configuration class."""

    config_class = SumConfig

    def __init__(self, input_size: int, config: SumConfig) -> None:
        super().__init__(input_size, config.scale)


class Echo(RecurrentCore):
    """A core without parameters."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.input_size = self.output_size = self.state_size = input_size

    def unpack(self, state: Tensor) -> SumState:
        return SumState(state.unsqueeze(1))

    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs, state


def test_a_core_without_parameters_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="core Echo has no parameters"):
        make_core(Echo, 5)


class TestByName:
    @pytest.mark.parametrize("name", core_names())
    def test_every_name_makes_a_core_of_the_given_input_size(self, name: str) -> None:
        core = make_core(name, 7)
        assert isinstance(core, RecurrentCore)
        assert core.input_size == 7

    def test_the_names_of_the_foundation_are_known(self) -> None:
        assert {"rim", "lstm", "gru", "feedforward"} <= set(core_names())

    def test_settings_reach_the_core(self) -> None:
        core = make_core("rim", 7, num_units=5, active_units=2, unit_size=3, preset="authors")
        assert isinstance(core, RIM)
        expected = RIMConfig.from_settings("authors", num_units=5, active_units=2, unit_size=3)
        assert core.config == expected
        assert make_core("lstm", 7, hidden_size=11).output_size == 11

    def test_an_unknown_name_gets_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match=r"^unknown core 'ltsm'; did you mean 'lstm'"):
            make_core("ltsm", 7)

    def test_a_name_like_no_other_gets_the_list(self) -> None:
        with pytest.raises(UnknownNameError, match=r"known names: .*feedforward.*gru.*lstm.*rim"):
            make_core("zzzzzz", 7)

    @pytest.mark.parametrize(
        ("name", "wrong", "right"), [("lstm", "hiden_size", "hidden_size"), ("rim", "cel", "cell")]
    )
    def test_an_unknown_setting_gets_the_nearest(self, name: str, wrong: str, right: str) -> None:
        with pytest.raises(
            UnknownNameError, match=f"^(?i:unknown setting of core {name}) '{wrong}'; did you mean .*'{right}'"
        ):
            make_core(name, 7, **{wrong: 5})

    @pytest.mark.parametrize("name", ["lstm", "gru", "feedforward"])
    @pytest.mark.parametrize("size", [0, -3, 2.5, True])
    def test_a_size_that_is_no_size_is_refused(self, name: str, size: object) -> None:
        with pytest.raises(ConfigError, match=r"^hidden_size must be a whole number of at least 1, got "):
            make_core(name, 7, hidden_size=size)

    @pytest.mark.parametrize("name", core_names())
    def test_an_input_size_of_zero_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r"^input_size must be a whole number of at least 1, got 0$"):
            make_core(name, 0)


class TestByClass:
    def test_without_a_config_class_the_settings_are_its_keywords(self) -> None:
        core = make_core(RunningSum, 7, scale=3.0)
        assert isinstance(core, RunningSum)
        assert core.scale.item() == 3.0

    def test_with_a_config_class_the_settings_are_its_fields(self) -> None:
        core = make_core(ConfiguredSum, 7, scale=3.0)
        assert isinstance(core, ConfiguredSum)
        assert core.scale.item() == 3.0

    def test_with_a_config_class_an_unknown_setting_gets_the_nearest(self) -> None:
        with pytest.raises(
            UnknownNameError, match="unknown setting of core ConfiguredSum 'scal'; did you mean 'scale'"
        ):
            make_core(ConfiguredSum, 7, scal=3.0)

    def test_a_class_of_ours_works_as_its_name(self) -> None:
        assert type(make_core(RIM, 7, num_units=5, active_units=2)) is RIM

    @pytest.mark.parametrize("wrong", [nn.Linear, 5, None, RunningSum(7)])
    def test_anything_else_is_refused_in_one_line(self, wrong: object) -> None:
        with pytest.raises(ConfigError, match=r"^a core must be a name or a subclass of RecurrentCore, got .*$"):
            make_core(wrong, 7)  # type: ignore[arg-type]

    def test_a_core_that_says_nothing_of_its_insides_can_be_diagnosed(self) -> None:
        core = make_core(RunningSum, 2)
        outputs, last, found = core.diagnose(torch.ones(3, 1, 2), core.initial_state(1))
        assert outputs.tolist() == [[[1.0, 1.0]], [[2.0, 2.0]], [[3.0, 3.0]]]
        assert last.tolist() == [[3.0, 3.0]]
        assert found == {}


class TestCoreConfig:
    def test_by_name_and_by_class_are_the_same(self) -> None:
        assert core_config("rim", {"num_units": 7}) == core_config(RIM, {"num_units": 7}) == RIMConfig(num_units=7)

    def test_settings_that_cannot_work_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^active_units=9 is more than num_units=6$"):
            core_config("rim", {"active_units": 9})
