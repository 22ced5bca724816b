"""The settings that all experiments share; each task adds its own in a subclass beside its trial.

In rising order of precedence a setting comes from the dataclass, the preset (`configs/experiments/TASK/*.yaml`) or the
command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from rims_rl.config import Int, OptionalFloat, OptionalInt, OptionalPath, OptionalText, Pairs
from rims_rl.errors import ConfigError, shortened
from rims_rl.validation import MOST_THREADS

Texts = Annotated[tuple[str, ...], arg(metavar="NAME ...")]

MOST_SEEDS = 1_000
"""Trials per model, at most."""
PAPERS_WIDTH = 600
"""Width of the models in the paper's tables."""
_AT_LEAST_ONE = ("seeds", "updates", "batch_size", "eval_freq")
_AT_LEAST_ZERO = ("first_seed", "workers", "torch_threads", "most_skipped")
_POSITIVE_IF_GIVEN = ("learning_rate", "max_grad_norm", "patience")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Settings of every experiment."""

    kept_by_a_resume: ClassVar[frozenset[str]] = frozenset()
    """Settings that a resume may not change though other experiments' may."""

    config: OptionalText = None
    """Preset to start from: small, paper, another in configs/experiments, or the path of a YAML file."""
    models: Texts = ("rim", "lstm")
    """Models to compare, names of `rims-rl cores`, with settings where wanted: rim lstm lstm:hidden_size=300."""
    seeds: Int = 1
    """Trials per model."""
    first_seed: Int = 0
    """Seed of the first trial; the others follow."""
    output: OptionalPath = None
    """Folder of the results; by default runs/<experiment>_<time>."""
    resume: OptionalPath = None
    """Go on with the experiment in this folder: finished trials stay, others go on from their checkpoint."""
    workers: Int = 0
    """Trials that run side by side, each in a process of its own; 0: one per processor core."""

    rim: Pairs = field(default_factory=lambda: {"num_units": 6, "active_units": 4, "unit_size": 100, "preset": "paper"})
    """Settings of the RIM, e.g. num_units:6 active_units:4 unit_size:100; added to the preset's."""
    match: Literal["parameters", "width", "none"] = "parameters"
    """What other cores share with the RIM: its number of parameters, its output's width (as in the paper), or none."""

    updates: Int = 30_000
    """Updates of a trial, at most."""
    batch_size: Int = 64
    """Sequences per update."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    max_grad_norm: OptionalFloat = 1.0
    """Gradient norm above which gradients are scaled down; none for no limit."""
    most_skipped: Int = 10
    """Updates in a row that are left out because their loss or gradient is not finite; one more ends the trial."""
    eval_freq: Int = 500
    """Updates between two validations."""
    patience: OptionalInt = None
    """End a trial after this many validations without a better one; none by default."""
    target: OptionalFloat = None
    """End a trial when the watched figure is as good as this; none by default."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "disabled"
    """Weights & Biases: one run per trial, grouped by experiment; auto is online when logged in, else offline."""
    wandb_project: str = "rims-rl"
    """W&B project."""
    wandb_entity: OptionalText = None
    """W&B user or team."""
    device: str = "auto"
    """Where the models run: auto (cuda when present), cpu, cuda, cuda:1, ..."""
    torch_threads: Int = 0
    """CPU threads per trial; 0 shares the processor's cores between the workers."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work; subclasses add their own."""
        self.require_at_least(1, *_AT_LEAST_ONE)
        self.require_at_least(0, *_AT_LEAST_ZERO)
        for name in _POSITIVE_IF_GIVEN:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be positive and finite, got {value}")
        for name, most in (("seeds", MOST_SEEDS), ("torch_threads", MOST_THREADS)):
            if getattr(self, name) > most:
                raise ConfigError(f"{name} must be at most {most}, got {shortened(getattr(self, name))}")
        if self.target is not None and not math.isfinite(self.target):
            raise ConfigError(f"target must be finite, got {self.target}")

    @property
    def has_papers_size(self) -> bool:
        """Whether models are as wide as the paper's, 600: its numbers stand beside no others."""
        width = self.rim.get("num_units", 0) * self.rim.get("unit_size", 0)
        return self.match == "width" and width == PAPERS_WIDTH

    def require_at_least(self, least: int, *names: str) -> None:
        """Raise ConfigError naming the first of some settings that is given and below a number."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
