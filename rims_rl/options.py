"""From the words of a command line to settings: presets and resumed folders below, what is given above.

Whatever can't be read is one line with the nearest names.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import MISSING, fields, replace
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from rims_rl.config import FIELD_NAMES, RESUMABLE, TrainConfig
from rims_rl.errors import ConfigError, UnknownNameError

Config = TypeVar("Config")


def parse_train(arguments: list[str]) -> TrainConfig:
    """Return a training run's settings: the defaults, overridden by the preset or the resumed run, then by `arguments`.

    Raises:
        UnknownNameError: for an unknown option or preset.
        ConfigError: for a value that can't be read, or an option that a resumed run may not change.
    """
    given = given_options(arguments, TrainConfig)
    if "-h" in arguments or "--help" in arguments:
        return parse(TrainConfig, arguments, "train")
    if "resume" in given:
        return _parse_resumed(arguments, given)
    base = _base(given)
    config = parse(TrainConfig, arguments, "train", base)
    merged: dict[str, Any] = {name: _merged(name, base, config, given) for name in _MERGED}
    if config.core_parameters is not None:
        merged["core_kwargs"] = _without_the_presets_width(config, merged["core_kwargs"], given)
    return replace(config, **merged)


# The preset's pairs stay under those that are given, as long as they mean the same thing.
_MERGED = {"core_kwargs": "core", "encoder_kwargs": "encoder", "env_kwargs": "env"}


def _merged(name: str, base: TrainConfig, config: TrainConfig, given: dict[str, str]) -> dict[str, Any]:
    same_owner = getattr(base, _MERGED[name]) == getattr(config, _MERGED[name])
    inherited = getattr(base, name) if same_owner else {}
    return {**inherited, **(getattr(config, name) if name in given else {})}


def _without_the_presets_width(
    config: TrainConfig, core_kwargs: dict[str, Any], given: dict[str, str]
) -> dict[str, Any]:
    """Drop the width that a preset gives the core, where the command line asks for a number of parameters instead."""
    from rims_rl.cores import matched_setting

    width, own = matched_setting(config.core), config.core_kwargs if "core_kwargs" in given else {}
    return {name: value for name, value in core_kwargs.items() if name != width or name in own}


def _base(given: dict[str, str]) -> TrainConfig:
    if not given.get("config"):
        return TrainConfig()
    from rims_rl.presets import load_preset

    return load_preset(given["config"]).apply()


def _parse_resumed(arguments: list[str], given: dict[str, str]) -> TrainConfig:
    from rims_rl.runs import load_config, open_run

    fixed = sorted(set(given) - RESUMABLE)
    if fixed:
        options = ", ".join(_option(name) for name in fixed)
        free = ", ".join(_option(name) for name in FIELD_NAMES if name in RESUMABLE and name != "resume")
        raise ConfigError(f"a resumed run keeps its own {options}; only these may be given beside --resume: {free}")
    if not given["resume"]:
        raise ConfigError("--resume needs the folder of a run")
    return parse(TrainConfig, arguments, "train", load_config(open_run(Path(given["resume"]))))


def parse_experiment(name: str, kind: type[Any], arguments: list[str]) -> Any:
    """Return an experiment's settings: the defaults, overridden by the preset or the resumed one, then by `arguments`.

    Raises:
        UnknownNameError: for an unknown option or preset.
        ConfigError: for a value that can't be read, or an option that a resumed experiment may not change.
    """
    from rims_rl.experiments.folder import load_settings
    from rims_rl.experiments.presets import free_to_change, preset_settings

    given = given_options(arguments, kind)
    if "-h" in arguments or "--help" in arguments:
        return parse(kind, arguments, f"experiment {name}")
    if "resume" in given:
        _check_resumed("experiment", kind, given, free_to_change(kind))
        return parse(kind, arguments, f"experiment {name}", load_settings(Path(given["resume"]), name, kind))
    base = preset_settings(name, given["config"], kind) if given.get("config") else kind()
    config = parse(kind, arguments, f"experiment {name}", base)
    return replace(config, rim={**base.rim, **config.rim}) if "rim" in given else config


def parse_robustness(arguments: list[str]) -> Any:
    """Return a report's settings: the defaults or the resumed report's, overridden by `arguments`.

    Raises:
        UnknownNameError: for an unknown option.
        ConfigError: for a value that can't be read, or an option that a resumed report may not change.
    """
    from rims_rl.experiments.robustness.config import FREE_TO_CHANGE, RobustnessConfig
    from rims_rl.experiments.robustness.folder import load_settings

    given = given_options(arguments, RobustnessConfig)
    if "resume" not in given or "-h" in arguments or "--help" in arguments:
        return parse(RobustnessConfig, arguments, "robustness")
    _check_resumed("report", RobustnessConfig, given, FREE_TO_CHANGE)
    before = load_settings(Path(given["resume"]))
    return before.joined_by(parse(RobustnessConfig, arguments, "robustness", before))


def _check_resumed(what: str, kind: type[Any], given: Iterable[str], changeable: frozenset[str]) -> None:
    """Raise ConfigError when options are given that whatever is resumed keeps."""
    fixed = ", ".join(_option(field) for field in sorted(set(given) - changeable))
    if fixed:
        own = {entry.name for entry in fields(kind)}
        free = ", ".join(_option(field) for field in sorted((changeable & own) - {"resume", "runs"}))
        raise ConfigError(f"a resumed {what} keeps its own {fixed}; only these may be given: {free}")


def parse(kind: type[Config], arguments: list[str], command: str, default: Config | None = None) -> Config:
    """Parse the options of a command with tyro; `default` holds the values of those that are not given.

    Raises:
        UnknownNameError: for an unknown option, with the nearest ones.
        ConfigError: for a value that can't be read.
    """
    given_options(arguments, kind)
    printed = StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with redirect_stderr(printed):
            parsed: Config = tyro.cli(kind, prog=f"rims-rl {command}", args=arguments, **options)
    except SystemExit as end:
        if not end.code:
            raise
        raise ConfigError(f"{_first_words(printed.getvalue())}; see rims-rl {command} --help") from None
    return parsed


def given_options(arguments: Iterable[str], kind: type[Any]) -> dict[str, str]:
    """Return the options that `arguments` name, by field, each with the text right behind it.

    Raises:
        UnknownNameError: for an option that `kind` has no field for, with the nearest ones.
    """
    options = _options(kind)
    words = list(arguments)
    given = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if not word.startswith("-") or _is_number(word) or word in ("-h", "--help"):
            continue
        option, equals, value = word.partition("=")
        spelled = "--" + option[2:].replace("_", "-") if option.startswith("--") else option
        if spelled not in options:
            raise UnknownNameError("option", option, options)
        given[options[spelled]] = value if equals else following
    return given


def _options(kind: type[Any]) -> dict[str, str]:
    """Return every spelling of every option of a settings class, with the field that it sets."""
    options = {"-n": "total_timesteps"} if kind is TrainConfig else {}
    hints = get_type_hints(kind)
    for entry in fields(kind):
        if entry.default is MISSING and entry.default_factory is MISSING:
            continue  # positional
        options[_option(entry.name)] = entry.name
        if hints[entry.name] is bool:
            options[f"--no-{_option(entry.name)[2:]}"] = entry.name
    return options


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _first_words(box: str) -> str:
    """Return what tyro's error box says between its title and the next rule, as one line."""
    lines = [line.strip().strip("│").strip() for line in box.strip().splitlines()]
    if len(lines) > 1 and lines[1].startswith("---"):  # where the terminal knows ASCII alone, title and rule are lines
        lines = lines[2:]
    words = []
    for line in lines:
        if line.startswith(("╭", "╰")):
            continue
        if line.startswith(("─", "---")):
            break
        words.append(line)
    return " ".join(words).rstrip(".") or "the options could not be read"
