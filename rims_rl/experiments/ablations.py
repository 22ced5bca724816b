"""The RIM taken apart, piece by piece, on the copying task and on one of reinforcement learning.

Goyal et al. 2021, table 4 and figures 15, 16 and 20: without input attention, without communication, with all units
active, with any number of active units; besides, without the null row, and the two presets `paper` and `authors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rims_rl.cores import core_config, core_names
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.experiments.config import Texts
from rims_rl.experiments.control import ControlConfig, ControlTrial
from rims_rl.experiments.copying import Copying, CopyingConfig, CopyingTrial
from rims_rl.experiments.experiment import Column, Experiment, Outcome
from rims_rl.experiments.figures import by_variant, new_figure, save_figure, tidy
from rims_rl.experiments.trial import Trial
from rims_rl.experiments.variants import Variant, parse_variant

_NAMES = ("whole", "no-input-attention", "no-communication", "all-active", "no-null-row", "bounded", "paper", "authors")
_PAPER_50 = {
    "whole": "0.00", "no-communication": "0.7", "no-input-attention": "0.0", "active-2": "0.00", "active-3": "0.00",
}  # fmt: skip
_PAPER_200 = {
    "whole": "0.00", "no-communication": "5.0", "no-input-attention": "0.7", "active-2": "0.00", "active-3": "0.00",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AblationsConfig(CopyingConfig, ControlConfig):
    """Train the RIM and what is left of it when a piece is taken away."""

    kept_by_a_resume = frozenset({"updates"})  # the schedules of RIMPPO depend on it

    models: Texts = ()
    """What to compare: whole, no-input-attention, no-communication, all-active, active-N, no-null-row, bounded, paper
    and authors (the presets), or a core's name; by default all of these, with every number of active units."""
    task: Literal["copying", "control"] = "copying"
    """What is learned: copying, or the control of an environment by RIMPPO."""


def ablated(name: str, rim: dict[str, Any]) -> dict[str, Any]:
    """Return the RIM's settings with a piece taken away.

    Args:
        name: which piece, see `AblationsConfig.models`.
        rim: the settings of the whole RIM, with `num_units` and `active_units`.

    Raises:
        UnknownNameError: for an unknown name.
    """
    units = rim["num_units"]
    if name.startswith("active-") and name.removeprefix("active-").isdecimal():
        return {**rim, "active_units": int(name.removeprefix("active-"))}
    changes: dict[str, dict[str, Any]] = {
        "whole": {},
        "no-input-attention": {"input_attention": False, "active_units": units},
        "no-communication": {"communication": False},
        "all-active": {"active_units": units},
        "no-null-row": {"competition": "units"},
        "bounded": {"bounded_messages": True},
        "paper": {"preset": "paper"},
        "authors": {"preset": "authors"},
    }
    if name not in changes:
        raise UnknownNameError("ablation or core", name, [*changes, "active-1", "lstm", "gru"])
    return {**rim, **changes[name]}


class Ablations(Experiment[AblationsConfig]):
    """The RIM and its ablations."""

    name = "ablations"
    config_class = AblationsConfig
    trial_class: type[Trial] = CopyingTrial

    def __init__(self, config: AblationsConfig) -> None:
        super().__init__(config)
        self.copying = Copying(config)
        if config.task == "control":
            self.trial_class = ControlTrial

    def check(self) -> None:
        """Raise ConfigError when the whole RIM's settings do not say how many units there are, or are active."""
        for name in ("num_units", "active_units"):
            if name not in self.config.rim:
                raise ConfigError(f"ablations need {name} among the settings of --rim")
        core_config("rim", self.config.rim)
        if self.config.task == "control":
            self._check_that_the_preset_decides()

    def _check_that_the_preset_decides(self) -> None:
        """Refuse settings of the shared loop that a training preset has of its own."""
        defaults = AblationsConfig()
        for name in ("learning_rate", "batch_size", "max_grad_norm"):
            if getattr(self.config, name) != getattr(defaults, name):
                raise ConfigError(f"in control {name} is the training preset's: give --train-preset a file with it")

    def variants(self) -> list[Variant]:
        """Return the whole RIM, what is left of it, and other cores where they are named."""
        if self.config.models:
            return [self._variant(name) for name in self.config.models]
        swept = [f"active-{active}" for active in range(1, self.config.rim["num_units"])]
        return _without_twins([self._variant(name) for name in [*_NAMES, *swept]])

    def _variant(self, name: str) -> Variant:
        if name.partition(":")[0] in core_names():
            return parse_variant(name, self.config)
        return Variant(name, "rim", ablated(name, self.config.rim))

    @property
    def input_size(self) -> int | None:
        """Size of the vectors that the core reads; in control it depends on the environment."""
        return self.copying.input_size if self.config.task == "copying" else None

    def check_variant(self, variant: Variant) -> None:
        """Raise ConfigError for a model that cannot be built."""
        core_config(variant.core, variant.settings)
        super().check_variant(variant)

    def trial(self, variant: Variant, seed: int) -> Trial:
        """Return a fresh trial of the task."""
        if self.config.task == "copying":
            return self.copying.trial(variant, seed)
        return ControlTrial(self.config, variant)

    @property
    def columns(self) -> Sequence[Column]:
        """The task's columns, with the paper's table 4 beside them."""
        if self.config.task == "control":
            return [Column("score", "score", 1, higher_is_better=True)]
        known = {"cross_entropy_50": _PAPER_50, "cross_entropy_200": _PAPER_200}
        paper = known if self.copying.is_papers else {}
        return [
            Column(column.key, column.title, column.places, column.higher_is_better, paper.get(column.key, {}))
            for column in self.copying.columns
        ]

    @property
    def caption(self) -> str:
        """What the table shows."""
        if self.config.task == "control":
            return (
                f"RIMPPO with the preset {self.config.train_preset}, {self.config.updates} updates; mean score of "
                f"{self.config.test_episodes} episodes with the weights that were best in validation."
            )
        return self.copying.caption.replace("table 1 (RIM 6/4 600, LSTM 600)", "tables 1 and 4 (600 wide)")

    def references(self, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
        """Return what guessing achieves; nothing in control."""
        return self.copying.references(outcomes) if self.config.task == "copying" else {}

    def draw(self, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
        """Draw every model's result as a bar with its seeds as dots, and the copying task's activity."""
        drawn = [_draw_bars(outcomes, column, folder / f"{column.key}.png") for column in self.columns]
        return drawn if self.config.task == "control" else [*drawn, *self.copying.draw(outcomes, folder)]


def _without_twins(variants: list[Variant]) -> list[Variant]:
    """Leave out every variant that is the same RIM as an earlier one."""
    known: dict[Any, Variant] = {}
    for variant in variants:
        known.setdefault(core_config("rim", variant.settings), variant)
    return list(known.values())


def _draw_bars(outcomes: Sequence[Outcome], column: Column, file: Path) -> Path:
    """Draw one column: a bar per model at its mean, a dot per seed."""
    grouped = by_variant(outcomes)
    figure = new_figure(8.0, 1.2 + 0.36 * len(grouped))
    axes = figure.add_subplot()
    for row, (name, trials) in enumerate(grouped.items()):
        values = [trial.figures[column.key] for trial in trials]
        axes.barh(row, sum(values) / len(values), color="#D55E00" if name == "whole" else "#9AA5B1", height=0.7)
        axes.plot(values, [row] * len(values), "o", color="black", markersize=4, alpha=0.7)
    axes.set_yticks(range(len(grouped)), list(grouped))
    axes.invert_yaxis()
    better = "higher" if column.higher_is_better else "lower"
    axes.set_xlabel(f"{column.title} ({better} is better)")
    tidy(axes)
    return save_figure(figure, file)
