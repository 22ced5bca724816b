"""Fixtures of the cores' tests."""

from __future__ import annotations

import os

import pytest

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported; whoever compiles does so in another process


@pytest.fixture
def chosen_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on the RIM's eager loop, or on the one that the parameter `loop` says (or the next one that serves)."""
    loop = request.getfixturevalue("loop") if "loop" in request.fixturenames else "eager"
    monkeypatch.setenv("RIMS_RL_LOOP", loop)
