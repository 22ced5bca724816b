"""Where a training run's time goes: a stopwatch that is always in exactly one phase.

The backward pass walks through heads, core and encoder in one call; gradients that arrive at the core's outputs and at
the encoder's features tell where one ends and the next begins.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, cuda

PHASES = ("environment", "inference", "encoder", "core", "heads and loss", "optimizer", "callbacks", "rest")
"""What `RIMPPO` tells apart: stepping the environments and choosing actions while it collects, then, while it learns,
the forward and backward passes of each part and the optimizer's step; callbacks at any time; and everything else."""


class Stopwatch:
    """Seconds by phase; they add up to the time since `start`. It costs nothing until it is started."""

    def __init__(self) -> None:
        self.enabled = False
        """Whether time is being taken."""
        self.seconds: dict[str, float] = defaultdict(float)
        """Seconds by phase, without those of phases inside it."""
        self._phase, self._since = "rest", 0.0

    def start(self) -> None:
        """Begin at zero, in the phase `rest`."""
        self.seconds.clear()
        self.enabled, self._phase, self._since = True, "rest", self._now()

    def stop(self) -> dict[str, float]:
        """End, and return the seconds by phase."""
        if self.enabled:
            self.switch(self._phase)
        self.enabled = False
        return dict(self.seconds)

    def switch(self, phase: str) -> None:
        """Enter a phase: what has passed since the last change belongs to the one before."""
        now = self._now()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Be in a phase inside this context, and in the one before after it."""
        if not self.enabled:
            yield
            return
        before = self._phase
        self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def enter_in_backward(self, tensor: Tensor, phase: str) -> None:
        """Enter a phase in the backward pass as soon as the tensor's gradient is there."""
        if self.enabled and tensor.requires_grad:
            tensor.register_hook(self._entering(phase))  # type: ignore[no-untyped-call]

    def _entering(self, phase: str) -> Callable[[Tensor], None]:
        def hook(_: Tensor) -> None:
            self.switch(phase)

        return hook

    @staticmethod
    def _now() -> float:
        """Return the time in seconds, after all that a GPU was asked to do is done."""
        if cuda.is_initialized():  # type: ignore[no-untyped-call]
            cuda.synchronize()
        return time.perf_counter()
