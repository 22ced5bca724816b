"""What a task gives to the runner: its settings, its models, its trials, the columns of its table and its plots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from rims_rl.cores.matching import sketched_core
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.trial import Trial
from rims_rl.experiments.variants import Variant, matched, variants_of

C = TypeVar("C", bound=ExperimentConfig)


@dataclass(frozen=True)
class Column:
    """One column of the results' table."""

    key: str
    """The figure of `Trial.test` that it shows."""
    title: str
    """Its heading, short."""
    places: int = 2
    """Decimal places."""
    higher_is_better: bool = False
    """Which way is good."""
    paper: Mapping[str, str] = field(default_factory=dict)
    """What the paper has in this column, by the variant's name, as it is printed there."""


@dataclass(frozen=True)
class Outcome:
    """What one trial came to."""

    variant: str
    """Name of the model."""
    seed: int
    """Its seed."""
    parameters: int = 0
    """How many numbers it learned."""
    updates: int = 0
    """How many updates were made."""
    best_update: int = 0
    """After how many updates the tested weights were taken."""
    ended: str = ""
    """Why training ended: finished, patience, target, or `diverged at update N:` or `failed:` followed by why."""
    seconds: float = 0.0
    """Wall time of training and test."""
    measured_on: str = ""
    """The machine, its threads in use, versions and date of the test."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of what results depend on."""
    figures: dict[str, float] = field(default_factory=dict)
    """What the test found; empty for a trial that failed."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The logged figures, one row per validation, with `update` among them."""
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """What plots are drawn from."""
    skipped: int = 0
    """Of the updates, those that were left out because their loss or gradient was not finite."""

    @property
    def failed(self) -> bool:
        """Whether there is no result."""
        return not self.figures

    @property
    def diverged(self) -> bool:
        """Whether training became not finite; the weights that were best before it were tested."""
        return not self.failed and self.ended.startswith("diverged")


class Experiment(ABC, Generic[C]):
    """A task with its settings."""

    name: ClassVar[str]
    """What the command line calls it."""
    config_class: ClassVar[type[Any]]
    """Its settings, a subclass of ExperimentConfig."""
    trial_class: type[Trial]
    """Its trials' class, whose `watched` figure displays and learning curves show."""

    def __init__(self, config: C) -> None:
        self.config = config

    def check(self) -> None:
        """Raise ConfigError, in one line, when something that the task needs is missing or broken, such as data."""

    def variants(self) -> list[Variant]:
        """Return the models that are compared; raises as `variants_of` does."""
        return variants_of(self.config)

    @property
    def input_size(self) -> int | None:
        """Size of the vectors that the core reads; None where there is no core."""
        return None

    def check_variant(self, variant: Variant) -> None:
        """Raise ConfigError, in one line, for a model that cannot be built; takes no memory for it."""
        if self.input_size is not None:
            sketched_core(variant.core, self.input_size, **matched(variant, self.input_size, self.config).settings)

    @abstractmethod
    def trial(self, variant: Variant, seed: int) -> Trial:
        """Return a fresh trial; the global generator is already seeded from `seed`."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[Column]:
        """The columns of the table."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """One or two sentences: what was trained and tested on, what the columns are, what chance level is."""

    def references(self, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
        """Return what no model at all achieves, such as guessing, by its name: figures by the columns' keys.

        Args:
            outcomes: trials with a result, from which some references are read.
        """
        return {}

    def draw(self, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
        """Draw the task's own plots and videos into a folder and return the files; learning curves are drawn anyway."""
        return []
