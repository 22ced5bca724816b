"""What surrounds a result: the live line while it is measured, the tables, and the JSON file."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich import get_console
from rich.console import Console
from rich.live import Live
from rich.text import Text

from rims_rl.bench.config import BenchConfig
from rims_rl.bench.measure import Say
from rims_rl.bench.results import Result
from rims_rl.bench.tables import WIDTH, tables
from rims_rl.machine import describe_machine, machine
from rims_rl.runs import command_line
from rims_rl.storage.plain_files import write_json
from rims_rl.versions import versions


@contextmanager
def progress() -> Iterator[Say]:
    """Show what is being measured in one live line, which is drawn when it changes alone: no thread runs beside."""
    console, began = get_console(), time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def say(what: str) -> None:
            if console.is_terminal:
                line = Text(
                    f"{time.monotonic() - began:4.0f} s  {what}", style="dim", no_wrap=True, overflow="ellipsis"
                )
                live.update(line, refresh=True)

        yield say


def print_report(result: Result) -> None:
    """Print the tables, their notes and the machine; files get as many columns as the tables need."""
    console = get_console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for shown in [*tables(result), f"[dim]{describe_machine()}[/dim]"]:
        console.print(shown, highlight=False)


def write_report(path: Path, config: BenchConfig, result: Result) -> None:
    """Write the result with what it depends on.

    Raises:
        ConfigError: when the file can't be written.
    """
    settings = {name: _plain(value) for name, value in asdict(config).items() if name != "json"}
    about = {
        "command": shlex.join(command_line()), "date": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": machine(),
        "versions": versions(), "settings": settings,
    }  # fmt: skip
    write_json(path, {**about, **asdict(result)})


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
