"""What one turn of a memory does: forward and backward over a sequence, or forward alone.

Inputs are random and need no gradient; what is summed and differentiated are all outputs. A memory with resets starts
every sequence anew at steps of its own, about one in forty.
Axes: T time, B batch, N slots, I input size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rims_rl.bench.measure import Work
from rims_rl.cores import RIM, RecurrentCore, make_core
from rims_rl.cores.loops import starting_at
from rims_rl.cores.reference import reference_rim

INPUT_SIZE, WIDTH = 512, 510
RESET_PERIOD, RESET_SHIFT = 41, 17
Kind = Literal["LSTM", "GRU"]
Loop = Literal["fastest", "unrolled", "eager", "reference"]


@dataclass(frozen=True)
class Shape:
    """How much one turn does."""

    steps: int
    """T."""
    batch: int
    """B."""
    gradient: bool = True
    """Forward and backward, or forward alone without a graph."""
    slots: int | None = None
    """N, or None for vectors."""
    resets: bool = False
    """Whether episodes start within the sequences."""

    def inputs(self, device: str) -> Tensor:
        """Return random inputs (T, B, I) or (T, B, N, I)."""
        middle = () if self.slots is None else (self.slots,)
        return torch.randn(self.steps, self.batch, *middle, INPUT_SIZE, device=device)

    def starts(self, device: str) -> Tensor | None:
        """Return where episodes start, (T, B), or None: in every sequence at steps of its own, never at the first."""
        if not self.resets:
            return None
        step, sequence = torch.arange(self.steps).unsqueeze(1), torch.arange(self.batch)
        return ((step + RESET_SHIFT * (sequence + 1)) % RESET_PERIOD == 0).to(device)


@dataclass(frozen=True)
class CoreTurn:
    """A registered core."""

    core: str
    """Its name."""
    shape: Shape
    """What it reads."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Its settings."""
    loop: Loop = "fastest"
    """Which code runs a RIM: what it chooses itself, one of `cores.loops`, or the one written like the paper."""
    device: str = "cpu"
    """Where it runs."""

    def build(self) -> RecurrentCore:
        """Return the core."""
        return make_core(self.core, INPUT_SIZE, **dict(self.settings)).to(self.device)

    def __call__(self) -> Work:
        """Build the core and its inputs, and return one turn."""
        return core_work(self.build(), self.shape, self.loop, self.device)


@dataclass(frozen=True)
class TorchTurn:
    """Torch's own LSTM or GRU."""

    kind: Kind
    """Which."""
    shape: Shape
    """What it reads."""
    width: int = WIDTH
    """Size of its state."""
    device: str = "cpu"
    """Where it runs."""

    def __call__(self) -> Work:
        """Build the network and its inputs, and return one turn."""
        network: nn.Module = getattr(nn, self.kind)(INPUT_SIZE, self.width, device=self.device)
        inputs = self.shape.inputs(self.device)
        return _turn(lambda: network(inputs)[0], self.shape.gradient, self.device)


def core_work(core: RecurrentCore, shape: Shape, loop: Loop = "fastest", device: str = "cpu") -> Work:
    """Return one turn of a core that is built."""
    inputs, starts = shape.inputs(device), shape.starts(device)
    state = core.initial_state(shape.batch).detach()
    if loop == "reference":
        assert isinstance(core, RIM)
        return _turn(lambda: reference_rim(core, inputs, state, starts)[0], shape.gradient, device)
    turn = _turn(lambda: core(inputs, state, starts)[0], shape.gradient, device)
    return turn if loop == "fastest" else _starting_at(loop, turn)


def _turn(forward: Callable[[], Tensor], gradient: bool, device: str) -> Work:
    """Return a turn that ends when the device has done its work."""
    on_gpu = torch.device(device).type == "cuda"

    def turn() -> None:
        with torch.set_grad_enabled(gradient):
            outputs = forward()
        if gradient:
            outputs.sum().backward()  # type: ignore[no-untyped-call]
        if on_gpu:
            torch.cuda.synchronize(device)

    return turn


def _starting_at(loop: Loop, work: Work) -> Work:
    def turn() -> None:
        with starting_at(loop):
            work()

    return turn
