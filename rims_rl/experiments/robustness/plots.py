"""The plots of a robustness report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rims_rl.experiments.figures import colours, new_figure, save_figure, tidy
from rims_rl.experiments.robustness.conditions import CLEAN, Condition, shortest
from rims_rl.experiments.robustness.findings import Findings
from rims_rl.experiments.robustness.subjects import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = {"train": "-", "held-out": "--"}
_PER_ROW = 4
_MOST_UNITS = 12


def draw_all(findings: Findings, folder: Path) -> list[Path]:
    """Draw what there is to draw and return the files; raises ConfigError when matplotlib is missing."""
    made: list[Path] = []
    for world in findings.worlds:
        name = world.replace("/", "-").replace(" ", "-")
        made += draw_intensities(findings, world, folder / f"score-intensity-{name}.png")
        made += draw_heat_map(findings, world, folder / f"heat-map-{name}.png")
        made += draw_tasks(findings, world, folder / f"changes-{name}.png")
    return made + draw_mechanism(findings, folder / "mechanism.png")


def _distracted(findings: Findings, world: str) -> list[Condition]:
    """Return a world's conditions with distractors."""
    there = (condition for subject, condition in findings.scores if subject.world == world)
    return [condition for condition in dict.fromkeys(there) if condition.kind is not None]


def _left(findings: Findings, subjects: Iterable[Subject], condition: Condition) -> list[float]:
    """Return what each agent retains, where known."""
    found = (findings.retained(subject, condition) for subject in subjects)
    return [value for value in found if value is not None]


# ---------------------------------------------------------------------- score against intensity


def draw_intensities(findings: Findings, world: str, file: Path) -> list[Path]:
    """Draw what is retained against the intensity, a panel per kind: cores by colour, splits by line."""
    distracted = _distracted(findings, world)
    kinds = list(dict.fromkeys(condition.kind for condition in distracted))
    if not kinds:
        return []
    columns, rows = min(_PER_ROW, len(kinds)), -(-len(kinds) // _PER_ROW)
    figure = new_figure(2.6 * columns + 0.6, 2.1 * rows + 0.7)
    panels: Any = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat[len(kinds) :]:
        panel.set_axis_off()
    for panel, kind in zip(panels.flat, kinds, strict=False):
        _draw_kind(panel, findings, world, [condition for condition in distracted if condition.kind == kind])
        panel.set_title(str(kind), fontsize=10)
        panel.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel("intensity", fontsize=10)
    figure.supylabel("retained, %", fontsize=10)
    handles, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)), frameon=False, fontsize=9)
    return [save_figure(figure, file)]


def _draw_kind(panel: Axes, findings: Findings, world: str, conditions: Sequence[Condition]) -> None:
    palette = colours(findings.labels)
    for label in findings.labels:
        group = findings.group(label, world)
        for split in dict.fromkeys(condition.split for condition in conditions):
            chosen = sorted((one for one in conditions if one.split == split), key=lambda one: one.intensity)
            points = [(0.0, 1.0)] if _left(findings, group, CLEAN) else []
            points += [(one.intensity, float(np.mean(left))) for one in chosen if (left := _left(findings, group, one))]
            if points:
                x, y = np.array(points).T
                panel.plot(
                    x, 100 * y, marker="o", markersize=3, linewidth=1.6, label=f"{label}, {split}",
                    color=palette[label], linestyle=_LINES.get(str(split), "-"),
                )  # fmt: skip
    panel.axhline(0, color="#999999", linewidth=0.8)
    tidy(panel)


# ---------------------------------------------------------------------- heat map


def draw_heat_map(findings: Findings, world: str, file: Path) -> list[Path]:
    """Draw what is retained by kind and intensity, a map per core and split."""
    distracted = _distracted(findings, world)
    labels = [label for label in findings.labels if findings.group(label, world)]
    splits = list(dict.fromkeys(str(condition.split) for condition in distracted))
    kinds = list(dict.fromkeys(str(condition.kind) for condition in distracted))
    if not kinds:
        return []
    maps = [(label, split) for label in labels for split in splits]
    figure = new_figure(1.6 + 1.9 * len(maps), 1.1 + 0.34 * len(kinds))
    panels: Any = figure.subplots(1, len(maps), squeeze=False, sharey=True)
    for panel, (label, split) in zip(panels[0], maps, strict=True):
        chosen = [one for one in distracted if one.split == split]
        image = _draw_map(panel, _table(findings, findings.group(label, world), kinds, chosen))
        panel.set_title(f"{label}\n{split}", fontsize=9)
        panel.set_xticks(range(len(_intensities(chosen))), list(map(shortest, _intensities(chosen))))
        panel.set_yticks(range(len(kinds)), kinds)
    figure.supxlabel("intensity", fontsize=10)
    bar = figure.colorbar(image, ax=panels[0].tolist(), shrink=0.8)
    bar.set_label("retained, %", fontsize=9)
    return [save_figure(figure, file)]


def _intensities(conditions: Sequence[Condition]) -> list[float]:
    return sorted({condition.intensity for condition in conditions})


def _table(
    findings: Findings, subjects: Sequence[Subject], kinds: Sequence[str], conditions: Sequence[Condition]
) -> np.ndarray:
    """Return the mean percentage that is retained, (kinds, intensities), NaN where unknown."""
    table = np.full((len(kinds), len(_intensities(conditions))), np.nan)
    for condition in conditions:
        left = _left(findings, subjects, condition)
        if left:
            place = kinds.index(str(condition.kind)), _intensities(conditions).index(condition.intensity)
            table[place] = 100 * np.mean(left)
    return table


def _draw_map(panel: Axes, table: np.ndarray) -> Any:
    """Draw one map with its numbers, and return the image."""
    image = panel.imshow(table, vmin=0, vmax=100, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            colour = "white" if value < 55 else "black"
            panel.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    return image


# ---------------------------------------------------------------------- variants and changed tasks


def draw_tasks(findings: Findings, world: str, file: Path) -> list[Path]:
    """Draw the scores in variants or changed tasks, and in the clean world: a dot per run, a line for the mean."""
    there = (condition for subject, condition in findings.scores if subject.world == world)
    changed = [condition for condition in dict.fromkeys(there) if condition.kind is None]
    if len(changed) < 2:
        return []
    labels = [label for label in findings.labels if findings.group(label, world)]
    figure = new_figure(1.8 + 1.7 * len(changed), 4.2)
    axes, palette = figure.subplots(), colours(findings.labels)
    for number, label in enumerate(labels):
        shift = 0.24 * (number - (len(labels) - 1) / 2)
        _draw_dots(axes, findings, label, world, changed, shift, palette[label])
    random = [findings.random_mean(world, condition) for condition in changed]
    for place, value in enumerate(random):
        if value is not None:
            name = "_" if place else "random"  # a name with an underscore stays out of the legend
            axes.hlines(value, place - 0.4, place + 0.4, color="#999999", linestyle=":", label=name)
    axes.set_xticks(range(len(changed)), [_short(condition.name) for condition in changed])
    axes.set_ylabel("mean score")
    tidy(axes)
    axes.legend(frameon=False, fontsize=9)
    return [save_figure(figure, file)]


def _draw_dots(
    axes: Axes, findings: Findings, label: str, world: str, changed: Sequence[Condition], shift: float, colour: str
) -> None:
    group = findings.group(label, world)
    for place, condition in enumerate(changed):
        values = [value for one in group if (value := findings.mean(one, condition)) is not None]
        if values:
            name = None if place else f"{label} ({len(values)} seed{'s' * (len(values) != 1)})"
            axes.scatter(
                [place + shift] * len(values), values, color=colour, s=22, alpha=0.75, label=name, linewidths=0
            )
            axes.hlines(np.mean(values), place + shift - 0.1, place + shift + 0.1, color=colour, linewidth=2.4)


def _short(name: str) -> str:
    return name.removeprefix("rims_rl/").removesuffix("-v0")


# ---------------------------------------------------------------------- the memory at the onset


def draw_mechanism(findings: Findings, file: Path) -> list[Path]:
    """Draw what happens when a distractor appears: policy and memory of every core, then the units of the RIM."""
    if not findings.mechanism:
        return []
    with_units = [label for label in findings.labels if _mean_rows(findings, label, "active_disturbed") is not None]
    figure = new_figure(10.5, 3.2 + 2.2 * len(with_units))
    rows: Any = figure.subplots(1 + len(with_units), 1, height_ratios=[1.35] + [1] * len(with_units), squeeze=False)
    top = rows[0, 0].get_subplotspec().subgridspec(1, 3)
    rows[0, 0].remove()
    for place, (key, title) in enumerate(_CURVES.items()):
        _draw_curves(figure.add_subplot(top[place]), findings, key, title)
    for axes, label in zip(rows[1:, 0], with_units, strict=True):
        _draw_units(figure, axes, findings, label)
    return [save_figure(figure, file)]


_CURVES = {
    "divergence": "policy's change (KL, nats)", "state_change": "memory's change (relative)",
    "untouched": "share of the RIM's units untouched",
}  # fmt: skip


def _draw_curves(axes: Axes, findings: Findings, key: str, title: str) -> None:
    palette = colours(findings.labels)
    for label in findings.labels:
        for rows in _every_row(findings, label, key):
            axes.plot(*rows, color=palette[label], linewidth=0.6, alpha=0.25)
        mean = _mean_rows(findings, label, key)
        if mean is not None:
            axes.plot(*mean, color=palette[label], linewidth=2.2, label=label)
    axes.axvline(0, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("steps since the distractor appeared", fontsize=9)
    axes.set_ylim(bottom=0)
    tidy(axes)
    if key != "untouched":
        axes.legend(frameon=False, fontsize=8, loc="upper left")


def _every_row(findings: Findings, label: str, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return steps and a figure, for every condition of a label the mean over its runs."""
    found = []
    for condition in dict.fromkeys(condition for _, condition in findings.mechanism):
        results = [
            (np.array(result["steps"]), np.array(result[key], np.float64))
            for (subject, there), result in findings.mechanism.items()
            if there == condition and subject.label == label and key in result and None not in result[key]
        ]
        if results:
            shared = min(len(steps) for steps, _ in results)
            found.append((results[0][0][:shared], np.mean([values[:shared] for _, values in results], axis=0)))
    return found


def _mean_rows(findings: Findings, label: str, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return steps and a figure, the mean over all conditions and runs of a label; None where no run has it."""
    rows = _every_row(findings, label, key)
    if not rows:
        return None
    shared = min(len(steps) for steps, _ in rows)
    return rows[0][0][:shared], np.mean([values[:shared] for _, values in rows], axis=0)


def _draw_units(figure: Figure, axes: Axes, findings: Findings, label: str) -> None:
    """Draw how much more or less often each unit is active than in the same game without the distractor."""
    disturbed, clean = (_mean_rows(findings, label, f"active_{name}") for name in ("disturbed", "clean"))
    assert disturbed is not None
    assert clean is not None
    steps, difference = disturbed[0], 100 * (disturbed[1] - clean[1]).T[:_MOST_UNITS]
    most = max(float(np.abs(difference).max()), 1.0)
    extent = (steps[0] - 0.5, steps[-1] + 0.5, len(difference) + 0.5, 0.5)
    image = axes.imshow(difference, aspect="auto", cmap="PuOr", vmin=-most, vmax=most, extent=extent)
    axes.axvline(-0.5, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(1, len(difference) + 1))
    axes.set_ylabel("unit", fontsize=9)
    axes.set_xlabel("steps since the distractor appeared", fontsize=9)
    axes.set_title(f"{label}: units active more often (orange: less) than in the same game without it", fontsize=10)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("percentage points", fontsize=8)
