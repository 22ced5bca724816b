"""PyTorch's threads do not keep other programs from the processor, and what the environment says of them stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from unittest.mock import patch

import pytest

from rims_rl.threads import let_threads_sleep

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spins(*command: str, **given: str) -> str:
    """Return what GCC's OpenMP says its threads' spins are, in a process that runs a command."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment = {**kept, "OMP_DISPLAY_ENV": "verbose", **given}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    found = re.search(r"GOMP_SPINCOUNT = '(.+)'", done.stderr)
    return found[1] if found else "unknown"


@pytest.fixture(scope="module")
def usual() -> str:
    """What they are when a program imports PyTorch and does nothing about it."""
    found = spins("-c", "import torch")
    if found == "unknown":
        pytest.skip("this PyTorch does not run on GCC's OpenMP")
    return found


def test_the_commands_threads_sleep_soon(usual: str):
    assert int(spins("-m", "rims_rl", "cores")) < int(usual)


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("name", NAMES)
def test_what_the_environment_says_stands(name: str):
    given = {"GOMP_SPINCOUNT": "777", "OMP_WAIT_POLICY": "active"}[name]
    assert spins("-m", "rims_rl", "cores", **{name: given}) == spins("-c", "import torch", **{name: given})


def test_the_benchmark_takes_pytorch_as_it_comes():
    from rims_rl.cli import main

    with patch.dict(os.environ):
        for name in NAMES:
            os.environ.pop(name, None)
        assert main(["bench", "core", "--repeats", "-1"]) == 2
        assert "GOMP_SPINCOUNT" not in os.environ
        let_threads_sleep()
        assert "GOMP_SPINCOUNT" in os.environ
