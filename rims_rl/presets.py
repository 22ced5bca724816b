"""Presets: flat YAML files in `rims_rl/configs`, or anywhere, that override TrainConfig's defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rims_rl.config import TrainConfig, as_plain
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.settings import checked_settings, parse_mapping, read_text
from rims_rl.storage.plain_files import expanded

_PRESETS = resources.files("rims_rl") / "configs"


@dataclass(frozen=True)
class Preset:
    """A named set of settings."""

    name: str
    """The file's name without its ending."""
    description: str
    """One line on what it is for."""
    settings: dict[str, Any]
    """Checked values by TrainConfig's field names."""

    def apply(self, base: TrainConfig | None = None) -> TrainConfig:
        """Return `base` (the defaults) with this preset's settings in place."""
        return replace(base or TrainConfig(), config=self.name, **self.settings)


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Preset:
    """Load a preset by name, or from the path of a YAML file.

    Raises:
        UnknownNameError: for an unknown preset, or an unknown key in it.
        ConfigError: when the file is no flat YAML mapping, or a value has the wrong type.
    """
    if name in preset_names():
        return parse_preset(name, (_PRESETS / f"{name}.yaml").read_text("utf-8"))
    path = expanded(Path(name))
    if path.is_file():
        return parse_preset(name, read_text(path))
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"no preset file at {name}")
    raise UnknownNameError("preset", name, preset_names())


def parse_preset(name: str, text: str) -> Preset:
    """Read a preset from YAML text; `name` is how messages call it."""
    entries = parse_mapping(name, text)
    description = str(entries.pop("description", ""))
    return Preset(name, description, checked_settings(entries, TrainConfig, f"preset {name}"))


def preset_table() -> str:
    """Return the presets that come with the package, one line each: name and description."""
    presets = [load_preset(name) for name in preset_names()]
    width = max(len(preset.name) for preset in presets)
    return "".join(f"{preset.name:<{width}}  {preset.description}\n" for preset in presets)


def describe_preset(name: str) -> str:
    """Return the resolved settings of a preset as YAML: the defaults with the preset's values in place."""
    settings = as_plain(load_preset(name).apply())
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
