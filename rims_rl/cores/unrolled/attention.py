"""Input attention and selection (Goyal et al. 2021, sections 2.1 and 2.2), each step beside its backward step.

Heads come first, (H, B, K, ...), so that a head is one batched product over the sequences; the null row, where there is
one, is row 0 of the slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rims_rl.cores.attention import TINY
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

# ---------------------------------------------------------------- scores: queries meet keys


def score(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    """Prepare: write the scaled products of queries and keys, `scores` (H, B, K, rows)."""
    columns = [
        head.transpose(-1, -2).unbind() for head in _scaled_keys(plan, given(inputs.keys))
    ]  # [H][T] (B, D, rows)
    queries = [by_step(head.transpose(1, 2), plan.steps) for head in _queries(plan, b).unbind(-2)]  # [H][T] (B, K, D)
    scores = b["scores"].unbind()

    def step(t: int) -> None:
        for query, column, out in zip(queries, columns, scores, strict=True):
            torch.bmm(query[t], column[t], out=out)

    return step


def score_backward(plan: Plan, inputs: Inputs, d: Buffers) -> Step:
    """Prepare: write the queries' gradient behind the gates', `products` (T, B, K, G + H*D), from `scores`."""
    keys = [head[:, :, -plan.slots :].unbind() for head in _scaled_keys(plan, given(inputs.keys))]  # [H][T] (B, N, D)
    d_scores = [head.unbind() for head in d["scores"].unbind(1)]  # [H][T] (B, K, N)
    d_queries = split(d["products"][..., plan.gate_size :], plan.config.heads, -1).unbind(-2)
    out = [head.unbind() for head in d_queries]  # [H][T] (B, K, D)
    room = torch.empty_like(out[0][0], memory_format=torch.contiguous_format)

    def one_slot(t: int) -> None:
        for head, key in enumerate(keys):
            torch.mul(d_scores[head][t], key[t], out=out[head][t])

    def several_slots(t: int) -> None:
        for head, key in enumerate(keys):
            out[head][t].copy_(torch.bmm(d_scores[head][t], key[t], out=room))

    return one_slot if plan.slots == 1 else several_slots


def keys_gradient(plan: Plan, b: Buffers, d: Buffers) -> Tensor:
    """Return the gradient of the keys (T, B, N, H, D), all steps at once."""
    scale = 1.0 / math.sqrt(plan.config.input_key_size)
    return torch.einsum("thbkn,tkbhd->tbnhd", d["scores"], _queries(plan, b)) * scale


def _scaled_keys(plan: Plan, keys: Tensor) -> Tensor:
    """Return the keys divided by sqrt(D), heads first, behind the null row's zeros: (H, T, B, rows, D)."""
    scaled = keys.permute(3, 0, 1, 2, 4) * (1.0 / math.sqrt(plan.config.input_key_size))
    return torch.nn.functional.pad(scaled, (0, 0, 1, 0)) if plan.by_null_row else scaled


def _queries(plan: Plan, b: Buffers) -> Tensor:
    """Return the queries (T, K, B, H, D), which stand behind the gates."""
    return split(b["products"][..., plan.gate_size :], plan.config.heads, -1)


# ---------------------------------------------------------------- competition: a softmax, and what is left unread


def share_with_null(plan: Plan, b: Buffers, v: Views) -> Step:
    """Prepare: softmax over {null, slots} per unit; `unread` (B, K) is the null row's share, heads averaged."""
    scores, unread, attention = b["scores"], b["unread"], by_step(b["attention"], plan.steps)
    null = by_step(b["attention"][..., 0], plan.steps)  # (H, B, K)

    def several_heads(t: int) -> None:
        torch.softmax(scores, -1, out=attention[t])
        torch.mean(null[t], 0, out=unread)

    if plan.config.heads > 1:
        return several_heads
    v["unread"] = by_step(b["attention"][:, 0, ..., 0], plan.steps)

    def one_head(t: int) -> None:
        torch.softmax(scores, -1, out=attention[t])

    return one_head


def share_with_null_backward(plan: Plan, b: Buffers, d: Buffers) -> Step:
    """Prepare: write the scores' gradient from the attention's; the null row's own attention has none."""
    attention, d_scores = b["attention"][..., 1:].unbind(), d["scores"].unbind()
    d_attention, product = d["attention"], torch.empty_like(d["attention"])
    total = torch.empty_like(d_attention[..., :1])

    def step(t: int) -> None:
        softmax_backward(attention[t], d_attention, -1, product, total, d_scores[t])

    return step


def share_between_units(plan: Plan, b: Buffers, v: Views) -> Step:
    """Prepare: softmax over the units, cut at the first loser's share, renormalised (the authors' code)."""
    winners, scores, unread = plan.config.active_units, b["scores"], v["unread"][0]
    cuts = winners < plan.config.num_units
    shares, attention = by_step(b["shares"], plan.steps), by_step(b["attention"], plan.steps)
    total = torch.empty_like(scores[:, :, :1])
    best = torch.empty_like(scores[:, :, : winners + 1])
    order = torch.empty_like(best, dtype=torch.long)
    first_loser = best[:, :, -1:]

    def step(t: int) -> None:
        torch.softmax(scores, 2, out=shares[t])
        if cuts:
            torch.topk(shares[t], winners + 1, dim=2, out=(best, order))
            torch.sub(shares[t], first_loser, out=attention[t]).sub_(TINY).clamp_(min=0.0)
            attention[t].div_(torch.sum(attention[t], 2, keepdim=True, out=total).add_(TINY))
        else:
            attention[t].copy_(shares[t])
        torch.mean(attention[t], (0, 3), out=unread).neg_().add_(1.0)

    return step


def share_between_units_backward(plan: Plan, b: Buffers, d: Buffers) -> Step:
    """Prepare: write the scores' gradient: through the renormalisation, the cut and the softmax."""
    shares, attention, d_scores = b["shares"].unbind(), b["attention"].unbind(), d["scores"].unbind()
    d_shares, product = d["attention"], torch.empty_like(d["attention"])
    total = torch.empty_like(d_shares[:, :, :1])
    cuts = plan.config.active_units < plan.config.num_units
    slope, first_loser = _cut_slopes(plan, b["shares"]) if cuts else ((), ())

    def step(t: int) -> None:
        if cuts:
            torch.mul(d_shares, attention[t], out=product)
            d_shares.sub_(torch.sum(product, 2, keepdim=True, out=total)).mul_(slope[t])
            d_shares.scatter_add_(2, first_loser[t], torch.sum(d_shares, 2, keepdim=True, out=total).neg_())
        softmax_backward(shares[t], d_shares, 2, product, total, d_scores[t])

    return step


def _cut_slopes(plan: Plan, shares: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return by step 1 / sum where nothing was cut, else 0, (H, B, K, N), and who lost first (H, B, 1, N)."""
    best = torch.topk(shares, plan.config.active_units + 1, dim=3)
    above = shares - best.values[..., -1:, :] - TINY
    total = above.clamp(min=0.0).sum(3, keepdim=True) + TINY
    return ((above >= 0.0) / total).unbind(), best.indices[..., -1:, :].unbind()


# ---------------------------------------------------------------- selection


def select(plan: Plan, b: Buffers, v: Views) -> Step:
    """Prepare: mark the units that left least `unread` in `active` (T, B, K); ties go to the lower index."""
    active, unread = b["active"].zero_().unbind(), v["unread"]
    ordered = (torch.empty_like(b["unread"]), torch.empty_like(b["unread"], dtype=torch.long))
    winners = ordered[1][:, : plan.config.active_units]

    def step(t: int) -> None:
        torch.sort(unread[t], dim=1, stable=True, out=ordered)
        active[t].scatter_(1, winners, True)

    return step


# ---------------------------------------------------------------- reading: the cell's product with what was attended


def read_all(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    """Prepare: without input attention, every unit reads the whole input: `incoming` (K, B, G) = V W + bias."""
    products, bias, incoming = units_first(inputs.values[0]).unbind(), inputs.bias, b["incoming"]

    def step(t: int) -> None:
        torch.add(products[t], bias, out=incoming)

    return step


def read_slot(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    """Prepare: of a single slot, every unit reads its share: `incoming` (K, B, G) = p (V W) + bias."""
    bias, incoming = inputs.bias, b["incoming"]
    products = [units_first(head).unbind() for head in inputs.values.unbind()]  # [H][T] (K, B, G)
    shares = [by_step(units_first(head), plan.steps) for head in b["attention"][..., -1:].unbind(1)]  # [H][T] (K, B, 1)

    def step(t: int) -> None:
        torch.addcmul(bias, shares[0][t], products[0][t], out=incoming)
        for share, product in zip(shares[1:], products[1:], strict=True):
            incoming.addcmul_(share[t], product[t])

    return step


def read_slot_backward(plan: Plan, inputs: Inputs, d: Buffers) -> Step:
    """Prepare: write the attention's gradient, the dot product of the input gates' gradient and V W."""
    d_incoming = d["incoming"].flatten(1, 2).unsqueeze(2).unbind()  # (B*K, 1, G)
    products = [head.flatten(1, 2).unsqueeze(3).unbind() for head in inputs.values.unbind()]  # [H][T] (B*K, G, 1)
    d_attention = d["attention"].flatten(1, 2).unsqueeze(2).unbind()  # [H] (B*K, 1, 1)

    def step(t: int) -> None:
        for product, out in zip(products, d_attention, strict=True):
            torch.bmm(d_incoming[t], product[t], out=out)

    return step


def read_slots(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    """Prepare: of several slots, every unit reads a mixture: `incoming` (K, B, G) = (sum of a_n V_n) W + bias."""
    bias, incoming, weight = inputs.bias, b["incoming"], given(inputs.weight_ih)
    values = [head.unbind() for head in inputs.values.unbind(3)]  # [H][T] (B, N, E)
    shares = [by_step(head, plan.steps) for head in b["attention"][..., -plan.slots :].unbind(1)]  # [H][T] (B, K, N)
    attended = by_step(units_first(b["attended"]), plan.steps)  # (K, B, H*E)
    by_head = split(b["attended"], plan.config.heads, -1).unbind(3)
    parts = [by_step(head, plan.steps) for head in by_head]  # [H][T] (B, K, E)

    def step(t: int) -> None:
        for share, value, part in zip(shares, values, parts, strict=True):
            torch.bmm(share[t], value[t], out=part[t])
        torch.baddbmm(bias, attended[t], weight, out=incoming)

    return step


def read_slots_backward(plan: Plan, inputs: Inputs, d: Buffers) -> Step:
    """Prepare: write the gradients of the mixtures, `attended` (T, K, B, H*E), and of the attention (H, B, K, N)."""
    weight = given(inputs.weight_ih).transpose(1, 2)
    d_incoming, d_attended = units_first(d["incoming"]).unbind(), d["attended"].unbind()
    by_head = split(units_first(d["attended"]), plan.config.heads, -1).unbind(3)
    parts = [head.unbind() for head in by_head]  # [H][T] (B, K, E)
    values = [head.transpose(2, 3).unbind() for head in inputs.values.unbind(3)]  # [H][T] (B, E, N)
    d_attention = d["attention"].unbind()

    def step(t: int) -> None:
        torch.bmm(d_incoming[t], weight, out=d_attended[t])
        for part, value, out in zip(parts, values, d_attention, strict=True):
            torch.bmm(part[t], value[t], out=out)

    return step


def values_gradient(plan: Plan, b: Buffers, d: Buffers) -> Tensor:
    """Return the gradient of the values in their own shape, all steps at once."""
    if not plan.config.input_attention:
        return d["incoming"].unsqueeze(0)
    shares = b["attention"][..., -plan.slots :]  # (T, H, B, K, N)
    if plan.slots == 1:
        return shares.transpose(0, 1) * d["incoming"]
    d_parts = split(d["attended"], plan.config.heads, -1)  # (T, K, B, H, E)
    return torch.einsum("thbkn,tkbhe->tbnhe", shares, d_parts)
