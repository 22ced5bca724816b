"""The Relational Memory Core (Santoro et al. 2018, "Relational recurrent neural networks", arXiv 1806.01822).

Axes: T time, B batch, N memory slots, M slot size, H heads, d key size, e = M/H value size, P = H (2 d + e), and G gate
size: M for a gate per unit, 1 for a gate per slot.

At every step the memory slots attend to each other and to the input, and gates decide what each slot takes from it.
Where the paper is silent, or differs from DeepMind's published module (Sonnet), the module is followed: there is an
input and a forget gate but no output gate (equations 6 and 8), queries, keys and values are normalised together, the
map after the attention is shared by the blocks, and the initial memory is the identity, which tells the slots apart.
The input's row of the first attention and its part of the gates are computed for all T steps at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from rims_rl.cores.base import RecurrentCore, full_precision, require_at_least_one, steps_with_resets
from rims_rl.cores.grouped import scaled_linear
from rims_rl.errors import ConfigError

Gate = Literal["unit", "memory", "none"]


class RMCState(NamedTuple):
    """A named view of a relational memory's flat state."""

    h: Tensor
    """The memory slots (B, N, M)."""


class StepTrace(NamedTuple):
    """What happened in one step."""

    attention: Tensor
    """Of slot over slots and input in the last block, (B, H, N, N + 1)."""
    gates: tuple[Tensor, ...]
    """Input and forget gate, each (B, N, G); none without gates."""


@dataclass(frozen=True)
class RMCConfig:
    """Sizes and switches of a relational memory core."""

    num_slots: int = 4
    """How many memory slots there are (N)."""
    slot_size: int = 128
    """Size of one slot (M), a multiple of `heads`."""
    heads: int = 4
    """Heads of the attention between slots (H)."""
    key_size: int | None = None
    """Size of one head's query and key; by default the value's, slot_size / heads."""
    num_blocks: int = 1
    """How often the slots attend at each step."""
    mlp_layers: int = 2
    """Layers of the map that every slot passes after attending, each of slot_size."""
    gate: Gate = "unit"
    """unit: a gate per element of a slot; memory: one per slot; none: what was attended replaces the slot."""
    forget_bias: float = 1.0
    """Added to the forget gates' pre-activation."""
    input_bias: float = 0.0
    """Added to the input gates' pre-activation."""

    def __post_init__(self) -> None:
        """Check every setting; raises ConfigError in one line."""
        names = ("num_slots", "slot_size", "heads", "num_blocks", "mlp_layers")
        require_at_least_one(**{name: getattr(self, name) for name in names})
        if self.key_size is not None:
            require_at_least_one(key_size=self.key_size)
        if self.slot_size % self.heads:
            raise ConfigError(f"slot_size={self.slot_size} must be a multiple of heads={self.heads}")
        if self.gate not in get_args(Gate):
            raise ConfigError(f"gate must be one of {', '.join(get_args(Gate))}, got {self.gate!r}")
        for name in ("forget_bias", "input_bias"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be a finite number, got {getattr(self, name)!r}")

    @property
    def head_key_size(self) -> int:
        """Size of one head's query and key."""
        return self.slot_size // self.heads if self.key_size is None else self.key_size

    @property
    def gate_size(self) -> int:
        """How many gates of a kind a slot has."""
        return {"unit": self.slot_size, "memory": 1, "none": 0}[self.gate]


class RMC(RecurrentCore):
    """N memory slots that attend to each other and to the input at every step; the output is all slots in a row."""

    config_class = RMCConfig
    width_setting = "slot_size"
    paper = "Santoro et al. 2018"
    first_memory: Tensor
    gate_biases: Tensor

    def __init__(self, input_size: int, config: RMCConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config = config or RMCConfig()
        self.input_size = input_size
        self.output_size = self.state_size = config.num_slots * config.slot_size
        self.embed = scaled_linear(input_size, config.slot_size)
        self.projections = nn.ModuleList(_projection(config) for _ in range(config.num_blocks))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_blocks))
        self.mlp = _mlp(config.slot_size, config.mlp_layers)
        self._make_gates()
        self.register_buffer("first_memory", torch.eye(config.num_slots, config.slot_size), persistent=False)

    def _make_gates(self) -> None:
        """Maps of input and memory to both gates; one bias serves both maps, the constant ones come on top."""
        config, size = self.config, self.config.gate_size
        if size:
            self.gates_from_input = scaled_linear(config.slot_size, 2 * size)
            self.gates_from_memory = scaled_linear(config.slot_size, 2 * size, bias=False)
        biases = torch.tensor([config.input_bias, config.forget_bias]).repeat_interleave(size)
        self.register_buffer("gate_biases", biases, persistent=False)

    def initial_state(self, batch: int) -> Tensor:
        """Return the identity, padded with zeros or cut to (N, M), so that no two slots are alike; (B, F)."""
        return self.first_memory.flatten().repeat(batch, 1)

    def working_numbers(self) -> int:
        """Return the size of the attention of all slots to all slots and the input, H * N * (N + 1)."""
        return self.config.heads * self.config.num_slots * (self.config.num_slots + 1)

    def unpack(self, state: Tensor) -> RMCState:
        """Return the named view of a flat state (B, F)."""
        return RMCState(state.view(-1, self.config.num_slots, self.config.slot_size))

    @full_precision
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: inputs (T, B, I), state (B, F) -> outputs (T, B, N*M), state (B, F)."""
        return self._run(inputs, state, episode_starts, None)

    @full_precision
    def diagnose(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Run as `forward` and also return where slots attended and how far their gates were open.

        Returns:
            Outputs, state, and a dictionary of `attention` (T, B, N, N + 1) in the last block, heads averaged, whose
            row is the reading slot and whose last column is the input, and, with gates, `input_gate` and `forget_gate`
            (T, B, N), averaged over a slot's elements.
        """
        traces: list[StepTrace] = []
        outputs, state = self._run(inputs, state, episode_starts, traces)
        found = {"attention": torch.stack([trace.attention.mean(1) for trace in traces])}
        if self.config.gate_size:
            gates = torch.stack([torch.stack(trace.gates).mean(3) for trace in traces], dim=1)  # (2, T, B, N)
            found["input_gate"], found["forget_gate"] = gates.unbind()
        return outputs, state, {name: tensor.detach() for name, tensor in found.items()}

    def _run(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None, traces: list[StepTrace] | None
    ) -> tuple[Tensor, Tensor]:
        self.check_shapes(inputs, state, episode_starts)
        memory = self.unpack(state).h
        resets = steps_with_resets(episode_starts, inputs.shape[0])
        outputs = []
        for t, (row, row_qkv, gates) in enumerate(self._hoist(inputs)):
            if resets[t] and episode_starts is not None:
                memory = torch.where(episode_starts[t].bool().view(-1, 1, 1), self.first_memory, memory)
            memory, trace = self._step(memory, row, row_qkv, gates)
            outputs.append(memory)
            if traces is not None:
                traces.append(trace)
        return torch.stack(outputs).flatten(2), memory.flatten(1)

    def _hoist(self, inputs: Tensor) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """Yield step by step the input's row (B, 1, M), its query, key and value (B, 1, P), its gates (B, 1, 2 G)."""
        row = self.embed(inputs).unsqueeze(2)  # (T, B, 1, M)
        gates = self.gates_from_input(row) + self.gate_biases if self.config.gate_size else row
        return zip(row.unbind(), self.projections[0](row).unbind(), gates.unbind(), strict=True)

    def _step(self, memory: Tensor, row: Tensor, row_qkv: Tensor, gates: Tensor) -> tuple[Tensor, StepTrace]:
        """Take one step from the memory (B, N, M): attend, pass the map, gate."""
        qkv = torch.cat([self.projections[0](memory), row_qkv], dim=1)  # (B, N + 1, P)
        rows = memory
        if self.config.num_blocks > 1:  # further blocks read what became of the input's row
            rows = torch.cat([memory, row], dim=1)
            for project, block in zip(list(self.projections)[1:], list(self.blocks)[:-1], strict=True):
                rows, _ = block(rows, qkv, self.mlp)
                qkv = project(rows)
        made, attention = self.blocks[-1](rows[:, : self.config.num_slots], qkv, self.mlp)
        return self._gate(memory, made, gates, attention)

    def _gate(self, memory: Tensor, made: Tensor, gates: Tensor, attention: Tensor) -> tuple[Tensor, StepTrace]:
        """Mix the memory with what was made of it (equations 4, 5 and 7): sigma(f) m + sigma(i) tanh(made)."""
        if not self.config.gate_size:
            return made, StepTrace(attention, ())
        both = torch.sigmoid(gates + self.gates_from_memory(torch.tanh(memory)))
        input_gate, forget_gate = both.chunk(2, dim=-1)
        memory = torch.addcmul(forget_gate * memory, input_gate, torch.tanh(made))
        return memory, StepTrace(attention, (input_gate, forget_gate))


class _Block(nn.Module):
    """One attention of the slots over slots and input and the map behind it, with residual sums and layer norms."""

    def __init__(self, config: RMCConfig) -> None:
        super().__init__()
        self.heads, self.key_size = config.heads, config.head_key_size
        self.attention_norm, self.mlp_norm = nn.LayerNorm(config.slot_size), nn.LayerNorm(config.slot_size)

    def forward(self, rows: Tensor, qkv: Tensor, mlp: nn.Module) -> tuple[Tensor, Tensor]:
        """Let the first R rows read from all of qkv (B, N + 1, P): rows (B, R, M), attention (B, H, R, N + 1)."""
        attended, weights = self._attend(rows.shape[1], qkv)
        rows = self.attention_norm(rows + attended)
        return self.mlp_norm(rows + mlp(rows)), weights

    def _attend(self, count: int, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the first R = `count` rows read, (B, R, M), and their attention (equations 1 and 2)."""
        split = qkv.view(*qkv.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, N + 1, 2 d + e)
        q, k, v = split.tensor_split([self.key_size, 2 * self.key_size], dim=-1)
        scores = q[:, :, :count] @ k.transpose(2, 3) / math.sqrt(self.key_size)
        weights = torch.softmax(scores, dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2), weights


def _projection(config: RMCConfig) -> nn.Module:
    """Return the map of a row (M) to its queries, keys and values in a row (P), normalised together."""
    size = config.heads * 2 * config.head_key_size + config.slot_size
    return nn.Sequential(scaled_linear(config.slot_size, size), nn.LayerNorm(size))


def _mlp(size: int, layers: int) -> nn.Module:
    """Return the map that every row passes, ReLU between its layers (g_psi of equation 7)."""
    modules: list[nn.Module] = [scaled_linear(size, size)]
    for _ in range(layers - 1):
        modules += [nn.ReLU(), scaled_linear(size, size)]
    return nn.Sequential(*modules)
