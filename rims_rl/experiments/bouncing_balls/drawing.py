"""Plots and films of bouncing balls: errors over a roll-out, truth and prediction side by side, the units' activity.

Axes: T time, B sequences, H rows, C columns.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.figures import by_variant, colours, draw_activity, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_log = logging.getLogger(__name__)
Picture = NDArray[np.uint8]

FPS = 10
_REFERENCES = {"roll_out_copy": ("last seen picture", "--"), "roll_out_mean": ("mean picture", ":")}
_STRIP_COLUMNS = 12
_TILE, _GAP, _HEAD = 256, 12, 36  # pixels of a film
_MOST_FRAMES = 6_000


def draw_balls(outcomes: Sequence[Outcome], titles: Mapping[str, str], context: int, folder: Path) -> list[Path]:
    """Draw everything into a folder and return the files.

    Args:
        outcomes: the trials; failed ones are left out, and of each model the first seed is filmed.
        titles: what to call each test set, by its name.
        context: how many true pictures were seen before a roll-out.
        folder: where the files go.
    """
    if not by_variant(outcomes):
        return []
    drawn = [draw_errors(outcomes, titles, folder / "roll_out.png")]
    for name in titles:
        drawn.append(draw_strip(outcomes, name, context, folder / f"pictures_{name}.png"))
        drawn += write_film(outcomes, name, context, folder / f"roll_out_{name}.mp4")
        marks = {0: "true pictures", context: "roll-out"}
        drawn += draw_activity(outcomes, f"{name}/active", folder / f"activity_{name}.png", marks)
    return drawn


# ---------------------------------------------------------------------- errors


def draw_errors(outcomes: Sequence[Outcome], titles: Mapping[str, str], file: Path) -> Path:
    """Draw the cross entropy of each step of the roll-outs, a panel per test set, bands from the least to the most."""
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)
    figure = new_figure(1.2 + 3.4 * columns, 0.6 + 3.4 * rows)
    grid: Any = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(titles) :]:
        axes.set_axis_off()
    for axes, (name, title) in zip(grid.flat, titles.items(), strict=False):
        _draw_panel(axes, outcomes, name)
        axes.set_title(f"test: {title}", loc="left", fontsize=11)
        axes.set_xlabel("step of the roll-out")
    for axes in grid[:, 0]:
        axes.set_ylabel("cross entropy, nats per picture")
    grid[0, 0].legend(frameon=False, fontsize=9)
    return save_figure(figure, file)


def _draw_panel(axes: Axes, outcomes: Sequence[Outcome], name: str) -> None:
    grouped = by_variant(outcomes)
    palette = colours(grouped)
    for model, trials in grouped.items():
        curves = np.stack([trial.arrays[f"{name}/roll_out/cross_entropy"].numpy() for trial in trials])
        steps = np.arange(1, curves.shape[1] + 1)
        title = f"{model} ({len(trials)} seed{'s' if len(trials) > 1 else ''})"
        axes.plot(steps, curves.mean(axis=0), color=palette[model], linewidth=2.2, label=title)
        if len(trials) > 1:
            axes.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=palette[model], alpha=0.2, lw=0)
    some = next(iter(grouped.values()))[0]
    for who, (title, style) in _REFERENCES.items():
        curve = some.arrays[f"{name}/{who}/cross_entropy"].numpy()
        axes.plot(np.arange(1, len(curve) + 1), curve, color="#555555", linestyle=style, linewidth=1.4, label=title)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=1)
    tidy(axes)


# ---------------------------------------------------------------------- pictures


def _rows(outcomes: Sequence[Outcome], name: str) -> dict[str, NDArray[np.uint8]]:
    """Return truth and each model's first seed's prediction of a test set, (T, B, H, C) by title.

    Raises:
        ValueError: for arrays that hold no pictures.
    """
    firsts = {model: trials[0] for model, trials in by_variant(outcomes).items()}
    truth = next(iter(firsts.values())).arrays[f"{name}/truth"].numpy()
    rows = {"truth": truth} | {model: trial.arrays[f"{name}/predicted"].numpy() for model, trial in firsts.items()}
    for title, pictures in rows.items():
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or not pictures.size or len(pictures) < len(truth):
            raise ValueError(f"{title} has no pictures of {name}, but {pictures.dtype} {pictures.shape}")
    return rows


def draw_strip(outcomes: Sequence[Outcome], name: str, context: int, file: Path) -> Path:
    """Draw one sequence of a test set, truth above predictions: the last pictures seen, then some of the roll-out."""
    rows = _rows(outcomes, name)
    length = len(rows["truth"])
    first = max(1, context - 2)
    times = sorted({*range(first, context), *np.linspace(context, length - 1, _STRIP_COLUMNS - 2).round().astype(int)})
    figure = new_figure(0.6 + 0.95 * len(times), 0.3 + 0.98 * len(rows))
    grid: Any = figure.subplots(len(rows), len(times), squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for line, (title, pictures) in zip(grid, rows.items(), strict=True):
        for axes, time in zip(line, times, strict=True):
            axes.imshow(pictures[time, 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("#D55E00" if time >= context and title != "truth" else "#BBBBBB")
        line[0].set_ylabel(title, fontsize=10)
    for axes, time in zip(grid[0], times, strict=True):
        axes.set_title(f"seen {time + 1}" if time < context else f"+{time - context + 1}", fontsize=9)
    return save_figure(figure, file)


# ---------------------------------------------------------------------- films


def write_film(outcomes: Sequence[Outcome], name: str, context: int, file: Path) -> list[Path]:
    """Write an mp4 of truth and predictions side by side; without imageio-ffmpeg say so and write none."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        _log.warning('no film %s: it needs imageio-ffmpeg, pip install "rims-rl[video]"', file.name)
        return []
    frames = islice(film_frames(_rows(outcomes, name), context), _MOST_FRAMES)
    first = next(frames)
    beside = file.with_name(f".{file.stem}.unfinished.mp4")
    writer = imageio_ffmpeg.write_frames(
        str(beside), first.shape[1::-1], fps=FPS, codec="libx264", quality=7, macro_block_size=4
    )
    writer.send(None)
    try:
        writer.send(np.ascontiguousarray(first))
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        os.replace(beside, file)
    finally:
        writer.close()
        beside.unlink(missing_ok=True)
    return [file]


def film_frames(rows: Mapping[str, NDArray[np.uint8]], context: int) -> Iterator[Picture]:
    """Yield the film's pictures (height, width, 3): one sequence after the other, a tile per row of `_rows`."""
    truth = rows["truth"]
    width = _GAP + len(rows) * (_TILE + _GAP)
    for sequence in range(truth.shape[1]):
        for time in range(len(truth)):
            canvas = np.full((_HEAD + _TILE + _GAP, width, 3), 24, np.uint8)
            alone = time >= context
            for place, (title, pictures) in zip(count(_GAP, _TILE + _GAP), rows.items(), strict=False):
                tile = cv2.resize(pictures[time, sequence], (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)
                canvas[_HEAD : _HEAD + _TILE, place : place + _TILE] = tile[..., None]
                _write(canvas, title, (place, 24), (255, 176, 64) if alone and title != "truth" else (225, 225, 225))
            said = f"alone, step {time - context + 1}" if alone else f"watching, picture {time + 1}"
            _write(canvas, said, (_GAP + 110, 24), (150, 150, 150))
            yield canvas


def _write(canvas: Picture, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
