"""Cores of equal size: how many parameters a configuration has, and which configuration has a given number."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import asdict
from typing import Any

import torch

from rims_rl.cores.base import RecurrentCore, require_at_least_one
from rims_rl.cores.registry import core_class, core_config, make_core
from rims_rl.errors import ConfigError, UnknownNameError

_WIDEST = 2**16
_MOST_HEADS = 64
_MOST_OFF = 0.1


def parameter_count(core: str | type[RecurrentCore], input_size: int, **settings: Any) -> int:
    """Return how many parameters a core has, without taking memory for them; raises as `make_core` does."""
    return _parameters(sketched_core(core, input_size, **settings))


def sketched_core(core: str | type[RecurrentCore], input_size: int, **settings: Any) -> RecurrentCore:
    """Return a core that has sizes but no numbers, and takes no memory; raises as `make_core` does."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return make_core(core, input_size, **settings)


def matched_config(core: str | type[RecurrentCore], input_size: int, parameters: int, **settings: Any) -> Any:
    """Return the configuration of a core whose parameter count comes nearest to a given one.

    Args:
        core: a core's name or class; its `width_setting` is what is turned.
        input_size: size of one input vector, or of one slot.
        parameters: how many parameters the core shall have.
        settings: the core's other settings, which stay as they are given.

    Raises:
        ConfigError: when the width is among the settings, or nothing comes within 10 % of `parameters`.
    """
    require_at_least_one(parameters=parameters)
    width = _matched_width(core, input_size, settings, parameters, "parameters", _parameters)
    return core_config(core, {**settings, **width})


def config_of_output_size(core: str | type[RecurrentCore], input_size: int, size: int, **settings: Any) -> Any:
    """Return the configuration of a core whose output size comes nearest to `size`; otherwise as `matched_config`."""
    require_at_least_one(size=size)
    width = _matched_width(core, input_size, settings, size, "numbers per output", lambda sketch: sketch.output_size)
    return core_config(core, {**settings, **width})


def _parameters(core: RecurrentCore) -> int:
    return sum(parameter.numel() for parameter in core.parameters())


def _matched_width(
    core: str | type[RecurrentCore],
    input_size: int,
    settings: dict[str, Any],
    wanted: int,
    unit: str,
    measured: Callable[[RecurrentCore], int],
) -> dict[str, int]:
    """Return the core's width setting with the value that brings what is measured nearest to what is wanted."""
    cls, name = core_class(core), matched_setting(core, settings)

    def count(width: int) -> int:
        return measured(sketched_core(cls, input_size, **settings, **{name: width}))

    width = _nearest(count, _step(cls, name, settings), wanted)
    if abs(count(width) - wanted) > _MOST_OFF * wanted:
        raise ConfigError(
            f"no {cls.__name__} on {input_size} inputs comes near {wanted:,} {unit}; "
            f"the nearest has {count(width):,}, with {name}={width}"
        )
    return {name: width}


def matched_setting(core: str | type[RecurrentCore], settings: Container[str] = ()) -> str:
    """Return the name of the setting that matching chooses; ConfigError when there is none, or it is given already."""
    cls = core_class(core)
    name = cls.width_setting
    if cls.config_class is None or name is None:
        raise ConfigError(f"{cls.__name__} cannot be matched: it names no width_setting of a config_class")
    if name in settings:
        raise ConfigError(f"{name} is what the matching chooses: give {name}, or a number of parameters, not both")
    return name


def matched_settings(
    core: str | type[RecurrentCore], input_size: int, parameters: int, **settings: Any
) -> dict[str, Any]:
    """Return what `matched_config` does as the keyword arguments of `make_core`."""
    return asdict(matched_config(core, input_size, parameters, **settings))


def _step(cls: type[RecurrentCore], name: str, settings: dict[str, Any]) -> int:
    """Return the smallest width that the configuration takes; the others are its multiples, where heads divide it."""
    for width in range(1, _MOST_HEADS):
        try:
            core_config(cls, {**settings, name: width})
        except UnknownNameError:
            raise
        except ConfigError:
            continue
        return width
    core_config(cls, {**settings, name: _MOST_HEADS})  # raises: no width mends another setting
    return _MOST_HEADS


def _nearest(count: Callable[[int], int], step: int, wanted: int) -> int:
    """Return the multiple of `step` whose count, which rises with it, is nearest to the one that is wanted."""
    low, high = 1, 2
    while count(high * step) < wanted and high * step < _WIDEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle * step) < wanted else (low, middle)
    return min((low * step, high * step), key=lambda width: abs(count(width) - wanted))
