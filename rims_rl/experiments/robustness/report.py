"""What comes out of a robustness report: tables on the terminal and as Markdown, JSON, W&B, the plots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from rich import box, get_console
from rich.console import Console
from rich.table import Table

from rims_rl.errors import printable, said
from rims_rl.experiments.figures import NO_PLOTS
from rims_rl.experiments.robustness.conditions import CLEAN, Condition
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.findings import Findings, Number, read_findings
from rims_rl.experiments.robustness.folder import RobustnessFolder
from rims_rl.experiments.robustness.grid import RANDOM_GAMES, Grid
from rims_rl.experiments.robustness.plots import draw_all
from rims_rl.experiments.robustness.results import as_json
from rims_rl.experiments.robustness.statistics import DRAWS, FEW, SURE, Estimate
from rims_rl.experiments.robustness.tracking import track_report
from rims_rl.machine import describe_machine
from rims_rl.output import say
from rims_rl.storage.plain_files import write_text

_FILE_WIDTH = 200
_FAMILY_TITLES = {
    "train": "distractors, train split", "held-out": "distractors, held-out split", "variant": "variants",
    "task": "changed tasks",
}  # fmt: skip


class Sheet(NamedTuple):
    """A table of texts."""

    title: str
    """What it shows."""
    headings: list[str]
    """Its columns."""
    rows: list[list[str]]
    """Its cells."""


def write_report(config: RobustnessConfig, folder: RobustnessFolder, grid: Grid, about: dict[str, Any]) -> None:
    """Write JSON, Markdown and plots of all that is measured, print the tables, and log to W&B where that is wanted."""
    findings = read_findings(grid)
    if not findings.scores:
        return
    sheets, notes = list(all_sheets(findings)), all_notes(config, findings)
    write_text(folder.results, json.dumps(as_json(config, findings, about), indent=1, allow_nan=False) + "\n")
    write_text(folder.table, markdown(sheets, notes, about))
    print_sheets(sheets, notes)
    try:
        plots = draw_all(findings, folder.plots)
    except NO_PLOTS as error:
        plots = []
        say(f"no plots: {said(error)}")
    track_report(config, folder, sheets, plots)


# ---------------------------------------------------------------------- tables


def all_sheets(findings: Findings) -> Iterator[Sheet]:
    """Yield the tables: the summary, the comparison of cores, every condition, and the memories at the onset."""
    yield summary(findings)
    if len(findings.labels) > 1:
        yield comparison(findings)
    for world in findings.worlds:
        yield conditions_table(findings, world)
    if findings.mechanism:
        yield mechanism_table(findings)


def summary(findings: Findings) -> Sheet:
    """Return one row per world and core, and one over all worlds where there are several."""
    headings = ["agent", "world", "seeds", "random", "clean", "human-normalised"]
    headings += [f"{what}, {_FAMILY_TITLES[family]}" for family in findings.families for what in ("score", "retained")]
    worlds: list[str | None] = [*findings.worlds, *([None] if len(findings.worlds) > 1 else [])]
    rows = [_summary_row(findings, label, world) for world in worlds for label in findings.labels]
    return Sheet("What is left of the score", headings, [row for row in rows if row])


def _summary_row(findings: Findings, label: str, world: str | None) -> list[str]:
    if not findings.group(label, world):
        return []
    random = None if world is None else findings.random_mean(world)
    row = [label, world or "all", str(findings.seeds(label, world)), "" if random is None else f"{random:,.2f}"]
    row += [_score(findings, label, [CLEAN], world), _share(findings, findings.human, label, [CLEAN], world)]
    for conditions in map(findings.of_family, findings.families):
        row += [_score(findings, label, conditions, world),
                _share(findings, findings.retained, label, conditions, world)]  # fmt: skip
    return row


def _score(findings: Findings, label: str, conditions: list[Condition], world: str | None) -> str:
    """Return the mean score over the runs; nothing over all worlds: raw scores of different games have no mean."""
    if world is None:
        return ""
    counts = findings.behind(findings.mean, label, conditions, world)
    return _number(findings.over_runs(findings.mean, label, conditions, world)) + _behind(*counts)


def _share(findings: Findings, number: Number, label: str, conditions: list[Condition], world: str | None) -> str:
    """Return a percentage over the runs, and how many runs are behind it where some have none."""
    found = findings.over_runs(number, label, conditions, world)
    return "" if found is None else _percent(found) + _behind(*findings.behind(number, label, conditions, world))


def _behind(have: int, seeds: int) -> str:
    return f" ({have} of {seeds})" if 0 < have < seeds else ""


def comparison(findings: Findings) -> Sheet:
    """Return one row per pair of cores and family of conditions: the difference of what they retain, run by run."""
    rows = []
    for first, second in combinations(findings.labels, 2):
        for family in findings.families:
            conditions = findings.of_family(family)
            pairs = findings.compared(findings.retained, first, second, conditions)
            if pairs is not None:
                possible = findings.partners(first, second, conditions)
                number = f"{pairs.number} of {possible}" if pairs.number < possible else str(pairs.number)
                rows.append([f"{first} - {second}", _FAMILY_TITLES[family], number,
                             _percent(pairs.difference), f"{pairs.better:.0%}"])  # fmt: skip
    headings = ["agents", "conditions", "pairs", "difference of what is retained", "first is better in"]
    return Sheet("Compared run by run (same world, same seed)", headings, rows)


def conditions_table(findings: Findings, world: str) -> Sheet:
    """Return one row per condition of a world, per core and split the mean score and what is retained."""
    labels = [label for label in findings.labels if findings.group(label, world)]
    there = [condition for subject, condition in findings.scores if subject.world == world]
    rows: dict[str, dict[str, Condition]] = {}
    for condition in dict.fromkeys(there):
        rows.setdefault(condition.name, {})[condition.split or ""] = condition
    splits = list(dict.fromkeys(split for row in rows.values() for split in row if split)) or [""]
    headings = ["condition"] + [f"{label}{f', {split}' if split else ''}" for label in labels for split in splits]
    cells = [
        [name] + [_cell(findings, label, world, row.get(split) or row.get("")) for label in labels for split in splits]
        for name, row in rows.items()
    ]
    return Sheet(f"{world}: mean score, and what is retained", headings, cells)


def _cell(findings: Findings, label: str, world: str, condition: Condition | None) -> str:
    if condition is None:
        return ""
    group = findings.group(label, world)
    scores = [score for one in group if (score := findings.mean(one, condition)) is not None]
    left = [part for one in group if (part := findings.retained(one, condition)) is not None]
    counted = f", {len(left)} of {len(group)}" if len(left) < len(group) else ""
    share = f" ({np.mean(left):.0%}{counted})" if left and not condition.is_clean else ""
    return f"{np.mean(scores):,.2f}{share}" if scores else ""


_MECHANISM = {
    "divergence": ("policy's change (KL, nats)", "{:.3f}"), "same_action": ("same likeliest action", "{:.0%}"),
    "state_change": ("memory's change", "{:.2f}"), "untouched": ("units untouched", "{:.0%}"),
    "attention_lift": ("attention on the changed places", "{:.2f} x"),
}  # fmt: skip


def mechanism_table(findings: Findings) -> Sheet:
    """Return one row per core and condition: means over the window after the onset."""
    keys = [key for key in _MECHANISM if any(key in found for found in findings.mechanism.values())]
    rows = []
    for condition in dict.fromkeys(condition for _, condition in findings.mechanism):
        for label in findings.labels:
            found = [result for (one, there), result in findings.mechanism.items()
                     if there == condition and one.label == label]  # fmt: skip
            if found:
                rows.append([f"{condition.name}, {condition.split}", label, *(_after(found, key) for key in keys)])
    headings = ["condition", "agent", *(_MECHANISM[key][0] for key in keys)]
    return Sheet("When the distractor appears in mid-game: mean over the steps that follow", headings, rows)


def _after(found: list[dict[str, Any]], key: str) -> str:
    values = [value for result in found for value in after_onset(result, key)]
    return _MECHANISM[key][1].format(np.mean(values)) if values else ""


def after_onset(result: dict[str, Any], key: str) -> list[float]:
    """Return a figure of `watch_onset` from the onset on, where it is known."""
    pairs = zip(result["steps"], result.get(key, []), strict=False)
    return [value for step, value in pairs if step >= 0 and value is not None]


def _number(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{found.value:,.2f}" + ("" if found.low is None else f" [{found.low:,.2f}, {found.high:,.2f}]")


def _percent(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{found.value:.0%}" + ("" if found.low is None else f" [{found.low:.0%}, {found.high:.0%}]")


# ---------------------------------------------------------------------- what a reader must know


def all_notes(config: RobustnessConfig, findings: Findings) -> list[str]:
    """Return what a reader must know to trust the tables."""
    actions = "likeliest" if config.deterministic else "sampled"
    notes = [
        f"{config.episodes} games per agent and condition, seed {config.seed}, {actions} actions. Retained: (score - "
        f"random) / (clean - random); random play: {max(config.episodes, RANDOM_GAMES)} games by the same rules, and "
        "games of its own where the dynamics are others. Over runs: interquartile mean [95 % stratified bootstrap "
        f"interval, {DRAWS:,} draws].",
    ]
    fewest = _fewest(findings)
    if fewest < FEW:
        notes.append(f"Only {fewest} seed{'s' * (fewest != 1)} per agent and world behind some figures, fewer than "
                     f"{FEW}: differences between agents may be chance, and intervals, where there are any, are too "
                     "narrow.")  # fmt: skip
    if len(findings.worlds) > 1 and not _is_whole(findings):
        notes.append("Over all worlds a cell is empty where some agent has no number in one of the worlds: means over "
                     "different worlds cannot be compared.")  # fmt: skip
    weak = [one.path.name for one in findings.subjects if findings.is_weak(one)]
    if weak:
        notes.append(f"Not clearly better than random play in the clean world (by {SURE:g} standard errors or less, or "
                     f"known from one game), so nothing can be retained: {', '.join(weak)}.")  # fmt: skip
    if findings.missing:
        notes.append(f"Unfinished: {findings.missing} cells have no result, and means are over those that have one.")
    return [*notes, describe_machine()]


def _fewest(findings: Findings) -> int:
    """Return how many seeds an agent has in a world, or behind a retained figure there, where they are fewest."""
    families = [findings.of_family(family) for family in findings.families]
    pairs = [(label, world) for label in findings.labels for world in findings.worlds]
    counts = [findings.seeds(label, world) for label, world in pairs]
    counts += [findings.behind(findings.retained, label, family, world)[0]
               for label, world in pairs for family in families]  # fmt: skip
    return min(count for count in counts if count)


def _is_whole(findings: Findings) -> bool:
    """Return whether the rows over all worlds have all numbers that some agent has in some world."""
    numbers = [(findings.human, [CLEAN])]
    numbers += [(findings.retained, findings.of_family(family)) for family in findings.families]
    return all(
        findings.is_whole(number, conditions)
        for number, conditions in numbers
        if any(findings.by_run(number, label, conditions) for label in findings.labels)
    )


def markdown(sheets: list[Sheet], notes: list[str], about: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    parts = ["# Robustness\n"]
    for sheet in sheets:
        lines = [sheet.headings, ["---", *["---:"] * (len(sheet.headings) - 1)], *sheet.rows]
        parts.append(f"## {sheet.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join([*parts, *(f"{note}\n" for note in notes), f"`{about['command']}`\n"])


def print_sheets(sheets: list[Sheet], notes: list[str]) -> None:
    """Print the tables and the notes."""
    console = get_console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    for sheet in sheets:
        table = Table(title=printable(sheet.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, heading in enumerate(sheet.headings):
            table.add_column(printable(heading), justify="left" if number == 0 else "right", overflow="fold")
        for row in sheet.rows:
            table.add_row(*map(printable, row))
        console.print(table, highlight=False, markup=False)
    for note in notes:
        console.print(printable(note), style="dim", highlight=False, markup=False)
