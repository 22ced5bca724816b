"""The account of a soak: how often each fault was injected and survived, and what was lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.table import Table


class Ledger:
    """Counts, and everything that was lost."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self.lost: list[str] = []
        """One line for each thing that went wrong for good."""
        self.finished = 0
        """Runs that came to their end."""
        self.equal = 0
        """Those that equal the run without faults, of those that should."""
        self.comparable = 0
        """Runs that should equal the run without faults."""

    @property
    def faults(self) -> int:
        """How many faults were injected."""
        return self.injected.total()

    @property
    def is_clean(self) -> bool:
        """Whether faults were injected, runs came to their end, and nothing was lost."""
        return bool(self.faults and self.finished) and not self.lost and self.injected == self.survived

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        faults = {name: {"injected": count, "survived": self.survived[name]} for name, count in self.injected.items()}
        return {
            "faults": faults, "injected": self.faults, "survived": self.survived.total(), "lost": self.lost,
            "runs_finished": self.finished, "runs_comparable": self.comparable, "runs_equal": self.equal,
        }  # fmt: skip

    def table(self) -> Table:
        """Return the counts as a table."""
        table = Table(box=box.ROUNDED, border_style="dim", show_footer=True)
        table.add_column("fault", "all")
        table.add_column("injected", str(self.faults), justify="right")
        table.add_column("survived", str(self.survived.total()), justify="right")
        for name in sorted(self.injected):
            table.add_row(name, str(self.injected[name]), str(self.survived[name]))
        return table

    def lines(self) -> list[str]:
        """Return what came of it, line by line."""
        found = [f"{self.finished} runs came to their end with every step accounted for"] if not self.lost else []
        found.append(f"{self.equal} of {self.comparable} equal the run without faults, bit for bit")
        return found + [f"lost: {line}" for line in self.lost] + ([] if self.lost else ["nothing lost"])
