"""Plots that several experiments share: learning curves, and which units were active over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rims_rl.errors import ConfigError
from rims_rl.experiments.experiment import Outcome
from rims_rl.plot_texts import make_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A palette that stays apart for the colour-blind (Okabe and Ito 2008); the same cores look alike in every plot.
_COLOURS = {"rim": "#D55E00", "lstm": "#0072B2", "gru": "#009E73", "feedforward": "#7F7F7F"}
_OTHER_COLOURS = (
    "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#BCBD22", "#5D3A9B", "#1A9988", "#E66100", "#AA0044",
    "#6B8E23", "#4B6584", "#F78FB3", "#A0522D",
)  # fmt: skip
NO_PLOTS = (ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError, OSError)
"""What is raised without matplotlib (a ConfigError), and for arrays of shapes that nobody expects."""
MOST_UNITS = 64
"""Units, experts or the like that one plot shows; arrays from elsewhere may have any number of them."""
_DPI = 150
_MOST_STRIPS = 3
_CHARACTER_WIDTH = 0.0095  # of a strip's width, on average


def new_figure(width: float = 8.0, height: float = 4.5) -> Figure:
    """Return an empty figure, sizes in inches; raises ConfigError when matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError('plots need matplotlib: pip install "rims-rl[plots]"') from None
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, file: Path) -> Path:
    """Write a figure, and return its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    make_plain(figure)
    figure.savefig(file, dpi=_DPI, facecolor="white")
    return file


def tidy(axes: Axes) -> None:
    """Take away what distracts: the frame's upper and right side; a faint grid remains."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each model's name, the familiar one for cores that have one."""
    found: dict[str, str] = {}
    for name in names:
        if name in _COLOURS and name not in found:
            found[name] = _COLOURS[name]
        elif name not in found:
            unknown = sum(known not in _COLOURS for known in found)
            found[name] = _OTHER_COLOURS[unknown % len(_OTHER_COLOURS)]
    return found


def by_variant(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Return the outcomes with a result by model, in their order."""
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if not outcome.failed:
            grouped.setdefault(outcome.variant, []).append(outcome)
    return grouped


def draw_curves(outcomes: Sequence[Outcome], figure_name: str, label: str, file: Path) -> list[Path]:
    """Draw a logged figure over the updates: every seed as a thin line, the models' means as thick ones."""
    grouped = by_variant(outcomes)
    if not grouped:
        return []
    figure = new_figure()
    axes = figure.add_subplot()
    palette = colours(grouped)
    for name, trials in grouped.items():
        curves = [_curve(trial, figure_name) for trial in trials]
        for updates, values in curves:
            axes.plot(updates, values, color=palette[name], linewidth=1, alpha=0.35)
        shared = min(len(values) for _, values in curves)
        mean = np.mean([values[:shared] for _, values in curves], axis=0)
        title = f"{name} ({len(trials)} seed{'s' if len(trials) > 1 else ''})"
        axes.plot(curves[0][0][:shared], mean, color=palette[name], linewidth=2.2, label=title)
    axes.set_xlabel("updates")
    axes.set_ylabel(label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(left=0)
    tidy(axes)
    axes.legend(frameon=False)
    return [save_figure(figure, file)]


def _curve(outcome: Outcome, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [row for row in outcome.rows if name in row]
    return np.array([row["update"] for row in rows]), np.array([row[name] for row in rows])


def draw_activity(outcomes: Sequence[Outcome], array: str, file: Path, marks: Mapping[int, str]) -> list[Path]:
    """Draw which units were active at each step of a sequence, a strip per trial (Goyal et al. 2021, figure 2).

    Args:
        outcomes: trials; those without the array are left out, and of each model the first few seeds are drawn.
        array: name of the (T, K) array of 0 and 1.
        file: picture to write.
        marks: steps at which something begins, and what.
    """
    shown = _with_array(outcomes, array)
    if not shown:
        return []
    units = min(shown[0].arrays[array].shape[1], MOST_UNITS)
    figure = new_figure(9.0, 0.9 + len(shown) * (0.45 + 0.16 * units))
    rows: Any = figure.subplots(len(shown), 1, squeeze=False, sharex=True)
    for axes, outcome in zip(rows[:, 0], shown, strict=True):
        _draw_strip(axes, outcome, array, marks)
    rows[-1, 0].set_xlabel("step")
    return [save_figure(figure, file)]


def _with_array(outcomes: Sequence[Outcome], array: str) -> list[Outcome]:
    shown: list[Outcome] = []
    for trials in by_variant(outcomes).values():
        shown += [trial for trial in trials if array in trial.arrays][:_MOST_STRIPS]
    return shown


def _draw_strip(axes: Axes, outcome: Outcome, array: str, marks: Mapping[int, str]) -> None:
    from matplotlib.colors import ListedColormap

    active = outcome.arrays[array][:, :MOST_UNITS].numpy().astype(float)
    paint = ListedColormap(["#F0F0F0", colours([outcome.variant])[outcome.variant]])
    axes.imshow(active.T, aspect="auto", interpolation="nearest", cmap=paint, vmin=0, vmax=1)
    placed = place_labels(marks, len(active))
    for step, label in placed.items():
        axes.axvline(step - 0.5, color="black", linewidth=1)
        axes.annotate(label.text, (step, -0.6 - 0.9 * label.line), fontsize=8, ha=label.side, annotation_clip=False)
    axes.set_yticks(range(active.shape[1]), [f"unit {unit + 1}" for unit in range(active.shape[1])], fontsize=7)
    lines = max((label.line for label in placed.values()), default=0)
    axes.set_title(f"{outcome.variant}, seed {outcome.seed}", loc="left", fontsize=10, pad=14 + 11 * lines)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


class Label(NamedTuple):
    """Where the name of a step stands."""

    text: str
    """What it says."""
    line: int
    """How many lines above the strip, from 0."""
    side: str
    """Which side of the text is at the step: left or right."""


def place_labels(marks: Mapping[int, str], length: int) -> dict[int, Label]:
    """Return labels for some steps of a sequence of `length`, in two lines where one does not hold them."""
    placed: dict[int, Label] = {}
    free = [0.0, 0.0]
    for step, text in sorted(marks.items()):
        width = _CHARACTER_WIDTH * length * len(text)
        begin = step - width if step + width > length else float(step)
        line = 0 if begin >= free[0] else 1
        free[line] = begin + width
        placed[step] = Label(text, line, "right" if begin < step else "left")
    return placed
