"""Communication between the units (Goyal et al. 2021, section 2.4), each step beside its backward step.

Heads come first, (C, B, K, ...), so that all heads and sequences are one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rims_rl.cores.unrolled.plan import (
    Buffers,
    Inputs,
    Plan,
    Step,
    Views,
    by_step,
    given,
    softmax_backward,
    split,
    units_first,
)
from rims_rl.cores.unrolled.units import active_mask

# ---------------------------------------------------------------- units listen: attention over what units show


def listen(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    """Prepare: write the messages (T, B, K, C*M), softmax(Q K^T / sqrt(P)) V of what the units show."""
    steps, scale, weight = plan.steps, 1.0 / math.sqrt(plan.config.communication_key_size), given(inputs.to_message)
    shown, asked, told = by_step(units_first(b["shown"]), steps), by_step(b["asked"], steps), by_step(b["told"], steps)
    parts = weight.new_empty(plan.config.num_units, plan.batch, weight.shape[2])
    asking, telling = _by_head(plan, parts.transpose(0, 1))
    queries, keys, values = _attended(b)
    query, key, value = (by_step(tensor, steps) for tensor in (queries, keys.mT, values))
    listening, mixed = by_step(b["listening"], steps), torch.empty_like(b["told"][0])
    mixtures, by_unit = mixed.flatten(0, 1), mixed.movedim(0, 2)  # (C*B, K, M), (B, K, C, M)
    messages = by_step(split(b["messages"], *by_unit.shape[2:]), steps)

    def step(t: int) -> None:
        torch.bmm(shown[t], weight, out=parts)
        asked[t].copy_(asking)
        told[t].copy_(telling)
        scores = torch.baddbmm(listening[t], query[t], key[t], beta=0.0, alpha=scale, out=listening[t])
        torch.bmm(torch.softmax(scores, -1, out=scores), value[t], out=mixtures)
        messages[t].copy_(by_unit)

    return step


def listen_backward(plan: Plan, inputs: Inputs, b: Buffers, d: Buffers) -> Step:
    """Prepare: write the gradients of queries, keys and values, `parts` (T, B, K, W), and so of the kept state."""
    scale, weight = 1.0 / math.sqrt(plan.config.communication_key_size), given(inputs.to_message).mT
    queries, keys, values = _attended(b)
    query, key, value = queries.unbind(), keys.unbind(), values.mT.unbind()
    listening, turned = b["listening"].unbind(), b["listening"].mT.unbind()
    d_asked, d_told, d_mixed = (torch.empty_like(b[name][0]) for name in ("asked", "told", "told"))
    d_queries, d_keys = d_asked.flatten(1, 2).unbind()  # (C*B, K, P)
    d_values, d_mixtures = d_told.flatten(0, 1), d_mixed.flatten(0, 1)  # (C*B, K, M)
    d_messages = split(d["messages"], plan.config.communication_heads, -1).movedim(2, 0)  # (C, B, K, M)
    d_scores, product = torch.empty_like(listening[0]), torch.empty_like(listening[0])
    d_scores_turned, total = d_scores.mT, torch.empty_like(product[..., :1])
    d_asking, d_telling = (views.unbind() for views in _by_head(plan, d["parts"]))
    d_parts, add = units_first(d["parts"]).unbind(), _add_shown(plan, b, d)

    def step(t: int) -> None:
        d_mixed.copy_(d_messages)
        torch.bmm(turned[t], d_mixtures, out=d_values)
        torch.bmm(d_mixtures, value[t], out=d_scores)
        softmax_backward(listening[t], d_scores, -1, product, total, d_scores)
        torch.baddbmm(d_queries, d_scores, key[t], beta=0.0, alpha=scale, out=d_queries)
        torch.baddbmm(d_keys, d_scores_turned, query[t], beta=0.0, alpha=scale, out=d_keys)
        d_asking[t].copy_(d_asked)
        d_telling[t].copy_(d_told)
        add(t, d_parts[t], weight)

    return step


def _add_shown(plan: Plan, b: Buffers, d: Buffers) -> Callable[[int, Tensor, Tensor], None]:
    """Return what adds to the state's gradient that of what the units show; none enters inactive units' candidates."""
    d_h, d_kept, active = d["h"], d["kept"], active_mask(b).unbind()

    def state(t: int, d_parts: Tensor, weight: Tensor) -> None:
        torch.baddbmm(d_h, d_parts, weight, out=d_kept)

    def candidate(t: int, d_parts: Tensor, weight: Tensor) -> None:
        torch.addcmul(d_h, active[t], torch.bmm(d_parts, weight, out=d_kept), out=d_kept)

    return candidate if plan.shows_candidate else state


def _by_head(plan: Plan, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of parts (..., B, K, W): queries and keys (..., 2, C, B, K, P), values (..., C, B, K, M)."""
    heads, pairs = plan.config.communication_heads, 2 * plan.config.message_key_size
    asking = split(parts[..., :pairs], 2, heads, -1).movedim((-3, -2), (-5, -4))
    return asking, split(parts[..., pairs:], heads, -1).movedim(-2, -4)


def _attended(b: Buffers) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, each (T, C*B, K, P or M)."""
    queries, keys = b["asked"].flatten(2, 3).unbind(1)
    return queries, keys, b["told"].flatten(1, 2)


# ---------------------------------------------------------------- units take up what they heard


def take_up(plan: Plan, inputs: Inputs, b: Buffers, v: Views) -> Step:
    """Prepare: map the messages per unit, bound them by tanh where asked for, and add them to the active units."""
    steps, weight, bounded = plan.steps, given(inputs.from_message), plan.config.bounded_messages
    messages, said = by_step(units_first(b["messages"]), steps), by_step(b["said"], steps)  # (K, B, C*M), (K, B, S)
    kept, active, after, taken = v["kept"], v["active"], v["after"], torch.empty_like(b["candidate"])

    def step(t: int) -> None:
        torch.bmm(messages[t], weight, out=said[t])
        if bounded:
            said[t].tanh_()
        torch.where(active[t], torch.add(kept[t], said[t], out=taken), kept[t], out=after[t])

    return step


def take_up_backward(plan: Plan, inputs: Inputs, b: Buffers, d: Buffers) -> Step:
    """Prepare: write the gradients of the mapped messages, `said` (T, B, K, S), and of the messages (B, K, C*M)."""
    weight, d_h, d_messages = given(inputs.from_message).mT, d["h"], d["messages"].transpose(0, 1)
    active = active_mask(b)
    slope = active * (1.0 - b["said"] * b["said"]) if plan.config.bounded_messages else active
    slopes, d_said = slope.unbind(), units_first(d["said"]).unbind()

    def step(t: int) -> None:
        torch.bmm(torch.mul(d_h, slopes[t], out=d_said[t]), weight, out=d_messages)

    return step


def take_up_gated(plan: Plan, inputs: Inputs, b: Buffers, v: Views) -> Step:
    """Prepare: add sigmoid(gate) * tanh(map) of the messages, maps shared, to the active units (the authors' code)."""
    steps, size = plan.steps, plan.config.unit_size
    weight, bias = given(inputs.from_message), given(inputs.message_bias)
    messages, said = by_step(b["messages"].flatten(1, 2), steps), by_step(b["said"].flatten(1, 2), steps)
    gate, mapped = by_step(b["said"][..., :size], steps), by_step(b["said"][..., size:], steps)  # (B, K, S)
    kept, active, after = v["kept"], v["active"], v["after"]
    passed = weight.new_empty(plan.batch, plan.config.num_units, size)
    heard = passed.transpose(0, 1)

    def step(t: int) -> None:
        torch.addmm(bias, messages[t], weight, out=said[t])
        torch.mul(gate[t].sigmoid_(), mapped[t].tanh_(), out=passed)
        torch.where(active[t], heard.add_(kept[t]), kept[t], out=after[t])

    return step


def take_up_gated_backward(plan: Plan, inputs: Inputs, b: Buffers, d: Buffers) -> Step:
    """Prepare: write the gradients of gate and map, `said` (T, B, K, 2S), and of the messages (B, K, C*M)."""
    weight, d_h = given(inputs.from_message).mT, d["h"].transpose(0, 1).unsqueeze(2)
    gate, mapped = split(b["said"], 2, -1).unbind(3)
    slope = torch.stack([mapped * gate * (1.0 - gate), gate * (1.0 - mapped * mapped)], dim=3)
    slopes = slope.mul_(b["active"][..., None, None]).unbind()  # (B, K, 2, S)
    d_said, d_rows = split(d["said"], 2, -1).unbind(), d["said"].flatten(1, 2).unbind()
    d_messages = d["messages"].flatten(0, 1)

    def step(t: int) -> None:
        torch.mul(d_h, slopes[t], out=d_said[t])
        torch.mm(d_rows[t], weight, out=d_messages)

    return step
