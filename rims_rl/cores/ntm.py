"""Neural Turing Machine (Graves, Wayne and Danihelka 2014, arXiv 1410.5401).

Axes: T time, B batch, I input size, O output size, F flat state size, S controller size, N memory rows, M width of a
row, R read heads, W write heads, H = R + W heads, D = 2 * shift_range + 1 shifts, X interface size.

Each step the controller sees the input and what was read last; every head finds its rows, in the memory as it stands,
by content (eq. 5, 6), by staying where it was (eq. 7), by moving (eq. 8), and sharpens (eq. 9); the write heads erase
and add (eq. 3, 4), the read heads read what is then there (eq. 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rims_rl.cores.addressing import circular_shift, content_weights, erase_and_add, sharpen
from rims_rl.cores.base import RecurrentCore, full_precision, require_at_least_one, steps_with_resets
from rims_rl.cores.controller import Controller, check_controller, join_state, split_state
from rims_rl.cores.grouped import uniform_parameter
from rims_rl.errors import ConfigError

_EMPTY_MEMORY = 1e-6
"""What every cell of the memory holds at first: of three ways the best (Collier and Beel 2018, arXiv 1807.08518)."""


class NTMState(NamedTuple):
    """A named view of a Neural Turing Machine's flat state."""

    h: Tensor
    """The LSTM controller's hidden state (B, 1, S); (B, 1, 0) with a feed-forward controller."""
    c: Tensor
    """The LSTM controller's cell state, of the shape of h."""
    reads: Tensor
    """What the read heads read last (B, R, M)."""
    weights: Tensor
    """Where the heads were, read heads first (B, H, N)."""
    memory: Tensor
    """The memory (B, N, M)."""


class Interface(NamedTuple):
    """What the controller tells the heads in one step."""

    keys: Tensor
    """(B, H, M), between -1 and 1."""
    strengths: Tensor
    """(B, H, 1), positive."""
    gates: Tensor
    """(B, H, 1), between 0 and 1: where the head was, or the rows that resemble the key?"""
    shifts: Tensor
    """(B, H, D) that sum to one: how much to move by each number of rows, from -shift_range upwards."""
    powers: Tensor
    """(B, H, 1), at least 1."""
    erase: Tensor
    """(B, W, M), between 0 and 1."""
    add: Tensor
    """(B, W, M), between -1 and 1."""


@dataclass(frozen=True)
class NTMConfig:
    """Sizes of a Neural Turing Machine, by default those of the paper's copy task (table 1)."""

    hidden_size: int = 100
    """S: size of the controller."""
    memory_rows: int = 128
    """N: number of rows of the memory."""
    memory_width: int = 20
    """M: size of one row."""
    read_heads: int = 1
    """R: number of heads that read."""
    write_heads: int = 1
    """W: number of heads that write."""
    shift_range: int = 1
    """How many rows a head can move in one step, either way."""
    controller: str = "lstm"
    """`lstm`, or `feedforward`: one tanh layer, so that nothing but the memory remembers."""
    output_size: int | None = None
    """O: size of the output, a linear map of the controller's output and the reads; None: as many as `hidden_size`."""

    def __post_init__(self) -> None:
        """Check the settings; raises ConfigError in one line."""
        require_at_least_one(
            hidden_size=self.hidden_size,
            memory_rows=self.memory_rows,
            memory_width=self.memory_width,
            read_heads=self.read_heads,
            write_heads=self.write_heads,
            shift_range=self.shift_range,
        )
        if self.output_size is not None:
            require_at_least_one(output_size=self.output_size)
        if self.shifts > self.memory_rows:
            raise ConfigError(
                f"shift_range={self.shift_range} needs memory_rows of at least {self.shifts}, got {self.memory_rows}"
            )
        check_controller(self.controller)

    @property
    def heads(self) -> int:
        """H: number of all heads."""
        return self.read_heads + self.write_heads

    @property
    def shifts(self) -> int:
        """D: number of ways a head can move."""
        return 2 * self.shift_range + 1


class NTM(RecurrentCore):
    """An LSTM or feed-forward controller with a memory that it reads and writes by soft addresses.

    The interface's numbers are bounded as in the reference implementation of Collier and Beel (2018): keys and what is
    added by tanh, strengths by softplus, gates and erasing by sigmoid, shifts by softmax, powers by oneplus. From there
    is also the start of an episode: a memory of one small constant, first addresses and first reads that are learned.
    Other than there, heads read after the step's writing, as eq. 2 has it.
    """

    config_class = NTMConfig
    width_setting = "hidden_size"
    paper = "Graves et al. 2014"

    def __init__(self, input_size: int, config: NTMConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config = config or NTMConfig()
        heads, rows, width = config.heads, config.memory_rows, config.memory_width
        remembered = (1, config.hidden_size if config.controller == "lstm" else 0)
        self.shapes = (remembered, remembered, (config.read_heads, width), (heads, rows), (rows, width))
        self.input_size = input_size
        self.output_size = config.output_size or config.hidden_size
        self.state_size = sum(math.prod(shape) for shape in self.shapes)
        # keys and what is added, gates and erase, strengths and powers, shifts
        vectors = (heads + config.write_heads) * width
        self.interface_sizes = (vectors, heads + config.write_heads * width, 2 * heads, heads * config.shifts)
        self.controller = Controller(
            config.controller,
            input_size,
            config.hidden_size,
            config.read_heads * width,
            sum(self.interface_sizes),
            self.output_size,
        )
        self.first_reads = uniform_parameter(config.read_heads, width, bound=math.sqrt(6.0 / (1 + width)))
        self.first_weights = uniform_parameter(heads, rows, bound=math.sqrt(6.0 / (1 + rows)))

    # ------------------------------------------------------------------ state

    def initial_state(self, batch: int) -> Tensor:
        """Return the learned state of `batch` sequences that have seen nothing, (B, F)."""
        reads, weights = torch.tanh(self.first_reads), torch.softmax(self.first_weights, dim=-1)
        nothing = reads.new_zeros(2 * self.shapes[0][1])
        memory = reads.new_full((math.prod(self.shapes[-1]),), _EMPTY_MEMORY)
        return torch.cat([nothing, reads.flatten(), weights.flatten(), memory]).repeat(batch, 1)

    def working_numbers(self) -> int:
        """Return the size of what all heads look for or write in all rows, H * N * M."""
        return self.config.heads * self.config.memory_rows * self.config.memory_width

    def unpack(self, state: Tensor) -> NTMState:
        """Return the named view of a flat state (B, F)."""
        return NTMState(*split_state(state, self.shapes))

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
        """Run as `forward` and also return where the heads were.

        Returns:
            Outputs, state, and a dictionary of `read_weights` (T, B, R, N) and `write_weights` (T, B, W, N).
        """
        outputs, state, weights = self._run(inputs, state, episode_starts)
        read, write = torch.stack(weights).detach().tensor_split([self.config.read_heads], dim=2)
        return outputs, state, {"read_weights": read, "write_weights": write}

    def _run(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Run the time loop; returns outputs, state and every step's weightings (B, H, N)."""
        self.check_shapes(inputs, state, episode_starts)
        resets = steps_with_resets(episode_starts, inputs.shape[0])
        view = self.unpack(state)
        hiddens, reads, weights = [], [], []
        for t, from_input in enumerate(self.controller.hoist(inputs)):
            if resets[t] and episode_starts is not None:
                view = self._restart(view, episode_starts[t])
            h, view = self._step(from_input, view)
            hiddens.append(h)
            reads.append(view.reads.flatten(1))
            weights.append(view.weights)
        return self.controller.outputs(hiddens, reads), join_state(view), weights

    def _restart(self, view: NTMState, starts: Tensor) -> NTMState:
        """Give the sequences that start an episode their initial state; starts (B,)."""
        fresh = starts.bool().unsqueeze(1)
        return self.unpack(torch.where(fresh, self.initial_state(1), join_state(view)))

    # ------------------------------------------------------------------ one step

    def _step(self, from_input: Tensor, state: NTMState) -> tuple[Tensor, NTMState]:
        """Take one step: control, address, write, read; returns the controller's output (B, S) and the next state."""
        h, c = self.controller.step(from_input, state.reads.flatten(1), state.h.flatten(1), state.c.flatten(1))
        told = self._interface(h)
        weights = address(told, state.weights, state.memory)
        read, write = weights.tensor_split([self.config.read_heads], dim=1)
        memory = erase_and_add(state.memory, write, told.erase, told.add)  # eq. 3, 4
        reads = torch.bmm(read, memory)  # r = sum_i w(i) M(i) (eq. 2)
        kept = h[:, : self.shapes[0][1]].unsqueeze(1)  # nothing of it with a feed-forward controller
        return h, NTMState(kept, c.unsqueeze(1), reads, weights, memory)

    def _interface(self, h: Tensor) -> Interface:
        """Bound and name what the controller's output (B, S) says."""
        config, batch = self.config, h.shape[0]
        vectors, fractions, positives, shifts = self.controller.interface(h).split_with_sizes(
            self.interface_sizes, dim=1
        )
        keys, add = torch.tanh(vectors).view(batch, -1, config.memory_width).tensor_split([config.heads], dim=1)
        gates, erase = torch.sigmoid(fractions).tensor_split([config.heads], dim=1)
        strengths, powers = F.softplus(positives).unsqueeze(2).chunk(2, dim=1)
        return Interface(
            keys,
            strengths,
            gates.unsqueeze(2),
            torch.softmax(shifts.view(batch, config.heads, -1), dim=2),
            1.0 + powers,
            erase.reshape(batch, config.write_heads, -1),
            add,
        )


def address(told: Interface, weights: Tensor, memory: Tensor) -> Tensor:
    """Find every head's rows from where it was (B, H, N) and the memory as it stands (B, N, M): the next (B, H, N)."""
    content = content_weights(told.keys, told.strengths, memory)  # eq. 5
    gated = torch.lerp(weights, content, told.gates)  # g w_c + (1 - g) w (eq. 7)
    moved = circular_shift(gated, told.shifts)  # eq. 8
    return sharpen(moved, told.powers)  # eq. 9
