"""Agents and commands on another device than the processor, without one: what was left behind would be an error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.on_a_pretended_device import CASES

TOOK_LONG = ("cores", "actions", "observations", "commands", "experiment")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case in TOOK_LONG else []) for case in CASES]
)
def test_does_what_it_does_on_the_processor(case: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.on_a_pretended_device", case], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"fine: {case}" in done.stdout


def test_mixing_devices_is_an_error_there() -> None:
    """Else the tests above would show nothing."""
    line = "import torch; from tests.pretended import pretended_device as p"
    mixing = f"{line}\nwith p() as device: torch.ones(3, device=device) + torch.ones(3)"
    done = subprocess.run([sys.executable, "-c", mixing], capture_output=True, text=True)
    assert "RuntimeError: aten.add.Tensor: tensors on the pretended device and, of shapes [(3,)]" in done.stderr
