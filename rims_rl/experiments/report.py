"""What comes out of an experiment: the table on the terminal and as Markdown, the JSON file, the plots."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import get_console
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rims_rl.errors import printable, said
from rims_rl.experiments.experiment import Column, Experiment, Outcome
from rims_rl.experiments.figures import NO_PLOTS, by_variant, draw_curves
from rims_rl.experiments.folder import ExperimentFolder, plain_settings, read_about
from rims_rl.output import say
from rims_rl.storage.plain_files import write_text

_FILE_WIDTH = 200


def cells(experiment: Experiment[Any], outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Return the table's headings and its rows, one per model, and one for each thing that needs no model."""
    columns = list(experiment.columns)
    names = list(dict.fromkeys(outcome.variant for outcome in outcomes))
    with_paper = [column for column in columns if any(name in column.paper for name in names)]
    headings = ["model", "parameters", "seeds"]
    for column in columns:
        headings += [column.title, "paper"] if column in with_paper else [column.title]
    good = [outcome for outcome in outcomes if not outcome.failed]
    references = experiment.references(good).items() if good else []
    rows = [_row(name, columns, with_paper, outcomes) for name in names]
    return headings, rows + [_reference(name, figures, columns, with_paper) for name, figures in references]


def _row(name: str, columns: list[Column], with_paper: list[Column], outcomes: Sequence[Outcome]) -> list[str]:
    trials = [outcome for outcome in outcomes if outcome.variant == name]
    good = [trial for trial in trials if not trial.failed]
    failed = len(trials) - len(good)
    row = [name, f"{good[0].parameters:,}" if good else "", f"{len(good)}" + (f" ({failed} failed)" if failed else "")]
    for column in columns:
        row.append(mean_and_spread([trial.figures[column.key] for trial in good if column.key in trial.figures],
                                   column.places))  # fmt: skip
        if column in with_paper:
            row.append(column.paper.get(name, ""))
    return row


def _reference(name: str, figures: dict[str, float], columns: list[Column], with_paper: list[Column]) -> list[str]:
    row = [name, "", ""]
    for column in columns:
        row.append(mean_and_spread([figures[column.key]] if column.key in figures else [], column.places))
        if column in with_paper:
            row.append("")
    return row


def mean_and_spread(values: Sequence[float], places: int) -> str:
    """Return the mean, and with several values their sample standard deviation, as text."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):,.{places}f}"
    if len(values) == 1 or not all(math.isfinite(value) for value in values):
        return mean
    return f"{mean} ± {statistics.stdev(values):,.{places}f}"


def print_table(experiment: Experiment[Any], outcomes: Sequence[Outcome]) -> None:
    """Print the table, what it shows, and the machine."""
    console = get_console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    headings, rows = cells(experiment, outcomes)
    spread = " (mean ± sd over seeds)" if len({outcome.seed for outcome in outcomes}) > 1 else ""
    table = Table(title=f"{experiment.name}{spread}", title_justify="left", caption_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right", style="dim" if heading == "paper" else "")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(table, highlight=False)
    for line in [experiment.caption, *_mishaps(outcomes), *_machines(outcomes)]:
        console.print(printable(line), style="dim", highlight=False, markup=False)


def _mishaps(outcomes: Sequence[Outcome]) -> list[str]:
    """Say which trials failed, diverged or left updates out, and what was tested of those that diverged."""
    lines = []
    for outcome in outcomes:
        if outcome.failed or outcome.diverged:
            tested = f"; tested are its best weights, of update {outcome.best_update:,}" if outcome.diverged else ""
            lines.append(f"{outcome.variant} seed {outcome.seed} {outcome.ended}{tested}")
        if outcome.skipped:
            lines.append(
                f"{outcome.variant} seed {outcome.seed}: {outcome.skipped} updates were not finite and left out"
            )
    return lines


def _machines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return where and with what the results were measured, each once."""
    return list(dict.fromkeys(outcome.measured_on for outcome in outcomes if not outcome.failed))


def write_results(experiment: Experiment[Any], folder: ExperimentFolder, outcomes: Sequence[Outcome]) -> None:
    """Write results.json and table.md."""
    about = _about(folder)
    found = {
        "experiment": experiment.name, **about, "settings": plain_settings(experiment.config),
        "caption": experiment.caption,
        "columns": [asdict(column) for column in experiment.columns],
        "trials": [{**asdict(outcome), "arrays": None} for outcome in outcomes],
    }  # fmt: skip
    for trial in found["trials"]:
        del trial["arrays"]
    write_text(folder.results, json.dumps(found, indent=1) + "\n")
    write_text(folder.table, _markdown(experiment, outcomes, about.get("command", "")))


def _about(folder: ExperimentFolder) -> dict[str, Any]:
    about = read_about(folder)
    return {name: about[name] for name in ("command", "started") if name in about}


def _markdown(experiment: Experiment[Any], outcomes: Sequence[Outcome], command: str) -> str:
    headings, rows = cells(experiment, outcomes)
    lines = [" | ".join(headings), " | ".join(["---", *["---:"] * (len(headings) - 1)])]
    lines += [" | ".join(row) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    several = len({outcome.seed for outcome in outcomes}) > 1
    spread = " Mean ± standard deviation over seeds." if several else ""
    notes = "".join(f"{line}\n" for line in _mishaps(outcomes))
    return (
        f"# {experiment.name}\n\n{table}\n\n{experiment.caption}{spread}\n{notes}\n"
        f"`{command}`\n\n{_times(outcomes)}\n\n" + "".join(f"{line}\n" for line in _machines(outcomes))
    )


def _times(outcomes: Sequence[Outcome]) -> str:
    """Say how long trials took, in minutes or seconds."""
    times = [outcome.seconds for outcome in outcomes if not outcome.failed]
    if not times:
        return "No trial has a result."
    size, unit = (60, "minutes") if max(times) >= 600 else (1, "seconds")
    least, most = f"{min(times) / size:.0f}", f"{max(times) / size:.0f}"
    return f"A trial took {most if least == most else f'{least} to {most}'} {unit}."


def draw_all(experiment: Experiment[Any], folder: ExperimentFolder, outcomes: Sequence[Outcome]) -> None:
    """Draw learning curves and the task's own plots; where that can't be done, say so and go on."""
    watched = experiment.trial_class.watched
    try:
        draw_curves(outcomes, watched, f"validation: {watched.replace('_', ' ')}", folder.plots / "learning.png")
        experiment.draw(by_variant_flat(outcomes), folder.plots)
    except NO_PLOTS as error:
        say(f"no plots: {said(error)}")


def by_variant_flat(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes with a result, grouped by model."""
    return [outcome for trials in by_variant(outcomes).values() for outcome in trials]
