"""Differentiable Neural Computer (Graves et al. 2016, Nature 538, doi 10.1038/nature20101, Methods).

Axes: T time, B batch, I input size, O output size, F flat state size, S controller size, N memory rows, M width of a
row, R read heads, X interface size. There is one write head, as in the paper.

Each step the controller sees the input and what was read last; the memory counts which rows are in use, writes to a
row that is free or that resembles a key, links it to the row written before, and every read head goes back or forward
along the links or to the rows that resemble its key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rims_rl.cores.addressing import (
    allocation_weights,
    content_weights,
    erase_and_add,
    link_in_order,
    mixed_read_weights,
    oneplus,
    usage_after_step,
)
from rims_rl.cores.base import RecurrentCore, full_precision, require_at_least_one, steps_with_resets
from rims_rl.cores.controller import Controller, join_state, split_state


class DNCState(NamedTuple):
    """A named view of a DNC's flat state."""

    h: Tensor
    """The controller's hidden state (B, 1, S)."""
    c: Tensor
    """The controller's cell state (B, 1, S)."""
    reads: Tensor
    """What the read heads read last (B, R, M)."""
    read_weights: Tensor
    """Where they read it (B, R, N)."""
    write_weights: Tensor
    """Where was written last (B, N)."""
    usage: Tensor
    """How far each row was in use (B, N)."""
    precedence: Tensor
    """How far each row is the last one written (B, N)."""
    links: Tensor
    """How far row i was written right after row j (B, N, N)."""
    memory: Tensor
    """The memory (B, N, M)."""


class Interface(NamedTuple):
    """What the controller tells the memory in one step."""

    write_key: Tensor
    """(B, 1, M)."""
    write_strength: Tensor
    """(B, 1, 1), at least 1."""
    erase: Tensor
    """(B, 1, M), between 0 and 1."""
    add: Tensor
    """(B, 1, M), the paper's write vector."""
    free_gates: Tensor
    """(B, R, 1), between 0 and 1."""
    allocation_gate: Tensor
    """(B, 1), between 0 and 1: a free row, or one that resembles the write key?"""
    write_gate: Tensor
    """(B, 1), between 0 and 1: write at all?"""
    read_keys: Tensor
    """(B, R, M)."""
    read_strengths: Tensor
    """(B, R, 1), at least 1."""
    read_modes: Tensor
    """(B, R, 3) that sum to one: backward, content, forward."""


class StepTrace(NamedTuple):
    """What happened in one step."""

    read_weights: Tensor
    """(B, R, N)."""
    write_weights: Tensor
    """(B, N)."""
    usage: Tensor
    """(B, N)."""
    read_modes: Tensor
    """(B, R, 3)."""
    allocation_gate: Tensor
    """(B, 1)."""
    write_gate: Tensor
    """(B, 1)."""


@dataclass(frozen=True)
class DNCConfig:
    """Sizes of a DNC, by default those of the reference implementation's copy task."""

    hidden_size: int = 64
    """S: size of the LSTM controller."""
    memory_rows: int = 16
    """N: number of rows of the memory; the links take its square."""
    memory_width: int = 16
    """M: size of one row."""
    read_heads: int = 4
    """R: number of heads that read."""
    output_size: int | None = None
    """O: size of the output, a linear map of the controller's output and the reads; None: as many as `hidden_size`."""

    def __post_init__(self) -> None:
        """Check the sizes; raises ConfigError in one line."""
        require_at_least_one(
            hidden_size=self.hidden_size,
            memory_rows=self.memory_rows,
            memory_width=self.memory_width,
            read_heads=self.read_heads,
        )
        if self.output_size is not None:
            require_at_least_one(output_size=self.output_size)


class DNC(RecurrentCore):
    """An LSTM controller with a memory that allocates its rows and remembers the order in which it wrote them.

    An episode starts with nothing but zeros, as in the reference implementation.
    """

    config_class = DNCConfig
    width_setting = "hidden_size"
    paper = "Graves et al. 2016"

    def __init__(self, input_size: int, config: DNCConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config = config or DNCConfig()
        size, rows, width, heads = config.hidden_size, config.memory_rows, config.memory_width, config.read_heads
        self.shapes = (
            (1, size), (1, size), (heads, width), (heads, rows), (rows,), (rows,), (rows,), (rows, rows), (rows, width),
        )  # fmt: skip
        self.input_size = input_size
        self.output_size = config.output_size or size
        self.state_size = sum(math.prod(shape) for shape in self.shapes)
        # keys and what is added, strengths, erase and gates, read modes
        self.interface_sizes = ((heads + 2) * width, heads + 1, width + heads + 2, 3 * heads)
        self.controller = Controller(
            "lstm", input_size, size, heads * width, sum(self.interface_sizes), self.output_size
        )

    def unpack(self, state: Tensor) -> DNCState:
        """Return the named view of a flat state (B, F)."""
        return DNCState(*split_state(state, self.shapes))

    # ------------------------------------------------------------------ whole sequences

    @full_precision
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: inputs (T, B, I), state (B, F) -> outputs (T, B, O), state (B, F)."""
        outputs, state, _ = self._run(inputs, state, episode_starts)
        return outputs, state

    @full_precision
    def diagnose(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Run as `forward` and also return where was read and written, and why.

        Returns:
            Outputs, state, and a dictionary of `read_weights` (T, B, R, N), `write_weights` (T, B, N), `usage` (T, B,
            N), `read_modes` (T, B, R, 3: backward, content, forward), `allocation_gate` and `write_gate` (T, B, 1).
        """
        outputs, state, traces = self._run(inputs, state, episode_starts)
        columns = zip(*traces, strict=True)
        found = {name: torch.stack(column) for name, column in zip(StepTrace._fields, columns, strict=True)}
        return outputs, state, {name: tensor.detach() for name, tensor in found.items()}

    def _run(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None
    ) -> tuple[Tensor, Tensor, list[StepTrace]]:
        """Run the time loop; returns outputs, state and what happened in every step."""
        self.check_shapes(inputs, state, episode_starts)
        resets = steps_with_resets(episode_starts, inputs.shape[0])
        view = self.unpack(state)
        hiddens, reads, traces = [], [], []
        for t, from_input in enumerate(self.controller.hoist(inputs)):
            if resets[t] and episode_starts is not None:
                fresh = episode_starts[t].bool().unsqueeze(1)
                view = self.unpack(join_state(view).masked_fill(fresh, 0.0))
            view, trace = self._step(from_input, view)
            hiddens.append(view.h.flatten(1))
            reads.append(view.reads.flatten(1))
            traces.append(trace)
        return self.controller.outputs(hiddens, reads), join_state(view), traces

    # ------------------------------------------------------------------ one step

    def _step(self, from_input: Tensor, state: DNCState) -> tuple[DNCState, StepTrace]:
        """Take one step from the input's products (B, 4S): control, count, write, link, read."""
        h, c = self.controller.step(from_input, state.reads.flatten(1), state.h.flatten(1), state.c.flatten(1))
        told = self._interface(h)
        usage = usage_after_step(state.usage, state.write_weights, told.free_gates, state.read_weights)
        write = self._write_weights(told, usage, state.memory)
        memory = erase_and_add(state.memory, write.unsqueeze(1), told.erase, told.add)
        links, precedence = link_in_order(state.links, state.precedence, write)
        content = content_weights(told.read_keys, told.read_strengths, memory)
        read = mixed_read_weights(links, state.read_weights, content, told.read_modes)
        reads = torch.bmm(read, memory)
        view = DNCState(h.unsqueeze(1), c.unsqueeze(1), reads, read, write, usage, precedence, links, memory)
        return view, StepTrace(read, write, usage, told.read_modes, told.allocation_gate, told.write_gate)

    def _write_weights(self, told: Interface, usage: Tensor, memory: Tensor) -> Tensor:
        """Choose where to write: g_w (g_a a + (1 - g_a) c), (B, N)."""
        content = content_weights(told.write_key, told.write_strength, memory).squeeze(1)
        return told.write_gate * torch.lerp(content, allocation_weights(usage), told.allocation_gate)

    def _interface(self, h: Tensor) -> Interface:
        """Bound and name what the controller's output (B, S) says (Methods, interface parameters)."""
        config = self.config
        width, heads = config.memory_width, config.read_heads
        keys, strengths, gates, modes = self.controller.interface(h).split_with_sizes(self.interface_sizes, dim=1)
        add, write_key, read_keys = keys.view(-1, heads + 2, width).split_with_sizes([1, 1, heads], dim=1)
        write_strength, read_strengths = oneplus(strengths).unsqueeze(2).split_with_sizes([1, heads], dim=1)
        erase, free, allocation_gate, write_gate = torch.sigmoid(gates).split_with_sizes([width, heads, 1, 1], dim=1)
        return Interface(
            write_key,
            write_strength,
            erase.unsqueeze(1),
            add,
            free.unsqueeze(2),
            allocation_gate,
            write_gate,
            read_keys,
            read_strengths,
            torch.softmax(modes.view(-1, heads, 3), dim=2),
        )
