"""Recurrent Independent Mechanisms (Goyal et al., ICLR 2021, arXiv 1909.10893).

Axes: T time, B batch, N input slots, I input size, K units, S unit size, G gates times S, H heads, D key size, E value
size. Inside the time loop the unit axis comes first, (K, B, ...), so that a batched product needs no copy.

What does not depend on the state is computed for all T steps before the loop: keys, values and, for a single slot, the
cell's input products. With one slot the attended input is p V, so its product with the cell's weights is p (V W): all
that is left of the input inside the loop is a scaling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rims_rl.cores import loops, native, unrolled
from rims_rl.cores.attention import attend_with_null, communicate, compete_between_units, select_active
from rims_rl.cores.base import RecurrentCore, full_precision, steps_with_resets
from rims_rl.cores.grouped import gru_update, lstm_update, scaled_parameter, uniform_parameter
from rims_rl.cores.rim_config import RIMConfig


class RIMState(NamedTuple):
    """A named view of a RIM's flat state."""

    h: Tensor
    """Hidden states (B, K, S)."""
    c: Tensor | None
    """LSTM units' cell states (B, K, S), None for GRU units."""


class StepInputs(NamedTuple):
    """What one step needs of the input, none of it dependent on the state."""

    keys: Tensor | None
    """(B, N, H, D); None without input attention."""
    values: Tensor | None
    """(B, N, H, E/H) for more than one slot, else None."""
    gates: Tensor | None
    """(K, B, H, G), the value's product with every unit's input weights for a single slot, else None."""


class StepTrace(NamedTuple):
    """What happened in one step."""

    active: Tensor
    """(K, B) of bool."""
    null_attention: Tensor
    """(K, B), averaged over heads."""
    input_attention: Tensor
    """(K, B, H, N)."""
    communication: Tensor
    """(B, H, K, K), row = reading unit; empty without communication."""


class RIM(RecurrentCore):
    """K recurrent units that compete through attention for the input; the best k_A update and then communicate."""

    accepts_slots = True
    config_class = RIMConfig
    width_setting = "unit_size"
    paper = "Goyal et al. 2021"

    def __init__(self, input_size: int, config: RIMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RIMConfig()
        config.check_input_size(input_size)
        self.input_size = input_size
        self.output_size = config.num_units * config.unit_size
        self.state_size = self.output_size * (2 if config.cell == "lstm" else 1)
        self.gate_size = config.gates * config.unit_size
        self._make_input_attention()
        self._make_cell()
        self._make_communication()

    def _make_input_attention(self) -> None:
        """Shared key and value maps; the queries are stacked behind the cell's recurrent weights (section 2.1)."""
        config = self.config
        self.value = scaled_parameter(self.input_size, config.value_size)
        if config.input_attention:
            self.key = scaled_parameter(self.input_size, config.key_size)
        else:
            self.register_parameter("key", None)

    def _make_cell(self) -> None:
        """Weights per unit (section 2.3); what reads the state at the step's start is one stack: gates, then query."""
        config, units, size = self.config, self.config.num_units, self.config.unit_size
        bound = 1.0 / math.sqrt(size)
        self.weight_ih = uniform_parameter(units, config.value_size, self.gate_size, bound=bound)
        recurrent = uniform_parameter(units, size, self.gate_size, bound=bound).detach()
        query = scaled_parameter(units, size, config.query_size).detach()
        self.from_state = nn.Parameter(torch.cat([recurrent, query], dim=2))
        self.bias = uniform_parameter(units, 1, self.gate_size, bound=bound)
        self.bias_hn: nn.Parameter | None
        gru_bias = uniform_parameter(units, 1, size, bound=bound) if config.cell == "gru" else None
        self.register_parameter("bias_hn", gru_bias)

    def _make_communication(self) -> None:
        """Queries, keys and values per unit as one stack, and the output map (section 2.4)."""
        config, units, size = self.config, self.config.num_units, self.config.unit_size
        if not config.communication:
            return
        self.to_message = scaled_parameter(units, size, 2 * config.message_key_size + config.message_value_size)
        if config.gated_communication:
            self.message_out = nn.Linear(config.message_value_size, size)
            self.message_gate = nn.Linear(config.message_value_size, size)
        else:
            self.from_message = scaled_parameter(units, config.message_value_size, size)

    # ------------------------------------------------------------------ state

    def working_numbers(self) -> int:
        """Return the size of the attention of all units to all units, H * K * K."""
        return self.config.communication_heads * self.config.num_units**2 if self.config.communication else 0

    def unpack(self, state: Tensor) -> RIMState:
        """Return the named view of a flat state (B, F)."""
        shape = (state.shape[0], self.config.num_units, self.config.unit_size)
        if self.config.cell == "gru":
            return RIMState(state.view(shape), None)
        return RIMState(state[:, : self.output_size].view(shape), state[:, self.output_size :].view(shape))

    def pack(self, h: Tensor, c: Tensor | None) -> Tensor:
        """Return the flat state (B, F) of h and c, each (K, B, S)."""
        parts = [part.transpose(0, 1).reshape(part.shape[1], -1) for part in (h, c) if part is not None]
        return torch.cat(parts, dim=1)

    # ------------------------------------------------------------------ whole sequences

    @full_precision
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: inputs (T, B, I) or (T, B, N, I), state (B, F) -> outputs (T, B, K*S), state (B, F)."""
        return self._dispatch(inputs, state, episode_starts, None)

    @full_precision
    def diagnose(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Run as `forward` and also return, heads averaged, who was active and where units attended.

        Returns:
            Outputs, state, and a dictionary of `active` (T, B, K) bool, `null_attention` (T, B, K), `input_attention`
            (T, B, K, N) and, with communication, `communication` (T, B, K, K), whose row is the reading unit.
        """
        traces: list[StepTrace] = []
        outputs, state = self._dispatch(inputs, state, episode_starts, traces)
        found = {
            "active": torch.stack([trace.active.t() for trace in traces]),
            "null_attention": torch.stack([trace.null_attention.t() for trace in traces]),
            "input_attention": torch.stack([trace.input_attention.mean(2).transpose(0, 1) for trace in traces]),
        }
        if self.config.communication:
            found["communication"] = torch.stack([trace.communication.mean(1) for trace in traces])
        return outputs, state, {name: tensor.detach() for name, tensor in found.items()}

    def _dispatch(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None, traces: list[StepTrace] | None
    ) -> tuple[Tensor, Tensor]:
        """Take the fastest loop that serves: in C, written out by hand, or the eager one, which alone can trace."""
        self.check_shapes(inputs, state, episode_starts)
        if traces is None and loops.allowed("compiled") and self._compiled_loop_fits(inputs):
            return self._run_compiled(inputs, state, episode_starts)
        if traces is None and loops.allowed("unrolled"):
            return self._run_unrolled(inputs, state, episode_starts)
        return self._run(inputs, state, episode_starts, traces)

    def _compiled_loop_fits(self, inputs: Tensor) -> bool:
        """Whether the loop in C serves this call: on a processor, the paper's RIM with either cell, any slots."""
        config = self.config
        is_paper = config.input_attention and config.competition == "null" and config.inactive_show == "state"
        return (
            is_paper
            and not config.gated_communication
            and inputs.device.type == "cpu"
            and native.available(inputs.dtype)
        )

    def _run_compiled(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Do what `_run` does by the loop in C."""
        h, c = self.unpack(state)
        starts = None if episode_starts is None else episode_starts.bool()
        weights = native.Weights(
            self.from_state,
            self.bias,
            self.bias_hn,
            getattr(self, "to_message", None),
            getattr(self, "from_message", None),
        )
        assert self.key is not None
        shape = self._native_shape()
        if inputs.dim() == 4 and inputs.shape[2] > 1:
            slot_weights = native.SlotWeights(self.key, self.value, self.weight_ih)
            outputs, h, c = native.run_slots(shape, weights, slot_weights, inputs, h, c, starts)
        else:
            keys, values, weight_ih = self._read_one_slot(inputs if inputs.dim() == 3 else inputs.squeeze(2))
            assert keys is not None
            outputs, h, c = native.run(shape, weights, weight_ih, keys, values, h, c, starts)
        last = h.flatten(1) if c is None else torch.cat([h.flatten(1), c.flatten(1)], dim=1)
        return outputs.flatten(2), last

    def _native_shape(self) -> native.Shape:
        config = self.config
        heads = config.communication_heads if config.communication else 0
        return native.Shape(
            config.num_units, config.unit_size, config.heads, config.input_key_size, heads,
            config.communication_key_size, config.communication_value_size, config.active_units, config.cell == "lstm",
            config.bounded_messages,
        )  # fmt: skip

    def _run_unrolled(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Do what `_run` does by the loop written out by hand."""
        slots = self._slots(inputs)
        one_slot = slots.shape[2] == 1
        if one_slot:
            keys, values, weight_ih = self._read_one_slot(slots.squeeze(2))
            keys = None if keys is None else keys.unsqueeze(2)
            values = self._hoisted_gates(values, weight_ih)
        else:
            keys, values = self._project(slots)
        outputs, h, c = unrolled.run(
            self.config,
            unrolled.Inputs(
                keys,
                values,
                None if one_slot else self.weight_ih,
                *self.unpack(state),
                None if episode_starts is None else episode_starts.bool(),
                self.from_state,
                self.bias,
                self.bias_hn,
                *self._message_weights(),
            ),
        )
        last = h.flatten(1) if c is None else torch.cat([h.flatten(1), c.flatten(1)], dim=1)
        return outputs.flatten(2), last

    def _message_weights(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return communication's stacked maps in and out, and the bias of the latter; gate and map are one stack."""
        if not self.config.communication:
            return None, None, None
        if not self.config.gated_communication:
            return self.to_message, self.from_message, None
        maps = (self.message_gate, self.message_out)
        weight, bias = torch.cat([part.weight for part in maps]), torch.cat([part.bias for part in maps])
        return self.to_message, weight.t(), bias

    def _run(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None, traces: list[StepTrace] | None
    ) -> tuple[Tensor, Tensor]:
        h, c = self.unpack(state)
        h, c = h.transpose(0, 1), None if c is None else c.transpose(0, 1)
        resets = steps_with_resets(episode_starts, inputs.shape[0])
        outputs = []
        for t, step in enumerate(self._hoist(inputs)):
            if resets[t] and episode_starts is not None:
                h, c = self._forget(h, c, episode_starts[t])
            h, c, trace = self._step(step, h, c)
            outputs.append(h)
            if traces is not None:
                traces.append(trace)
        stacked = torch.stack(outputs).transpose(1, 2)  # (T, B, K, S)
        return stacked.reshape(*stacked.shape[:2], self.output_size), self.pack(h, c)

    def _forget(self, h: Tensor, c: Tensor | None, starts: Tensor) -> tuple[Tensor, Tensor | None]:
        """Give the sequences that start an episode their initial state, zeros; starts (B,)."""
        fresh = starts.bool().view(1, -1, 1)
        return h.masked_fill(fresh, 0.0), None if c is None else c.masked_fill(fresh, 0.0)

    def _hoist(self, inputs: Tensor) -> Iterable[StepInputs]:
        """Compute what does not depend on the state for all T steps at once, and yield it step by step."""
        slots = self._slots(inputs)
        steps, _, count, _ = slots.shape
        projected_keys, values = self._project(slots)
        keys: Iterable[Tensor | None] = [None] * steps if projected_keys is None else projected_keys.unbind()
        if count > 1:
            return (StepInputs(k, v, None) for k, v in zip(keys, values.unbind(), strict=True))
        gates = self._hoisted_gates(values.squeeze(2), self.weight_ih).permute(1, 3, 2, 0, 4)  # (T, K, B, H, G)
        return (StepInputs(k, None, g) for k, g in zip(keys, gates.unbind(), strict=True))

    def _slots(self, inputs: Tensor) -> Tensor:
        """Return the inputs as slots (T, B, N, I): without input attention one, their mean."""
        slots = inputs if inputs.dim() == 4 else inputs.unsqueeze(2)
        return slots if self.config.input_attention else slots.mean(dim=2, keepdim=True)

    def _project(self, slots: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return keys (..., H, D), None without input attention, and values (..., H, E/H) of slots (..., I)."""
        heads = self.config.heads
        shape = (*slots.shape[:-1], heads, -1)
        return None if self.key is None else (slots @ self.key).view(shape), (slots @ self.value).view(shape)

    def _read_one_slot(self, inputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return keys (T, B, H, D), values (T, B, H, V) and the cells' weights for these, (K, H*V, G).

        A value is a linear map of the input, so of a small input the input itself can be the value of every head, and
        the map be folded into the cells' weights: one small product instead of a large one per step.
        """
        if not self._folding_pays(inputs):
            return *self._project(inputs), self.weight_ih
        heads, shape = self.config.heads, inputs.shape
        keys = None if self.key is None else (inputs @ self.key).view(*shape[:2], heads, -1)
        per_head = self.value.view(self.input_size, heads, -1)
        weight = self.weight_ih.view(self.config.num_units, heads, -1, self.gate_size)
        folded = torch.einsum("ihv,khvg->khig", per_head, weight).flatten(1, 2)
        return keys, inputs.unsqueeze(2).expand(*shape[:2], heads, shape[2]), folded

    def _folding_pays(self, inputs: Tensor) -> bool:
        """Whether folding the value map into the cells' weights costs less than the products that it saves."""
        size, width, gates = self.input_size, self.config.value_size, self.gate_size
        saved = size * width + self.config.active_units * gates * (width - self.config.heads * size)
        return inputs.shape[0] * inputs.shape[1] * saved > self.config.num_units * size * width * gates

    def _hoisted_gates(self, values: Tensor, weight_ih: Tensor) -> Tensor:
        """Multiply each head's values (T, B, H, V) with its rows of the weights (K, H*V, G): (H, T, B, K, G)."""
        steps, batch, heads, width = values.shape
        units = self.config.num_units
        weight = weight_ih.view(units, heads, width, self.gate_size).permute(1, 2, 0, 3)  # (H, E/H, K, G)
        flat = values.permute(2, 0, 1, 3).reshape(heads, steps * batch, width)
        products = flat @ weight.reshape(heads, width, units * self.gate_size)  # (H, T*B, K*G)
        return products.view(heads, steps, batch, units, self.gate_size)

    # ------------------------------------------------------------------ one step, the paper's five lines

    def _step(self, step: StepInputs, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None, StepTrace]:
        """Take one step from h and c (K, B, S)."""
        products = torch.bmm(h, self.from_state)  # (K, B, G + H*D)
        hidden_gates, queries = products[..., : self.gate_size], products[..., self.gate_size :]
        attention, null_attention = self._attend(queries, step)
        active = select_active(null_attention, self.config.active_units)
        mask = active.unsqueeze(-1)  # (K, B, 1)
        candidate, c_new = self._update(self._input_gates(attention, step), hidden_gates, h, c)
        kept = torch.where(mask, candidate, h)
        c = None if c is None or c_new is None else torch.where(mask, c_new, c)
        message, communication = self._communicate(kept, candidate, mask)
        h = kept if message is None else torch.where(mask, kept + message, h)
        return h, c, StepTrace(active, null_attention, attention, communication)

    def _attend(self, queries: Tensor, step: StepInputs) -> tuple[Tensor, Tensor]:
        """Attend to the input (2.1): attention on the slots (K, B, H, N) and on the null row (K, B)."""
        units, batch, _ = queries.shape
        if step.keys is None:
            return queries.new_ones(units, batch, 1, 1), queries.new_zeros(units, batch)
        q = queries.view(units, batch, 1, self.config.heads, -1) / math.sqrt(self.config.input_key_size)
        scores = (q * step.keys).sum(dim=-1).transpose(2, 3)  # (K, B, H, N)
        if self.config.competition == "units":
            return compete_between_units(scores, self.config.active_units)
        return attend_with_null(scores)

    def _input_gates(self, attention: Tensor, step: StepInputs) -> Tensor:
        """Return the product of the attended input with the cell's input weights, biases included, (K, B, G)."""
        if step.gates is not None and self.config.heads == 1:  # one slot: p (V W)
            return torch.addcmul(self.bias, attention.squeeze(-1), step.gates.squeeze(2))
        if step.gates is not None:
            return (attention * step.gates).sum(dim=2) + self.bias
        assert step.values is not None
        attended = torch.einsum("kbhn,bnhe->kbhe", attention, step.values).flatten(2)  # (K, B, E)
        return torch.baddbmm(self.bias, attended, self.weight_ih)

    def _update(
        self, input_gates: Tensor, hidden_gates: Tensor, h: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Run every unit's own dynamics (2.3); which results are kept is the selection's matter."""
        if c is None:
            assert self.bias_hn is not None
            return gru_update(input_gates, hidden_gates, self.bias_hn, h), None
        return lstm_update(input_gates + hidden_gates, c)

    def _communicate(self, kept: Tensor, candidate: Tensor, mask: Tensor) -> tuple[Tensor | None, Tensor]:
        """Let units read from all units (2.4): the messages (K, B, S) and the attention (B, H, K, K)."""
        config = self.config
        if not config.communication:
            return None, kept.new_zeros(kept.shape[1], 1, 0, 0)
        shown = kept if config.inactive_show == "state" else torch.where(mask, candidate, candidate.detach())
        key_size = config.message_key_size
        q, k, v = torch.bmm(shown, self.to_message).tensor_split([key_size, 2 * key_size], dim=-1)
        message, attention = communicate(q / math.sqrt(config.communication_key_size), k, v, config.communication_heads)
        if config.gated_communication:
            return torch.sigmoid(self.message_gate(message)) * torch.tanh(self.message_out(message)), attention
        message = torch.bmm(message, self.from_message)
        return torch.tanh(message) if config.bounded_messages else message, attention
