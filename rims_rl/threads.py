"""How PyTorch's threads share the processor with other programs."""

from __future__ import annotations

import os

_SPINS = "1000"
"""What libgomp itself takes once it has more threads than the machine has processors; else it is 300,000."""


def let_threads_sleep() -> None:
    """Let PyTorch's threads sleep soon after they run out of work; call it before `torch` is imported.

    By default they go on spinning for milliseconds, in case there is more, and two trainings side by side spend most of
    their time waiting for each other: see "Several programs at once" in docs/results/performance.md. What the
    environment says already (GOMP_SPINCOUNT, OMP_WAIT_POLICY) stands. It concerns GCC's OpenMP, which PyTorch's builds
    for Linux bring along.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
