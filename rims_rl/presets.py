"""Presets: flat YAML files in `rims_rl/configs`, or anywhere, that override TrainConfig's defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from rims_rl.config import FIELD_NAMES, TrainConfig, as_plain
from rims_rl.errors import ConfigError, UnknownNameError

_PRESETS = resources.files("rims_rl") / "configs"
_NEVER_IN_A_PRESET = frozenset({"config", "resume"})


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
    path = Path(name).expanduser()
    if path.is_file():
        return parse_preset(name, read_text(path))
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"no preset file at {name}")
    raise UnknownNameError("preset", name, preset_names())


def parse_preset(name: str, text: str) -> Preset:
    """Read a preset from YAML text; `name` is how messages call it."""
    entries = parse_mapping(name, text)
    description = str(entries.pop("description", ""))
    return Preset(name, description, checked_settings(entries, f"preset {name}"))


def parse_mapping(name: str, text: str) -> dict[str, Any]:
    """Read a flat YAML mapping without building any object but plain values."""
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        first_line = " ".join(str(error).split())
        raise ConfigError(f"{name} is not valid YAML: {first_line}") from None
    if not isinstance(entries, dict):
        raise ConfigError(f"{name} must be a mapping of settings, got {type(entries).__name__}")
    return {str(key): value for key, value in entries.items()}


def read_text(path: Path) -> str:
    """Read a text file, or say in one line why it can't be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def checked_settings(entries: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the entries with every value converted to its field's type; `where` opens the messages."""
    known = [name for name in FIELD_NAMES if name not in _NEVER_IN_A_PRESET]
    checked = {}
    for key, value in entries.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UnknownNameError(f"setting in {where}", key, known)
        checked[name] = _converted(value, _field_types()[name], f"{where}: {name}")
    return checked


@cache
def _field_types() -> dict[str, Any]:
    return get_type_hints(TrainConfig)


def _converted(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as `kind` (a TrainConfig field's type), or raise one line that says what was expected."""
    if get_origin(kind) in (Union, UnionType):
        return _converted_to_one_of(value, get_args(kind), where)
    if get_origin(kind) is Literal:
        if value in get_args(kind) and not isinstance(value, bool):
            return value
        raise ConfigError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
    plain = get_origin(kind) or kind
    converted = _CONVERTERS[plain](value)
    if converted is None:
        raise ConfigError(f"{where} must be {_EXPECTED[plain]}, got {value!r}")
    return converted


def _converted_to_one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    concrete = [kind for kind in kinds if kind is not type(None)]
    for kind in concrete:
        converted = _CONVERTERS[kind](value)
        if converted is not None:
            return converted
    raise ConfigError(f"{where} must be {' or '.join(_EXPECTED[kind] for kind in concrete)}, got {value!r}")


def _to_bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _to_int(value: Any) -> int | None:
    number = _to_float(value)
    return int(number) if number is not None and number.is_integer() else None


def _to_float(value: Any) -> float | None:
    """Accept YAML's numbers, and the texts that YAML makes of `1e-4`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _to_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _to_path(value: Any) -> Path | None:
    return Path(value) if isinstance(value, str) else None


def _to_pairs(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return None
    scalars = all(item is None or isinstance(item, bool | int | float | str) for item in value.values())
    return dict(value) if scalars else None


def _to_texts(value: Any) -> tuple[str, ...] | None:
    is_texts = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return tuple(value) if is_texts else None


_CONVERTERS: dict[Any, Any] = {
    bool: _to_bool, int: _to_int, float: _to_float, str: _to_text, Path: _to_path, dict: _to_pairs, tuple: _to_texts,
}  # fmt: skip
_EXPECTED: dict[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path",
    dict: "a mapping of plain values", tuple: "a list of texts",
}  # fmt: skip


def preset_table() -> str:
    """Return the presets that come with the package, one line each: name and description."""
    presets = [load_preset(name) for name in preset_names()]
    width = max(len(preset.name) for preset in presets)
    return "".join(f"{preset.name:<{width}}  {preset.description}\n" for preset in presets)


def describe_preset(name: str) -> str:
    """Return the resolved settings of a preset as YAML: the defaults with the preset's values in place."""
    settings = as_plain(load_preset(name).apply())
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
