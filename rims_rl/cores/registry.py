"""Cores by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rims_rl.cores.base import RecurrentCore
from rims_rl.cores.dnc import DNC
from rims_rl.cores.entnet import EntNet
from rims_rl.cores.feedforward import Feedforward
from rims_rl.cores.gru import GRU
from rims_rl.cores.lstm import LSTM
from rims_rl.cores.ntm import NTM
from rims_rl.cores.rim import RIM
from rims_rl.cores.rmc import RMC
from rims_rl.cores.transformer import Transformer
from rims_rl.errors import ConfigError, UnknownNameError

_CORES: dict[str, type[RecurrentCore]] = {
    "rim": RIM,
    "lstm": LSTM,
    "gru": GRU,
    "feedforward": Feedforward,
    "rmc": RMC,
    "entnet": EntNet,
    "transformer": Transformer,
    "ntm": NTM,
    "dnc": DNC,
}


def core_names() -> list[str]:
    """Return the names that `make_core` knows."""
    return sorted(_CORES)


def core_class(core: str | type[RecurrentCore]) -> type[RecurrentCore]:
    """Return the class behind a name, or the class itself when one is given.

    Raises:
        UnknownNameError: for an unknown name, with the nearest ones.
        ConfigError: for a class that is no core.
    """
    if isinstance(core, str):
        if core not in _CORES:
            raise UnknownNameError("core", core, _CORES)
        return _CORES[core]
    if not (isinstance(core, type) and issubclass(core, RecurrentCore)):
        raise ConfigError(f"a core must be a name or a subclass of RecurrentCore, got {core!r}")
    return core


def make_core(name: str | type[RecurrentCore], input_size: int, **config: Any) -> RecurrentCore:
    """Build a core from its name, or from a class of your own, and its settings.

    Args:
        name: a name from `core_names()`, or a subclass of `RecurrentCore`, which is called as
            `cls(input_size, config_class(**config))`, or as `cls(input_size, **config)` when it has no `config_class`.
        input_size: size of one input vector, or of one slot.
        config: fields of the core's configuration; the RIM also takes `preset="paper"` or `"authors"`.

    Raises:
        UnknownNameError: for an unknown core or setting, with the nearest names.
        ConfigError: for settings that can't work.
    """
    cls = core_class(name)
    build: Any = cls
    if cls.config_class is None:
        core: RecurrentCore = build(input_size, **config)
    else:
        core = build(input_size, core_config(name, config))
    if next(core.parameters(), None) is None:
        raise ConfigError(f"core {cls.__name__} has no parameters, which tell its device and number type")
    return core


def core_config(core: str | type[RecurrentCore], settings: dict[str, Any]) -> Any:
    """Return the checked configuration of a core with a `config_class`; raises as `make_core` does."""
    cls = core_class(core)
    config_class: Any = cls.config_class
    if hasattr(config_class, "from_settings"):
        return config_class.from_settings(**settings)
    known = [entry.name for entry in fields(config_class)]
    for name in settings:
        if name not in known:
            raise UnknownNameError(f"setting of core {core if isinstance(core, str) else cls.__name__}", name, known)
    return config_class(**settings)
