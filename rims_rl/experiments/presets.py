"""Presets of the experiments: flat YAML files in `rims_rl/configs/experiments/TASK`, or anywhere."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.settings import checked_settings, parse_mapping, read_text
from rims_rl.storage.plain_files import expanded

Config = TypeVar("Config")

_HOW_TRIALS_RUN = frozenset({"resume", "workers", "wandb", "wandb_project", "wandb_entity", "data_dir"})
_HOW_MUCH_IS_RUN = frozenset({"seeds", "updates", "patience", "target"})


def free_to_change(kind: type[Any]) -> frozenset[str]:
    """Return what a resumed experiment with settings of this class may be given anew: nothing that a trial learns from.

    `updates` stays where a schedule of the learning depends on it.
    """
    kept: frozenset[str] = kind.kept_by_a_resume
    return (_HOW_TRIALS_RUN | _HOW_MUCH_IS_RUN) - kept


def preset_names(experiment: str) -> list[str]:
    """Return the names of an experiment's presets."""
    folder = resources.files("rims_rl") / "configs" / "experiments" / experiment
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_settings(experiment: str, name: str, kind: type[Config]) -> Config:
    """Return an experiment's settings with a preset's in place.

    Args:
        experiment: the experiment's name.
        name: a preset's name, or the path of a YAML file.
        kind: the experiment's settings class.

    Raises:
        UnknownNameError: for an unknown preset or key.
        ConfigError: for a file that is no flat YAML mapping, or a value of the wrong type.
    """
    entries = parse_mapping(name, _text(experiment, name))
    entries.pop("description", None)
    base: Any = kind()
    settings = checked_settings(entries, kind, f"preset {name}")
    if "rim" in settings:
        settings["rim"] = {**base.rim, **settings["rim"]}
    applied: Config = replace(base, config=name, **settings)
    return applied


def _text(experiment: str, name: str) -> str:
    if name in preset_names(experiment):
        folder = resources.files("rims_rl") / "configs" / "experiments" / experiment
        return (folder / f"{name}.yaml").read_text("utf-8")
    path = expanded(Path(name))
    if path.is_file():
        return read_text(path)
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"no preset file at {name}")
    raise UnknownNameError(f"preset of {experiment}", name, preset_names(experiment))
