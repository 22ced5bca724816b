"""What is seen of an experiment while it runs."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from rims_rl.experiments import display
from rims_rl.experiments.display import Display


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    text = StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    monkeypatch.setattr(display, "get_console", lambda: console)
    with Display("error", 50) as seen:
        seen.hear("rim seed 0", 1, {})
        seen.hear("rim seed 0", 7, {"update": 7, "loss": 0.25, "error": 1.5})
        seen.end("rim seed 0", "stopped")
        seen.end("lstm seed 0", "failed: no memory")
    return text.getvalue()


def test_a_file_gets_a_line_per_validation_and_per_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False).splitlines() == [
        "rim seed 0: 7/50 updates, loss 0.25, error 1.5",
        "rim seed 0: stopped",
        "lstm seed 0: failed: no memory",
    ]


def test_a_terminal_gets_a_bar_with_the_watched_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, terminal=True)
    assert "7/50" in text
    assert "error 1.5" in text
    assert "rim seed 0: stopped" in text
    assert "loss" not in text
