"""What is seen of an experiment while it runs: a bar per trial on a terminal, a line per validation elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich import get_console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rims_rl.errors import printable
from rims_rl.experiments.loop import Row


class Display:
    """Shows how far each trial is and its newest validation."""

    def __init__(self, watched: str, updates: int) -> None:
        """Prepare a display.

        Args:
            watched: name of the figure that is shown beside the bar.
            updates: how many updates a trial has at most.
        """
        self.watched = watched
        self.updates = updates
        self._console = get_console()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[newest]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def hear(self, trial: str, update: int, row: Row) -> None:
        """Show that a trial has made an update, and its newest row of figures where there is one."""
        if trial not in self._tasks:
            self._tasks[trial] = self._progress.add_task(printable(trial, 60), total=self.updates, newest="")
        self._progress.update(self._tasks[trial], completed=update)
        if row:
            self._progress.update(self._tasks[trial], newest=f"{self.watched} {row[self.watched]:.4g}")
            self._progress.refresh()
        if row and not self._console.is_terminal:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "update")
            self.say(f"{trial}: {update}/{self.updates} updates, {figures}")

    def end(self, trial: str, how: str) -> None:
        """Show that a trial has ended, and how."""
        if trial in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial))
        self.say(f"{trial}: {how}")

    def say(self, line: str) -> None:
        """Print one line above the bars."""
        self._console.print(printable(line), highlight=False, soft_wrap=True, markup=False)
