"""What `--profile` prints: where a run's time went."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from rims_rl.agents.profile import PHASES


def profile_table(seconds: Mapping[str, float], steps: int) -> Table:
    """Return a table of the phases that took time.

    Args:
        seconds: seconds by phase, as `Stopwatch.stop` returns them.
        steps: environment steps that were taken meanwhile.
    """
    total = sum(seconds.values())
    rate = f"{steps / total:,.0f} steps/s" if total else ""
    table = Table(title=f"where the time went: {steps:,} steps, {rate}", box=box.ROUNDED, title_justify="left")
    table.add_column("phase")
    for heading in ("seconds", "share", "ms per 1,000 steps"):
        table.add_column(heading, justify="right")
    for phase in PHASES:
        if seconds.get(phase):
            table.add_row(phase, *_numbers(seconds[phase], total, steps))
    table.add_section()
    table.add_row("all", *_numbers(total, total, steps), style="bold")
    return table


def _numbers(seconds: float, total: float, steps: int) -> tuple[str, str, str]:
    return f"{seconds:,.1f}", f"{seconds / (total or 1.0):.0%}", f"{seconds * 1e6 / max(1, steps):,.0f}"
