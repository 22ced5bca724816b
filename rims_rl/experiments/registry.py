"""The experiments by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rims_rl.errors import UnknownNameError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Experiment

EXPERIMENTS: dict[str, tuple[str, str, str]] = {
    "copying": ("copying", "Copying", "remember ten symbols over a longer silence than in training"),
    "adding": ("adding", "Adding", "add two marked numbers of a longer sequence than in training"),
    "sequential-mnist": ("sequential_mnist", "SequentialMnist", "read digits pixel by pixel at new resolutions"),
    "bouncing-balls": ("bouncing_balls", "BouncingBalls", "predict balls that collide, other numbers of them, hidden"),
    "inverse-mechanisms": ("inverse_mechanisms", "InverseMechanisms", "experts that compete learn to undo changes"),
    "ablations": ("ablations", "Ablations", "take the RIM apart, piece by piece"),
}
"""Name, as the command line has it: module, class, and what it is about."""


def experiment_class(name: str) -> type[Experiment[Any]]:
    """Return an experiment's class; raises UnknownNameError with the nearest names."""
    if name not in EXPERIMENTS:
        raise UnknownNameError("experiment", name, EXPERIMENTS)
    module, class_name, _ = EXPERIMENTS[name]
    found: type[Experiment[Any]] = getattr(import_module(f"rims_rl.experiments.{module}"), class_name)
    return found


def make_experiment(name: str, config: ExperimentConfig) -> Experiment[Any]:
    """Return an experiment with its settings; raises UnknownNameError for an unknown name."""
    return experiment_class(name)(config)
