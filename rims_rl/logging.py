"""What a run shows and keeps: a table on the console, a live progress bar, and `progress.csv`.

Table and bar print through one rich console, so a table appears above the bar and nothing is torn.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich import box, get_console
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.utils import safe_mean
from torch import Tensor

from rims_rl.errors import ConfigError, printable, said
from rims_rl.storage.plain_files import only_plain, write_text

_log = logging.getLogger(__name__)
_MOST_CSV_BYTES, _MOST_ROWS = 2**26, 10**6
NOT_A_LOG = (OSError, ValueError, csv.Error, MemoryError)
"""What reading a log raises where it is none, or larger than any."""
_MOST_DIGITS = 19  # of a step
Excluded = Mapping[str, tuple[str, ...] | None]


def loggable(key_values: Mapping[str, Any], key_excluded: Excluded, *formats: str) -> dict[str, float | int | str]:
    """Return the plain values that are not excluded from these formats; arrays, figures and videos are left out."""
    kept: dict[str, float | int | str] = {}
    for key, value in key_values.items():
        if set(key_excluded.get(key) or ()) & set(formats):
            continue
        if isinstance(value, np.generic | np.ndarray | Tensor) and np.prod(value.shape) == 1:
            value = value.item()
        if isinstance(value, bool | int | float | str):
            kept[key] = value
    return kept


class PacedLogger(Logger):
    """SB3's logger that shows what was recorded once every `interval` rollouts of the whole run, resumes included."""

    def __init__(self, folder: str, writers: list[KVWriter], steps_per_rollout: int, interval: int) -> None:
        super().__init__(folder, writers)
        self.steps_per_rollout, self.interval = steps_per_rollout, interval

    def dump(self, step: int = 0) -> None:
        """Show what was recorded when it is time; otherwise keep it."""
        if step // self.steps_per_rollout % self.interval == 0:
            self.dump_now(step)

    def dump_now(self, step: int = 0) -> None:
        """Show what was recorded."""
        super().dump(step)


# The table

_GROUPS = ("rollout", "eval", "time", "train", "rims")
# Short names, in the order in which they appear; other keys follow under their own names.
_NAMES = {
    "rollout/ep_rew_mean": "reward", "rollout/ep_len_mean": "length", "rollout/success_rate": "success",
    "eval/mean_reward": "reward", "eval/ep_length": "length", "eval/truncated": "truncated",
    "time/fps": "steps/s", "time/time_elapsed": "elapsed", "time/iterations": "rollouts",
    "train/n_updates": "updates", "train/learning_rate": "lr", "train/loss": "loss",
    "train/policy_gradient_loss": "policy loss", "train/value_loss": "value loss",
    "train/entropy_loss": "entropy loss", "train/explained_variance": "explained var",
    "train/approx_kl": "approx KL", "train/clip_fraction": "clip fraction", "train/clip_range": "clip range",
    "rims/use_entropy": "use entropy", "rims/use_evenness": "use evenness", "rims/null_attention": "null attention",
    "rims/null_active": "null, active", "rims/null_inactive": "null, inactive", "rims/comm_entropy": "comm entropy",
}  # fmt: skip
_IN_THE_TITLE = "time/total_timesteps"
_NARROWEST_COLUMN = 22
_MOST_COLUMNS = 3


class ConsoleWriter(KVWriter):
    """Prints each dump of SB3's logger as one table, its keys grouped by their prefix."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or get_console()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Print one table; `step` is its title."""
        values = loggable(key_values, key_excluded, "stdout", "log")
        if values:
            self.console.print(render_table(values, step, self.console.width))

    def close(self) -> None:
        """Do nothing: the console stays open."""


def render_table(values: Mapping[str, float | int | str], step: int, width: int) -> Table:
    """Lay the groups out in up to three columns of about equal height, as many as `width` characters hold."""
    blocks = [_block(group, entries) for group, entries in _grouped(values)]
    count = max(1, min(_MOST_COLUMNS, len(blocks), (width - 1) // (_NARROWEST_COLUMN + 3)))
    title = Text(f"step {step:,}", style="bold")
    table = Table(box=box.ROUNDED, show_header=False, border_style="dim", title=title, title_justify="left")
    columns = [[block for block, _ in column] for column in _balanced(blocks, count)]
    for _ in columns:
        table.add_column(vertical="top", min_width=min(_NARROWEST_COLUMN, max(1, width - 4)))
    table.add_row(*[_stacked(column) for column in columns])
    return table


def _grouped(values: Mapping[str, float | int | str]) -> Iterator[tuple[str, dict[str, float | int | str]]]:
    """Yield (group, its entries by short name), known groups first and in their order."""
    groups: dict[str, dict[str, float | int | str]] = {name: {} for name in _GROUPS}
    known = [key for key in _NAMES if key in values]
    for key in [*known, *(key for key in values if key not in _NAMES and key != _IN_THE_TITLE)]:
        group, _, name = key.rpartition("/")
        groups.setdefault(group or "other", {})[_NAMES.get(key, name.replace("_", " "))] = values[key]
    return ((group, entries) for group, entries in groups.items() if entries)


def _block(group: str, entries: Mapping[str, float | int | str]) -> tuple[Table, int]:
    """Return one group as a small table, and its height in lines."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    table.add_column(no_wrap=True, ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.add_row(Text(printable(group), style="bold cyan"), "")
    for name, value in entries.items():
        table.add_row(Text(printable(name)), Text(printable(readable(name, value))))
    return table, len(entries) + 1


def _balanced(blocks: list[tuple[Table, int]], count: int) -> list[list[tuple[Table, int]]]:
    """Cut the blocks, in their order, into `count` columns so that the tallest is as low as it can be."""
    if count == 1:
        return [blocks]
    options = ([blocks[:cut], *_balanced(blocks[cut:], count - 1)] for cut in range(1, len(blocks) - count + 2))
    return min(options, key=lambda columns: max(sum(height + 1 for _, height in column) for column in columns))


def _stacked(column: list[Table]) -> Table:
    """Return the blocks of one column below each other, a blank line between them."""
    grid = Table.grid(expand=True)
    for index, block in enumerate(column):
        if index:
            grid.add_row("")
        grid.add_row(block)
    return grid


def readable(name: str, value: float | int | str) -> str:
    """Return a value as one reads it: 12,345 for counts, three or four digits for measures, h:mm:ss for times."""
    if isinstance(value, str | bool):
        return str(value)
    if name == "elapsed":
        return clock(float(value))
    if isinstance(value, int):
        return f"{value:,}"
    return _readable_float(value)


def _readable_float(value: float) -> str:
    size = abs(value)
    if size == 0 or not math.isfinite(value):
        return f"{value:g}"
    if size < 1e-3 or size >= 1e7:
        return f"{value:.2e}"
    magnitude = math.floor(math.log10(size))
    return f"{value:,.{max(0, (3 if magnitude >= 0 else 2) - magnitude)}f}"


def clock(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


# progress.csv


class CsvWriter(KVWriter):
    """Keeps every dump as a row of a CSV file; new columns may appear at any time.

    The first column is `step`. A full disk is said and does not end the run; the rows follow when there is room.
    """

    def __init__(self, path: Path, resumed_at: int | None = None) -> None:
        """Begin a new file, or go on with the one that lies there where `resumed_at` is given.

        Args:
            path: the file.
            resumed_at: the step that the run goes on from; rows beyond it are dropped, the run makes them again.

        Raises:
            ConfigError: when the file can't be written.
        """
        self.path = path
        self._columns, self._rows = _read_rows(path, resumed_at) if resumed_at is not None else (["step"], [])
        self._is_behind = False
        try:
            self._rewrite()
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append one row; the file is rewritten, in one step, where a column is new."""
        row = {"step": str(step)} | {
            key: str(value) for key, value in loggable(key_values, key_excluded, "csv").items()
        }
        new = sorted(row.keys() - set(self._columns))
        self._columns += new
        self._rows.append(row)
        try:
            self._rewrite() if new or self._is_behind else self._append(row)
            self._is_behind = False
        except OSError as error:
            self._fall_behind(error)

    def close(self) -> None:
        """Do nothing: the file is closed after every row."""

    def catch_up(self) -> None:
        """Write the rows that are missing, if any; raises OSError when the disk still refuses."""
        if self._is_behind:
            self._rewrite()
            self._is_behind = False

    def _append(self, row: dict[str, str]) -> None:
        with open(self.path, "a", encoding="utf-8", newline="") as handle:
            csv.DictWriter(handle, self._columns, restval="", lineterminator="\n").writerow(row)

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.path, text.getvalue())

    def _fall_behind(self, error: OSError) -> None:
        """Say it once; the next row that can be written brings all that are missing."""
        if not self._is_behind:
            _log.warning("%s cannot be written (%s); the run goes on", self.path, error.strerror or error)
        self._is_behind = True


def _read_rows(path: Path, last_step: int) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the whole rows up to `last_step`; a row that a crash cut short is left out.

    Raises:
        ConfigError: when the file can't be read as CSV.
    """
    if not path.is_file():
        return ["step"], []
    try:
        lines = read_csv(path)
        columns = next(lines)
        rows = (dict(zip(columns, line, strict=True)) for line in lines if len(line) == len(columns))
        return columns, [row for row in rows if _step(row) <= last_step]
    except NOT_A_LOG as error:
        raise ConfigError(f"{path} cannot be read: {said(error)}; move it away to begin another") from None


def _step(row: Mapping[str, str]) -> float:
    text = row.get("step", "")
    return int(text) if text.isdecimal() and len(text) < _MOST_DIGITS else math.inf


def read_csv(path: Path) -> Iterator[list[str]]:
    """Yield the lines of a CSV file that are not empty as lists of texts, the headings first.

    Raises:
        OSError: when it can't be read.
        ValueError: when it is larger than any log; csv.Error: when it is no CSV.
    """
    with open(path, encoding="utf-8", errors="replace", newline="", opener=only_plain) as file:
        if os.fstat(file.fileno()).st_size > _MOST_CSV_BYTES:
            raise ValueError(f"it has more than {_MOST_CSV_BYTES:,} bytes")
        lines = (line for line in csv.reader(file) if line)
        yield next(lines, ["step"])
        yield from islice(lines, _MOST_ROWS)
        if next(lines, None):
            raise ValueError(f"it has more than {_MOST_ROWS:,} rows")


# The progress bar


class _StepsPerSecond(ProgressColumn):
    """Steps per second since the bar appeared."""

    def render(self, task: Task) -> Text:
        """Return the rate; blank before the first step."""
        rate = _rate(task)
        return Text(f"{rate:,.0f} steps/s" if rate else "", style="cyan")


class _TimeLeft(ProgressColumn):
    """Time that the rest of the run takes at the rate so far."""

    def render(self, task: Task) -> Text:
        """Return the time left as h:mm:ss; blank before the first step."""
        rate = _rate(task)
        return Text(f"{clock((task.remaining or 0) / rate)} left" if rate else "", style="green")


def _rate(task: Task) -> float:
    done = task.completed - task.fields["began_at"]
    return done / task.elapsed if task.elapsed else 0.0


class ProgressCallback(BaseCallback):
    """A live bar with steps, mean reward, steps per second and time left; silent where there is no terminal."""

    def __init__(self, total_timesteps: int, console: Console | None = None) -> None:
        """Make the bar; it appears when training starts.

        Args:
            total_timesteps: steps of the whole run, those before a resume among them.
            console: where it appears; the console that the tables use by default.
        """
        super().__init__()
        self.total_timesteps = total_timesteps
        self.console = console or get_console()
        self._progress: Progress | None = None
        self._seen = 0.0

    def _on_training_start(self) -> None:
        self.close()
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[steps]}"), TextColumn("{task.fields[reward]}", style="magenta"),
            _StepsPerSecond(), _TimeLeft(),
            console=self.console, expand=True, refresh_per_second=4, transient=True,
        )  # fmt: skip
        began_at = self.model.num_timesteps
        self._progress.add_task(
            "", total=self.total_timesteps, completed=began_at, began_at=began_at, steps=self._steps(), reward=""
        )
        self._progress.start()

    def _on_step(self) -> bool:
        now = time.monotonic()
        if self._progress is not None and now - self._seen > 0.1:
            self._seen = now
            self._show()
        return True

    def _on_training_end(self) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar off the screen; call it too when training ends by an exception."""
        if self._progress is not None:
            self._show()
            self._progress.stop()
            self._progress = None

    def _show(self) -> None:
        if self._progress is not None:
            task = self._progress.task_ids[0]
            done = self.model.num_timesteps
            self._progress.update(task, completed=done, steps=self._steps(), reward=self._reward())

    def _steps(self) -> str:
        return f"{short_count(self.model.num_timesteps)}/{short_count(self.total_timesteps)}"

    def _reward(self) -> str:
        episodes = self.model.ep_info_buffer
        return f"reward {safe_mean([episode['r'] for episode in episodes]):,.1f}" if episodes else ""


def short_count(number: int) -> str:
    """Return a count in at most five characters: 950, 12.5k, 10M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= 0.9995 * size:  # what rounds to 1000 of the smaller unit is 1 of this one
            return f"{number / size:.3g}{letter}"
    return str(number)
