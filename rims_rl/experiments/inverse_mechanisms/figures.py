"""Pictures of the inverse mechanisms: who wins what over training, accuracy over training, and what experts make.

Axes: K transformations, E experts, N images, V validations, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.figures import MOST_UNITS, by_variant, colours, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Floats = NDArray[np.floating[Any]]

_MATRICES = 5
_SAMPLES = 3
_GAP = 2  # white pixels between two pictures
# Ten colours that stay apart: Okabe and Ito's, and two more.
_LINES = ("#E69F00", "#56B4E9", "#009E73", "#F0C808", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F", "#000000", "#8C564B")


def draw_figures(outcomes: Sequence[Outcome], names: Sequence[str], folder: Path) -> list[Path]:
    """Draw accuracy for all trials, and assignment and pictures for the first trial of each model; return the files.

    Args:
        outcomes: trials; those that failed are left out.
        names: the transformations.
        folder: where the pictures go.

    Raises:
        ConfigError: when matplotlib is missing.
    """
    grouped = by_variant(outcomes)
    if not grouped:
        return []
    files = [draw_accuracy(outcomes, folder / "accuracy.png")]
    for variant, trials in grouped.items():
        mark = f"{variant}_seed{trials[0].seed}.png"
        files.append(draw_assignment(trials[0], names, folder / f"assignment_{mark}"))
        files.append(draw_pictures(trials[0], names, folder / f"pictures_{mark}"))
    return files


# ---------------------------------------------------------------------- accuracy


def draw_accuracy(outcomes: Sequence[Outcome], file: Path) -> Path:
    """Draw how well the classifier of clean digits names the winners' outputs on held-out digits, over training."""
    figure = new_figure()
    axes = figure.add_subplot()
    grouped = by_variant(outcomes)
    palette = colours(grouped)
    for variant, trials in grouped.items():
        curves = [np.array([[row["update"], row["accuracy_after"]] for row in trial.rows]).T for trial in trials]
        for updates, values in curves if len(curves) > 1 else []:
            axes.plot(updates, values, color=palette[variant], linewidth=1, alpha=0.3)
        shared = min(curve.shape[1] for curve in curves)
        mean = np.mean([curve[1, :shared] for curve in curves], axis=0)
        seeds = f"{len(trials)} seed{'s' if len(trials) > 1 else ''}"
        axes.plot(curves[0][0, :shared], mean, color=palette[variant], linewidth=2.2, label=f"{variant}, {seeds}")
    _draw_bounds(axes, grouped)
    axes.set_xlabel("updates")
    axes.set_ylabel("accuracy on held-out digits (%)")
    axes.set_title("A classifier that knows clean digits alone names what the experts made", loc="left")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 104)
    tidy(axes)
    axes.legend(frameon=False, loc="lower right")
    return save_figure(figure, file)


def _draw_bounds(axes: Axes, grouped: dict[str, list[Outcome]]) -> None:
    last = next(iter(grouped.values()))[0].rows[-1]
    for key, text in (("accuracy_clean", "clean digits"), ("accuracy_before", "transformed digits, nothing undone")):
        axes.axhline(last[key], color="#7F7F7F", linewidth=1, linestyle="--")
        axes.annotate(text, (0, last[key]), xytext=(6, 3 if key.endswith("clean") else -12), fontsize=9,
                      textcoords="offset points", color="#5F5F5F")  # fmt: skip


# ---------------------------------------------------------------------- assignment


def draw_assignment(outcome: Outcome, names: Sequence[str], file: Path) -> Path:
    """Draw the share of each transformation that its final winner has over training, and some assignment matrices."""
    updates = outcome.arrays["validated"].numpy()
    shares = outcome.arrays["assignments"].numpy()  # (V, K, E)
    figure = new_figure(9.0, 6.8)
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    _draw_shares(parts[0].add_subplot(), updates, shares, names)
    _draw_matrices(parts[1], updates, shares, names)
    figure.suptitle(f"Who wins what: {outcome.variant}, seed {outcome.seed}", x=0.01, ha="left")
    return save_figure(figure, file)


def _draw_shares(axes: Axes, updates: NDArray[Any], shares: Floats, names: Sequence[str]) -> None:
    final = shares[-1].argmax(axis=1)
    for number, name in enumerate(names):
        own = 100 * shares[:, number, final[number]]
        axes.plot(updates, own, color=_LINES[number % len(_LINES)], linewidth=1.8, label=f"{name}: {final[number] + 1}")
    axes.set_xlabel("updates")
    axes.set_ylabel("won by the expert that\nwins most at the end (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(-2, 103)
    tidy(axes)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, title="transformation: expert")


def _draw_matrices(figure: SubFigure, updates: NDArray[Any], shares: Floats, names: Sequence[str]) -> None:
    """Draw matrices with experts in the order of what they win at the end, so that specialists make a diagonal."""
    order = _diagonal_order(shares[-1])[:MOST_UNITS]
    chosen = np.unique(np.linspace(0, len(updates) - 1, _MATRICES).round().astype(int))
    grid: Any = figure.subplots(1, len(chosen), squeeze=False, sharey=True)
    for axes, at in zip(grid[0], chosen, strict=True):
        picture = axes.imshow(100 * shares[at][:, order], cmap="magma_r", vmin=0, vmax=100, aspect="auto")
        axes.set_title(f"after {updates[at]:,}", fontsize=10)
        axes.set_xticks(range(len(order)), [str(expert + 1) for expert in order], fontsize=7)
        axes.tick_params(length=0)
        axes.spines[:].set_color("#BBBBBB")
    grid[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    figure.supxlabel("expert", fontsize=10)
    figure.colorbar(picture, ax=list(grid[0]), label="images won (%)", fraction=0.03)


def _diagonal_order(shares: Floats) -> list[int]:
    """Return the experts, those first that win the first transformations (K, E)."""
    winners = list(dict.fromkeys(shares.argmax(axis=1).tolist()))
    return winners + [expert for expert in range(shares.shape[1]) if expert not in winners]


# ---------------------------------------------------------------------- pictures


def draw_pictures(outcome: Outcome, names: Sequence[str], file: Path) -> Path:
    """Draw what the experts were given and what the winner made of it, digits above and letters below."""
    figure = new_figure(1.6 + 0.78 * len(names), 2 * (0.75 + 1.32 * _SAMPLES))
    parts: Any = figure.subfigures(2, 1)
    titles = ("test digits", "letters, never seen in training")
    for part, kind, title in zip(parts, ("digit", "letter"), titles, strict=True):
        _draw_kind(part.add_subplot(), outcome, kind, names)
        part.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.suptitle(f"{outcome.variant}, seed {outcome.seed}: given, made, and by whom", x=0.01, ha="left")
    return save_figure(figure, file)


def _draw_kind(axes: Axes, outcome: Outcome, kind: str, names: Sequence[str]) -> None:
    clean, changed, undone, winners = (
        outcome.arrays[f"{kind}_{what}"].numpy()[..., :_SAMPLES, :, :] if what != "winners"
        else outcome.arrays[f"{kind}_{what}"].numpy()[: len(names), :_SAMPLES]
        for what in ("clean", "changed", "undone", "winners")
    )  # fmt: skip
    changed, undone = changed[: len(names)], undone[: len(names)]
    axes.imshow(mosaic(clean, changed, undone), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    step = clean.shape[-1] + _GAP
    axes.set_xticks(step * np.arange(len(names) + 1) + step / 2, ["clean", *names], fontsize=8)
    rows = [word for _ in range(len(clean)) for word in ("given", "made")]
    axes.set_yticks(step * np.arange(len(rows)) + step / 2, rows, fontsize=8)
    for (transformation, sample), winner in np.ndenumerate(winners):
        axes.text((transformation + 1) * step + 1.5, (2 * sample + 1) * step + 1.5, str(winner + 1), fontsize=6.5,
                  color="#FFB040", ha="left", va="top")  # fmt: skip
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def mosaic(clean: Floats, changed: Floats, undone: Floats) -> Floats:
    """Lay images out: for each sample a row of what was given and one of what was made, the clean image before them.

    Args:
        clean: (N, H, W).
        changed: (K, N, H, W).
        undone: (K, N, H, W).

    Returns:
        One picture with grey values in [0, 1], two rows per sample and K + 1 columns.
    """
    count, side = len(clean), clean.shape[-1]
    step = side + _GAP
    picture = np.ones((2 * count * step - _GAP, (len(changed) + 1) * step - _GAP))
    for sample in range(count):
        rows = [[clean[sample], *changed[:, sample]], [None, *undone[:, sample]]]
        for line, images in enumerate(rows):
            for column, image in enumerate(images):
                if image is not None:
                    top, left = (2 * sample + line) * step, column * step
                    picture[top : top + side, left : left + side] = image
    return picture
