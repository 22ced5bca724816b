"""Settings from YAML files: parsed without building any object, each value checked against its field's type."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from rims_rl.errors import ConfigError, UnknownNameError, said, shortened
from rims_rl.storage.plain_files import read_bytes

_NEVER_IN_A_FILE = frozenset({"config", "resume"})
_MOST_BYTES = 2**20
_MOST_NODES = 50_000
_LONGEST_NUMBER = 300
_NOT_YAML = (
    yaml.YAMLError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
"""What PyYAML raises beside its own errors, for texts such as 0b_ and structures too deep."""


def parse_mapping(name: str, text: str) -> dict[str, Any]:
    """Read a flat YAML mapping without building any object but plain values."""
    try:
        entries = yaml.load(text, _PlainLoader)
    except _NOT_YAML as error:
        raise ConfigError(f"{name} is not valid YAML: {said(error)}") from None
    if not isinstance(entries, dict):
        raise ConfigError(f"{name} must be a mapping of settings, got {type(entries).__name__}")
    return {str(key): value for key, value in entries.items()}


class _PlainLoader(yaml.SafeLoader):
    """YAML's plain values alone, in time and memory that the text's length bounds.

    An alias (`*name`) can stand for a structure that doubles with every line. Tags (`!!int`), dates and numbers of
    hundreds of digits are no settings; those without a tag are texts.
    """

    nodes = 0
    """Values that were read so far."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node as PyYAML does, unless it is an alias, has a tag, or is one too many."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.nodes += 1
        problem = "aliases are not read here" if isinstance(event, yaml.AliasEvent) else ""
        problem = "tags are not read here" if getattr(event, "tag", None) not in (None, "!") else problem
        problem = f"more than {_MOST_NODES:,} values are no settings" if self.nodes > _MOST_NODES else problem
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Return a scalar's kind as PyYAML does, that of a long one is text."""
        if kind is yaml.ScalarNode and len(value) > _LONGEST_NUMBER:
            return "tag:yaml.org,2002:str"
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_text(path: Path) -> str:
    """Read a text file of at most a mebibyte, or say in one line why it can't be read."""
    try:
        return read_bytes(path, _MOST_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {said(error)}") from None


def checked_settings(entries: dict[str, Any], kind: type[Any], where: str) -> dict[str, Any]:
    """Return the entries with every value converted to the type of its field in the dataclass `kind`.

    Raises:
        UnknownNameError: for a key that is no field, with the nearest ones; `where` opens the messages.
        ConfigError: for a value of another type.
    """
    known = [entry.name for entry in fields(kind) if entry.name not in _NEVER_IN_A_FILE]
    checked, types = {}, get_type_hints(kind)
    for key, value in entries.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UnknownNameError(f"setting in {where}", key, known)
        checked[name] = _converted(value, types[name], f"{where}: {name}")
    return checked


def _converted(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as `kind` (a field's type), or raise one line that says what was expected."""
    if get_origin(kind) in (Union, UnionType):
        return _converted_to_one_of(value, get_args(kind), where)
    if get_origin(kind) is Literal:
        if value in get_args(kind) and not isinstance(value, bool):
            return value
        raise ConfigError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, got {shortened(value)}")
    if get_origin(kind) is tuple and get_args(kind)[0] in _LISTS:
        return _converted_to_numbers(value, get_args(kind)[0], where)
    plain = get_origin(kind) or kind
    converted = _CONVERTERS[plain](value)
    if converted is None:
        raise ConfigError(f"{where} must be {_EXPECTED[plain]}, got {shortened(value)}")
    return converted


def _converted_to_one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    concrete = [kind for kind in kinds if kind is not type(None)]
    if len(concrete) == 1:
        return _converted(value, concrete[0], where)
    for kind in concrete:
        converted = _CONVERTERS[kind](value)
        if converted is not None:
            return converted
    raise ConfigError(f"{where} must be {' or '.join(_EXPECTED[kind] for kind in concrete)}, got {shortened(value)}")


def _converted_to_numbers(value: Any, kind: type[Any], where: str) -> tuple[Any, ...]:
    items = [_CONVERTERS[kind](item) for item in value] if isinstance(value, list | tuple) else [None]
    known = tuple(item for item in items if item is not None)
    if len(known) < len(items):
        raise ConfigError(f"{where} must be a list of {_LISTS[kind]}, got {shortened(value)}")
    return known


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
    except (ValueError, OverflowError):
        return None


def _to_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _to_path(value: Any) -> Path | None:
    """Return a path that the system can be asked for: no null byte, no home of a user that is not there."""
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        Path(value).expanduser()
    except RuntimeError:
        return None
    return Path(value)


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
_LISTS: dict[Any, str] = {int: "whole numbers", float: "numbers"}
_EXPECTED: dict[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path",
    dict: "a mapping of plain values", tuple: "a list of texts",
}  # fmt: skip
