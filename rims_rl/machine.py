"""The machine that a number was measured on."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from rims_rl.versions import versions


def processor_cores() -> int:
    """Return how many of the processor's cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return what tells this machine's numbers from another's."""
    found: dict[str, Any] = {
        "processor": processor_name(),
        "cores": processor_cores(),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def describe_machine() -> str:
    """Return the machine and the versions that matter most, as one line."""
    about, found = machine(), versions()
    parts = [
        about["processor"],
        f"{about['cores']} cores",
        f"torch threads: {about['torch_threads']}",
        about.get("gpu"),
    ]
    parts += [f"torch {found['torch']}", f"rims-rl {found['rims-rl']}", time.strftime("%Y-%m-%d")]
    return ", ".join(part for part in parts if part)


def processor_name() -> str:
    """Return the processor's name, as its maker or else its architecture has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
