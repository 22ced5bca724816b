"""The models of an experiment: cores by name, with settings, of equal size where that is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rims_rl.config import parse_scalar
from rims_rl.cores import core_class, make_core, matched_config
from rims_rl.cores.base import RecurrentCore
from rims_rl.cores.matching import config_of_output_size, sketched_core
from rims_rl.errors import ConfigError
from rims_rl.experiments.config import ExperimentConfig


@dataclass(frozen=True)
class Variant:
    """One model of an experiment."""

    name: str
    """What tables and folders call it."""
    core: str
    """Name of its core."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the core."""


def variants_of(config: ExperimentConfig) -> list[Variant]:
    """Return the models that `--models` names, the RIM with the experiment's settings for it.

    Raises:
        UnknownNameError: for an unknown core or setting.
        ConfigError: for a text that can't be read, or a name that is given twice.
    """
    variants = [parse_variant(text, config) for text in config.models]
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"model {name} is named twice; give each model once")
    if not names:
        raise ConfigError("--models needs at least one model, such as: rim lstm")
    return variants


def parse_variant(text: str, config: ExperimentConfig) -> Variant:
    """Read `core` or `core:setting=value,setting=value`; settings of the RIM are added to the experiment's."""
    core, _, pairs = text.partition(":")
    core_class(core)
    settings: dict[str, Any] = {}
    for pair in pairs.split(",") if pairs else []:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"{text!r} is not of the form core:setting=value,setting=value")
        if key.replace("-", "_") in settings:
            raise ConfigError(f"{text!r} gives {key} twice")
        settings[key.replace("-", "_")] = parse_scalar(value)
    return Variant(text, core, {**(config.rim if core == "rim" else {}), **settings})


def build_core(variant: Variant, input_size: int, config: ExperimentConfig) -> RecurrentCore:
    """Build a variant's core, of the size that `config.match` asks for.

    Args:
        variant: the model.
        input_size: size of one input vector.
        config: its `match` says what other cores share with the RIM: the number of parameters, or the output's width.

    Raises:
        UnknownNameError: for an unknown setting.
        ConfigError: for settings that can't work, or a size that can't be matched.
    """
    return make_core(variant.core, input_size, **matched(variant, input_size, config).settings)


def matched(variant: Variant, input_size: int, config: ExperimentConfig) -> Variant:
    """Return the variant with the width that matching chooses; one that is a RIM or names its width stays as it is."""
    width = core_class(variant.core).width_setting
    if config.match == "none" or variant.core == "rim" or width is None or width in variant.settings:
        return variant
    rim = sketched_core("rim", input_size, **config.rim)
    if config.match == "parameters":
        target = sum(parameter.numel() for parameter in rim.parameters())
        fitting = matched_config(variant.core, input_size, target, **variant.settings)
    else:
        fitting = config_of_output_size(variant.core, input_size, rim.output_size, **variant.settings)
    return replace(variant, settings=asdict(fitting))
