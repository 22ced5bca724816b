"""Pictures of sequential MNIST: accuracy by resolution, and which units were active at which pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.figures import by_variant, colours, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_UNITS, _MOST_ROWS = 24, 10  # each with a picture of its own
_CHANCE = 10.0
# Unit at rest or active (two colours each), on a dark or a light pixel.
_AT_REST, _AT_REST_ON_INK, _ACTIVE, _ACTIVE_ON_INK = "#F3F3F3", "#B5B5B5", "#F9C49A", "#C14F00"
_SHADES = (_AT_REST, _AT_REST_ON_INK, _ACTIVE, _ACTIVE_ON_INK)
_MEANINGS = ("at rest, ground", "at rest, ink", "active, ground", "active, ink")


def draw_figures(
    outcomes: Sequence[Outcome], sizes: Sequence[int], paper: Mapping[int, Mapping[str, str]], folder: Path
) -> list[Path]:
    """Draw what the trials found into a folder and return the files.

    Args:
        outcomes: the trials; those that failed are left out.
        sizes: the resolutions, the trained one first.
        paper: the paper's accuracy in percent, by resolution and model.
        folder: where the pictures go.

    Raises:
        ConfigError: matplotlib is missing.
    """
    models = by_variant(outcomes)
    if not models:
        return []
    files = [draw_accuracy(models, sizes, paper, folder / "accuracy_by_resolution.png")]
    for name, trials in models.items():
        if "shown_active" in trials[0].arrays:
            file = "".join(letter if letter.isalnum() else "_" for letter in f"activity {name} seed {trials[0].seed}")
            files.append(draw_activity(trials[0], folder / f"{file}.png"))
    return files


# ---------------------------------------------------------------------- accuracy


def draw_accuracy(
    models: Mapping[str, Sequence[Outcome]], sizes: Sequence[int], paper: Mapping[int, Mapping[str, str]], file: Path
) -> Path:
    """Draw accuracy against resolution: mean and range over seeds, and the paper's points as hollow marks."""
    figure = new_figure()
    axes = figure.add_subplot()
    for name, colour in colours(models).items():
        found = np.array([[trial.figures[f"accuracy_{n}"] for n in sizes] for trial in models[name]])
        _draw_model(axes, sizes, found, name, colour)
        published = {n: float(paper[n][name]) for n in sizes if name in paper.get(n, {})}
        axes.plot([*published], [*published.values()], "o", mfc="none", mec=colour, mew=1.6, ms=8,
                  label=f"{name}, paper" if published else None)  # fmt: skip
    _finish_accuracy(axes, sizes)
    return save_figure(figure, file)


def _draw_model(axes: Axes, sizes: Sequence[int], found: NDArray[np.float64], variant: str, colour: str) -> None:
    """Draw one model's accuracies (seeds, resolutions)."""
    order = np.argsort(sizes)
    at, found = np.asarray(sizes)[order], found[:, order]
    seeds = f"{len(found)} seeds" if len(found) > 1 else "1 seed"
    axes.plot(at, found.mean(axis=0), "o-", color=colour, linewidth=2, ms=5, label=f"{variant}, {seeds}")
    if len(found) > 1:
        axes.fill_between(at, found.min(axis=0), found.max(axis=0), color=colour, alpha=0.18, linewidth=0)


def _finish_accuracy(axes: Axes, sizes: Sequence[int]) -> None:
    axes.axhline(_CHANCE, color="#7F7F7F", linewidth=1, linestyle="--")
    axes.annotate("guessing", (max(sizes), _CHANCE), xytext=(0, 4), textcoords="offset points", ha="right",
                  color="#5F5F5F")  # fmt: skip
    axes.set_xticks(sorted(sizes), [f"{n}x{n}" + ("\ntrained" if n == sizes[0] else "") for n in sorted(sizes)])
    axes.set_ylim(0, 100)
    axes.set_xlabel("resolution (pixels)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("Sequential MNIST at resolutions that were not trained", loc="left")
    tidy(axes)
    axes.legend(frameon=False, loc="upper right")


# ---------------------------------------------------------------------- activity


def draw_activity(outcome: Outcome, file: Path) -> Path:
    """Draw every other shown digit with the activity of each unit: as maps of the digit, and as strips over time.

    Its arrays: `shown_pixels` (T, N), `shown_labels` and `shown_taken_for` (N,), `shown_active` (T, N, K).
    """
    from matplotlib.colors import ListedColormap

    pixels, active = (outcome.arrays[name].cpu().numpy() for name in ("shown_pixels", "shown_active"))
    active = active[..., :_MOST_UNITS]
    labels, taken_for = (outcome.arrays[name].tolist() for name in ("shown_labels", "shown_taken_for"))
    rows, units, shades = range(0, len(labels), 2)[:_MOST_ROWS], active.shape[2], ListedColormap(_SHADES)
    figure = new_figure(3.2 + 1.05 * units, 0.9 + 1.15 * len(rows))
    grid = figure.subplots(len(rows), units + 1, squeeze=False, width_ratios=[*[1] * units, 3.4])
    for place, digit in enumerate(rows):
        side = round(len(pixels) ** 0.5)
        shown = 2 * active[:, digit].astype(int) + pixels[:, digit, None]  # (T, K)
        for unit in range(units):
            image = shown[:, unit].reshape(side, side)
            grid[place, unit].imshow(image, cmap=shades, vmin=0, vmax=3, interpolation="nearest")
        grid[place, units].imshow(shown.T, cmap=shades, vmin=0, vmax=3, aspect="auto", interpolation="nearest")
        grid[place, 0].set_ylabel(f"a {labels[digit]}, taken\nfor a {taken_for[digit]}")
    _finish_activity(figure, grid, outcome)
    return save_figure(figure, file)


def _finish_activity(figure: Any, grid: NDArray[Any], outcome: Outcome) -> None:
    from matplotlib.patches import Patch

    units = grid.shape[1] - 1
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for unit in range(units):
        grid[0, unit].set_title(f"unit {unit + 1}", fontsize=10)
    grid[0, units].set_title("units over time", fontsize=10)
    grid[-1, units].set_xlabel("pixel, in the order of reading")
    for axes in grid[:, units]:
        axes.hlines(np.arange(1, units) - 0.5, *axes.get_xlim(), color="white", linewidth=1.5)
        axes.set_yticks(range(units), [str(unit + 1) for unit in range(units)], fontsize=8)
        axes.tick_params(length=0)
    figure.suptitle(f"Who is active at which pixel: {outcome.variant}, seed {outcome.seed}", x=0.01, ha="left")
    handles = [Patch(color=shade, label=meaning) for shade, meaning in zip(_SHADES, _MEANINGS, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
