"""What a loop is told (its static sizes), what it reads, and the buffers that it writes step by step.

Axes, here and in every file of this package: T time, B batch, N input slots, K units, S unit size, G gates times S,
H input heads, D key size and E value size of one head; C communication heads, P key size and M value size of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rims_rl.cores.rim_config import RIMConfig

Buffers = dict[str, Tensor]
Views = dict[str, Sequence[Tensor]]
"""Views that several steps share, by name and t."""
Step = Callable[[int], None]
"""One of the paper's steps, prepared: called with t, it reads and writes the buffers of step t."""


class Plan(NamedTuple):
    """All that decides which operations a loop does, and in which order; equal plans do the same."""

    config: RIMConfig
    """The RIM's settings."""
    steps: int
    """T."""
    batch: int
    """B."""
    slots: int
    """N."""
    keep: bool
    """Whether the values of all steps are kept for a backward pass."""
    always_mask: bool
    """Whether episode starts are applied at every step, so that no operation depends on where they are."""
    fused: bool = False
    """Whether fused kernels do what lies between the matrix products."""

    @property
    def gate_size(self) -> int:
        """Width of one unit's gates (G)."""
        return self.config.gates * self.config.unit_size

    @property
    def is_lstm(self) -> bool:
        """Whether units carry a cell state beside h."""
        return self.config.cell == "lstm"

    @property
    def by_null_row(self) -> bool:
        """Whether slots compete with a null row, not units with each other."""
        return self.config.competition == "null"

    @property
    def shows_candidate(self) -> bool:
        """Whether inactive units show the candidate that they did not take."""
        return self.config.inactive_show == "candidate"


class Inputs(NamedTuple):
    """What a loop reads; None where the configuration has no such piece. The gradients come back in the same order."""

    keys: Tensor | None
    """(T, B, N, H, D)."""
    values: Tensor
    """(H, T, B, K, G), the values' products with the input weights, for a single slot; else (T, B, N, H, E)."""
    weight_ih: Tensor | None
    """(K, H*E, G), for more than one slot."""
    h: Tensor
    """(B, K, S)."""
    c: Tensor | None
    """(B, K, S), for LSTM units."""
    starts: Tensor | None
    """(T, B) of bool."""
    from_state: Tensor
    """(K, S, G + H*D)."""
    bias: Tensor
    """(K, 1, G)."""
    bias_hn: Tensor | None
    """(K, 1, S), for GRU units."""
    to_message: Tensor | None
    """(K, S, queries | keys | values)."""
    from_message: Tensor | None
    """(K, C*M, S); for gated communication (C*M, 2S), gate and map, shared by the units."""
    message_bias: Tensor | None
    """(2S,), for gated communication."""


def given(tensor: Tensor | None) -> Tensor:
    """Return a tensor that the configuration promises to be there."""
    assert tensor is not None
    return tensor


def by_step(buffer: Tensor, steps: int) -> Sequence[Tensor]:
    """Return the view of a buffer (T, ...) at every step; a buffer (1, ...) serves all steps."""
    return [buffer[0]] * steps if len(buffer) == 1 else buffer.unbind()


def split(tensor: Tensor, *sizes: int) -> Tensor:
    """Return a view of (..., X) as (..., *sizes)."""
    return tensor.view(*tensor.shape[:-1], *sizes)


def units_first(tensor: Tensor) -> Tensor:
    """Return a view (T, K, B, ...) of (T, B, K, ...), or the other way round."""
    return tensor.transpose(1, 2)


def forward_buffers(plan: Plan, like: Tensor) -> Buffers:
    """Allocate what a forward pass writes and a backward pass reads; unless kept, one step's room serves all steps."""
    time = plan.steps if plan.keep else 1
    types = {"active": torch.bool}
    return {name: like.new_empty(shape, dtype=types.get(name)) for name, shape in _shapes(plan, time).items()}


def kept_names(plan: Plan) -> list[str]:
    """Return the names of the forward buffers, in order."""
    return list(_shapes(plan, 1))


def _shapes(plan: Plan, time: int) -> dict[str, tuple[int, ...]]:
    config, batch, units, size = plan.config, plan.batch, plan.config.num_units, plan.config.unit_size
    shapes: dict[str, tuple[int, ...]] = {
        "states": (plan.steps + 1, batch, units, size),
        "active": (plan.steps, batch, units),
        "products": (time, units, batch, plan.gate_size + config.query_size),
    }
    if plan.is_lstm:
        shapes["cells"] = (time + 1 if plan.keep else 1, batch, units, size)
        shapes["squashed"] = (time, units, batch, size)
    else:
        shapes["new"] = (time, units, batch, size)
    shapes |= _attention_shapes(plan, time)
    return shapes | (_communication_shapes(plan, time) if config.communication else {})


def _attention_shapes(plan: Plan, time: int) -> dict[str, tuple[int, ...]]:
    config, batch, units = plan.config, plan.batch, plan.config.num_units
    if not config.input_attention:
        return {}
    rows = plan.slots + (1 if plan.by_null_row else 0)
    shapes: dict[str, tuple[int, ...]] = {"attention": (time, config.heads, batch, units, rows)}
    if not plan.by_null_row:
        shapes["shares"] = shapes["attention"]
    if plan.slots > 1:
        shapes["attended"] = (time, batch, units, config.value_size)
    return shapes


def _communication_shapes(plan: Plan, time: int) -> dict[str, tuple[int, ...]]:
    config, batch, units, size = plan.config, plan.batch, plan.config.num_units, plan.config.unit_size
    heads, key, value = config.communication_heads, config.communication_key_size, config.communication_value_size
    gated, width = config.gated_communication, 2 * config.message_key_size + config.message_value_size
    by_head = {
        "asked": (time, 2, heads, batch, units, key),  # queries and keys
        "told": (time, heads, batch, units, value),
    }
    return {
        "shown": (time, batch, units, size),
        **({"parts": (time, units, batch, width)} if plan.fused else by_head),
        "listening": (time, heads * batch, units, units),
        "messages": (time, batch, units, config.message_value_size),
        "said": (time, batch, units, 2 * size) if gated else (time, units, batch, size),
    }


def softmax_backward(weights: Tensor, gradient: Tensor, dim: int, product: Tensor, total: Tensor, out: Tensor) -> None:
    """Write the gradient of the scores, w (d - sum(w d)), with room for the product and its sum given."""
    torch.mul(weights, gradient, out=product)
    torch.sum(product, dim, keepdim=True, out=total)
    torch.addcmul(product, weights, total, value=-1.0, out=out)
