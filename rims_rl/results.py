"""Results of several runs together: learning curves from their `progress.csv`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rims_rl.config import PlotConfig, TrainConfig
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
    for curve, colour in zip(curves, _colours(curves), strict=True):
        label = f"{printable(curve.config.core, 40)}, seed {curve.config.seed}"
        axes.plot(curve.steps, curve.rewards, color=colour, linewidth=2, label=label)
        axes.annotate(f"{curve.rewards[-1]:.1f}", (curve.steps[-1], curve.rewards[-1]), xytext=(6, 0),
                      textcoords="offset points", va="center", color=colour)  # fmt: skip
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


def _colours(curves: list[Curve]) -> list[str]:
    """Return a colour per curve: one per core, so that seeds of a core look alike."""
    cores = list(dict.fromkeys(curve.config.core for curve in curves))
    unknown = [core for core in cores if core not in _COLOURS]
    colours = {core: _OTHER_COLOURS[i % len(_OTHER_COLOURS)] for i, core in enumerate(unknown)} | _COLOURS
    return [colours[curve.config.core] for curve in curves]


def _label(axes: Axes, config: TrainConfig) -> None:
    rules = f", protocol {config.protocol}" if is_atari(config.env) else ""
    axes.set_title(f"{config.env}{rules}", loc="left")
    axes.set_xlabel("environment steps" + (" (4 frames each)" if is_atari(config.env) else ""))
    axes.set_ylabel("score, last 100 training episodes")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(x=0.06)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
