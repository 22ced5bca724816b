"""Results of several runs together: learning curves from their `progress.csv`, those of other seeds as one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rims_rl.config import RESUMABLE, PlotConfig, TrainConfig, as_plain
from rims_rl.envs import is_atari
from rims_rl.errors import ConfigError, printable, said
from rims_rl.logging import NOT_A_LOG, read_csv
from rims_rl.plot_texts import make_plain
from rims_rl.runs import load_config, open_run
from rims_rl.storage.plain_files import check_target, expanded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A palette that stays apart for the colour-blind (Okabe and Ito 2008).
_COLOURS = {"rim": "#D55E00", "lstm": "#0072B2", "gru": "#009E73", "feedforward": "#7F7F7F"}
_DRAWN = ("time/total_timesteps", "rollout/ep_rew_mean")
_LARGEST = 1e100  # beyond which Matplotlib's own sums overflow
_OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000")
_OF_ONE_RUN = (RESUMABLE | {"seed", "output", "name", "config"}) - {"total_timesteps"}
"""Settings in which runs may differ and still be drawn as one; the total is none: learning rates fall to 0 over it."""
_POINTS = 300
"""Points of a mean curve."""


@dataclass(frozen=True)
class Curve:
    """What one run scored as it went."""

    name: str
    """The run's folder."""
    config: TrainConfig
    """Its settings."""
    steps: np.ndarray
    """Environment steps (n,)."""
    rewards: np.ndarray
    """Mean raw score of the last 100 training episodes (n,)."""

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Return the scores at some steps (m,), between logged ones along a straight line."""
        scores: np.ndarray = np.interp(steps, self.steps, self.rewards)
        return scores


def read_curve(path: Path) -> Curve:
    """Read a run's learning curve.

    Raises:
        ConfigError: when the folder holds no run, or nothing was logged yet.
    """
    folder = open_run(path)
    try:
        curve = _points(read_csv(folder.progress_file))
    except NOT_A_LOG as error:
        raise ConfigError(f"{folder.progress_file} cannot be read: {said(error)}") from None
    if not len(curve):
        raise ConfigError(f"{folder.progress_file} holds no finished episode yet")
    return Curve(folder.path.name, load_config(folder), curve[:, 0], curve[:, 1])


def _points(lines: Iterator[list[str]]) -> np.ndarray:
    """Return what is drawn of the lines of a log, (n, 2); rows without both numbers are left out."""
    headings = next(lines)
    places = [headings.index(name) for name in _DRAWN if name in headings]
    points = ([_number(line, place) for place in places] for line in lines if len(places) == len(_DRAWN))
    return np.array([point for point in points if all(map(math.isfinite, point))])


def _number(line: list[str], place: int) -> float:
    """Return a number in a line; NaN where there is none, or one too large to draw."""
    try:
        number = float(line[place])
    except (ValueError, IndexError):
        return math.nan
    return number if abs(number) < _LARGEST else math.nan


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone."""

    label: str
    """What tells the group from the others, and its seed or how many seeds there are."""
    core: str
    """The memory."""
    curves: list[Curve]
    """One per run."""

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return steps (n,) that all runs have done, and the mean of their scores there (n,)."""
        if len(self.curves) == 1:
            return self.curves[0].steps, self.curves[0].rewards
        first, last = max(c.steps[0] for c in self.curves), min(c.steps[-1] for c in self.curves)
        if first > last:
            raise ConfigError(
                f"the runs of {self.label} have no steps in common, so they have no mean: draw them apart"
            )
        steps = np.linspace(first, last, _POINTS)
        return steps, np.mean([curve.at(steps) for curve in self.curves], axis=0)


def group_curves(curves: list[Curve]) -> list[Group]:
    """Put runs together that differ in their seeds alone, in the order in which they are given."""
    kinds: dict[str, list[Curve]] = {}
    for curve in curves:
        kinds.setdefault(json.dumps(_settings(curve), sort_keys=True), []).append(curve)
    alike = [_settings(members[0]) for members in kinds.values()]
    return [
        Group(_name_of(members, [other for other in alike if other["core"] == members[0].config.core]),
              members[0].config.core, members)
        for members in kinds.values()
    ]  # fmt: skip


def _settings(curve: Curve) -> dict[str, Any]:
    """Return the settings that make a run another one than those of other seeds."""
    return {name: value for name, value in as_plain(curve.config).items() if name not in _OF_ONE_RUN}


def _name_of(members: list[Curve], same_core: list[dict[str, Any]]) -> str:
    """Return a group's core, where it differs from other groups of that core, and its seed or their number."""
    mine = _settings(members[0])
    differing = [name for name in mine if any(other[name] != mine[name] for other in same_core)]
    parts = [members[0].config.core, *(f"{name} {_shown(mine[name])}" for name in differing)]
    seeds = {curve.config.seed for curve in members}
    if len(members) == 1:
        return ", ".join([*parts, f"seed {members[0].config.seed}"])
    return ", ".join([*parts, f"{len(members)} {'seeds' if len(seeds) == len(members) else 'runs'}"])


def _shown(value: Any) -> str:
    """Return a setting as the command line takes it."""
    if isinstance(value, dict):
        return " ".join(f"{name}:{entry}" for name, entry in value.items()) or "none"
    return "none" if value is None else str(value)


def plot_runs(config: PlotConfig) -> None:
    """Draw the learning curves of some runs of one environment into a picture.

    Raises:
        ConfigError: for runs that can't be read or compared, or a picture that can't be written.
    """
    if not config.runs:
        raise ConfigError("plot needs the folder of at least one run")
    curves = [read_curve(path) for path in config.runs]
    games = sorted({curve.config.env for curve in curves})
    if len(games) > 1:
        raise ConfigError(f"runs of different environments cannot share one plot: {', '.join(games)}")
    check_target("--output", config.output)
    figure, axes = _figure()
    groups = group_curves(curves)
    for group, colour in zip(groups, _colours(groups), strict=True):
        _draw(axes, group, colour)
    _label(axes, curves[0].config)
    make_plain(figure)
    try:
        figure.savefig(expanded(config.output), dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config.output} cannot be written: {error}") from None


def _figure() -> tuple[Any, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError('plots need matplotlib: pip install "rims-rl[plots]"') from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    return figure, figure.add_subplot()


def _draw(axes: Axes, group: Group, colour: str) -> None:
    """Draw a group's mean, and, thinly, the seeds that it is the mean of."""
    steps, rewards = group.mean()
    several, last = len(group.curves) > 1, f"{rewards[-1]:.1f}"
    for curve in group.curves if several else ():
        axes.plot(curve.steps, curve.rewards, color=colour, linewidth=0.8, alpha=0.45)
    if several:
        ends = [curve.at(steps[-1:])[0] for curve in group.curves]
        last += f" ({min(ends):.1f} to {max(ends):.1f})"
    axes.plot(steps, rewards, color=colour, linewidth=2, label=f"{printable(group.label, 60)}: {last}")


def _colours(groups: list[Group]) -> list[str]:
    """Return a colour per group, the core's own for the first group of a core."""
    free = [*_OTHER_COLOURS, *(colour for core, colour in _COLOURS.items() if core not in {g.core for g in groups})]
    found: list[str] = []
    for group in groups:
        own = _COLOURS.get(group.core)
        found.append(own if own and own not in found else free[len(found) % len(free)])
    return found


def _label(axes: Axes, config: TrainConfig) -> None:
    rules = f", protocol {config.protocol}" if is_atari(config.env) else ""
    axes.set_title(f"{config.env}{rules}", loc="left")
    axes.set_xlabel("environment steps" + (" (4 frames each)" if is_atari(config.env) else ""))
    axes.set_ylabel("score, last 100 training episodes")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", title="score at the end", alignment="left")
