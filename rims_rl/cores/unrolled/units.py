"""The units' own dynamics (Goyal et al. 2021, section 2.3), each step beside its backward step.

What a backward step multiplies with does not depend on the gradient, so it is computed for all steps before the loop:
inside, the gradient of the kept state is only scaled. The mask of the active units is part of these factors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rims_rl.cores.unrolled.plan import Buffers, Inputs, Plan, Step, Views, by_step, split, units_first

Resets = list[bool]
"""For every step, whether sequences may start an episode there."""

# ---------------------------------------------------------------- the state before and after a step


def shared_views(plan: Plan, b: Buffers, resets: Resets) -> Views:
    """Return, by name and t, where several steps read and write; (K, B, S) where nothing else is said.

    `before` and `after` are the states, `cells_before` and `cells_after` those of LSTM units; `candidate` the state
    that a unit takes if it is active, `kept` the state before communication; `active` (K, B, 1) marks the active
    units; `unread` (B, K) is what they are selected by.
    """
    steps, speaks = plan.steps, plan.config.communication
    states = units_first(b["states"]).unbind()
    v: Views = {"before": _before(states, resets, b["fresh_states"]), "after": states[1:]}
    if plan.is_lstm:
        cells = by_step(units_first(b["cells"]), steps + 1)
        v |= {"cells_before": _before(cells, resets, b["fresh_cells"]), "cells_after": cells[1:]}
    shown = by_step(units_first(b["shown"]), steps) if speaks else v["after"]
    v["candidate"] = shown if speaks and plan.shows_candidate else [b["candidate"]] * steps
    v["kept"] = [b["kept"]] * steps if speaks and plan.shows_candidate else shown
    return v | {"active": units_first(b["active"]).unsqueeze(-1).unbind(), "unread": [b["unread"]] * steps}


def _before(views: Sequence[Tensor], resets: Resets, fresh: Tensor) -> list[Tensor]:
    return [fresh if reset else view for reset, view in zip(resets, views[: len(resets)], strict=True)]


def all_before(buffer: Tensor, starts: Tensor | None) -> Tensor:
    """Return the state (T, B, K, S) that every step started from, given the one before and after all steps."""
    return buffer[:-1] if starts is None else buffer[:-1].masked_fill(starts[..., None, None], 0.0)


def active_mask(b: Buffers) -> Tensor:
    """Return ones for active units and zeros for the others, (T, K, B, 1)."""
    return units_first(b["active"]).unsqueeze(-1).to(b["states"].dtype)


def forget(inputs: Inputs, b: Buffers, resets: Resets) -> Step:
    """Prepare: where an episode starts, the step starts from the initial state, zeros, and not from the last one."""
    starts, zero = _masks(inputs.starts), inputs.h.new_zeros(())
    names = ("states", "cells") if inputs.c is not None else ("states",)
    kinds = [(b[f"fresh_{name}"], by_step(units_first(b[name]), len(resets) + 1)) for name in names]

    def step(t: int) -> None:
        if resets[t]:
            for fresh, last in kinds:
                torch.where(starts[t], zero, last[t], out=fresh)

    return step


def _masks(starts: Tensor | None) -> Sequence[Tensor]:
    """Return the episode starts by step as masks (1, B, 1)."""
    return () if starts is None else starts[:, None, :, None].unbind()


# ---------------------------------------------------------------- what reads the state: gates and queries


def recur(plan: Plan, inputs: Inputs, b: Buffers, v: Views) -> Step:
    """Prepare: write the state's products, gates and queries, `products` (T, K, B, G + H*D)."""
    weight, before, products = inputs.from_state, v["before"], by_step(b["products"], plan.steps)

    def plain(t: int) -> None:
        torch.bmm(before[t], weight, out=products[t])

    if inputs.bias_hn is None:
        return plain
    size = plan.config.unit_size
    bias = weight.new_zeros(weight.shape[0], 1, weight.shape[2])
    bias[..., 2 * size : 3 * size] = inputs.bias_hn

    def with_bias(t: int) -> None:
        torch.baddbmm(bias, before[t], weight, out=products[t])

    return with_bias


def recur_backward(plan: Plan, inputs: Inputs, d_outputs: Tensor, d: Buffers, resets: Resets) -> Step:
    """Prepare: write the gradient of the state before the step, to which that of the output before it is added."""
    d_h, d_kept, weight = d["h"], d["kept"], inputs.from_state.transpose(1, 2)
    d_products, carry = units_first(d["products"]).unbind(), d["carry"].unbind()
    zero = d_h.new_zeros(())
    d_before = [zero, *units_first(d_outputs).unbind()]
    forgotten = [d[name] for name in ("h", "c") if name in d]
    starts = _masks(inputs.starts)

    def step(t: int) -> None:
        torch.addcmul(zero if resets[t] else d_before[t], d_kept, carry[t], out=d_h)
        d_h.baddbmm_(d_products[t], weight)
        if resets[t]:
            for gradient in forgotten:
                gradient.masked_fill_(starts[t], 0.0)
            d_h.add_(d_before[t])

    return step


# ---------------------------------------------------------------- GRU units; gates in the order r, z, n


def gru(plan: Plan, b: Buffers, v: Views) -> Step:
    """Prepare: write the candidate, the GRU's next state."""
    size, steps, products = plan.config.unit_size, plan.steps, b["products"]
    reset_update = by_step(products[..., : 2 * size], steps)
    reset, update = by_step(products[..., :size], steps), by_step(products[..., size : 2 * size], steps)
    recalled = by_step(products[..., 2 * size : 3 * size], steps)
    incoming, incoming_new = b["incoming"][..., : 2 * size], b["incoming"][..., 2 * size :]
    before, new, candidate = v["before"], by_step(b["new"], steps), v["candidate"]

    def step(t: int) -> None:
        reset_update[t].add_(incoming).sigmoid_()
        torch.addcmul(incoming_new, reset[t], recalled[t], out=new[t]).tanh_()
        torch.lerp(new[t], before[t], update[t], out=candidate[t])  # (1 - z) n + z h

    return step


def gru_backward(plan: Plan, inputs: Inputs, b: Buffers, d: Buffers) -> Step:
    """Prepare: write the gradients of the gates from that of the kept state."""
    size, d_kept = plan.config.unit_size, d["kept"].unsqueeze(2)
    r, z, recalled = split(b["products"][..., : 3 * size], 3, size).unbind(-2)
    n, active = b["new"], active_mask(b)
    opened = active * (1.0 - z)
    of_new = opened * (1.0 - n * n)
    of_update = opened * z * (units_first(all_before(b["states"], inputs.starts)) - n)
    of_reset = of_new * recalled * r * (1.0 - r)
    d["carry"] = 1.0 - opened  # z for active units, 1 for the others
    recurrent = torch.stack([of_reset, of_update, of_new * r], dim=3).unbind()  # (K, B, 3, S)
    incoming = torch.stack([of_reset, of_update, of_new], dim=3).unbind()
    d_recurrent = units_first(split(d["products"][..., : 3 * size], 3, size)).unbind()
    d_incoming = units_first(split(d["incoming"], 3, size)).unbind()

    def step(t: int) -> None:
        torch.mul(d_kept, recurrent[t], out=d_recurrent[t])
        torch.mul(d_kept, incoming[t], out=d_incoming[t])

    return step


# ---------------------------------------------------------------- LSTM units; gates in the order i, f, g, o


def lstm(plan: Plan, b: Buffers, v: Views) -> Step:
    """Prepare: write the candidate, the LSTM's next state, and the cells, of which inactive units keep theirs."""
    size, steps, incoming = plan.config.unit_size, plan.steps, b["incoming"]
    products = b["products"][..., : 4 * size]
    gates, take_keep = by_step(products, steps), by_step(products[..., : 2 * size], steps)
    take, keep, new, show = (by_step(gate, steps) for gate in split(products, 4, size).unbind(-2))
    before, after, active, candidate = v["cells_before"], v["cells_after"], v["active"], v["candidate"]
    squashed, cell = by_step(b["squashed"], steps), torch.empty_like(b["kept"])

    def step(t: int) -> None:
        gates[t].add_(incoming)
        take_keep[t].sigmoid_()
        new[t].tanh_()
        show[t].sigmoid_()
        torch.mul(keep[t], before[t], out=cell).addcmul_(take[t], new[t])
        torch.mul(show[t], torch.tanh(cell, out=squashed[t]), out=candidate[t])
        torch.where(active[t], cell, before[t], out=after[t])

    return step


def lstm_backward(plan: Plan, inputs: Inputs, b: Buffers, d: Buffers) -> Step:
    """Prepare: write the gradients of the gates and of the cells before the step from those of what was kept."""
    size, d_kept, d_c, d_cell = plan.config.unit_size, d["kept"], d["c"], torch.empty_like(d["c"])
    d_cell_by_gate = d_cell.unsqueeze(2)
    i, f, g, o = split(b["products"][..., : 4 * size], 4, size).unbind(-2)
    squashed, active = b["squashed"], active_mask(b)
    before = units_first(all_before(b["cells"], inputs.starts))
    d["carry"] = 1.0 - active
    carry = torch.lerp(torch.ones_like(f), f, active).unbind()  # f for active units, 1 for the others
    of_cell = (active * o * (1.0 - squashed * squashed)).unbind()
    of_show = (active * squashed * o * (1.0 - o)).unbind()
    of_rest = torch.stack([g * i * (1.0 - i), before * f * (1.0 - f), i * (1.0 - g * g)], dim=3)
    of_rests = of_rest.mul_(active.unsqueeze(-1)).unbind()  # (K, B, 3, S)
    gates = units_first(split(d["products"][..., : 4 * size], 4, size))  # (T, K, B, 4, S)
    d_rest, d_show = gates[..., :3, :].unbind(), gates[..., 3, :].unbind()

    def step(t: int) -> None:
        torch.addcmul(d_c, d_kept, of_cell[t], out=d_cell)
        torch.mul(d_cell_by_gate, of_rests[t], out=d_rest[t])
        torch.mul(d_kept, of_show[t], out=d_show[t])
        torch.mul(d_cell, carry[t], out=d_c)

    return step


# ---------------------------------------------------------------- who keeps what


def keep_inactive(v: Views) -> Step:
    """Prepare: active units take their candidate, the others keep their state exactly."""
    before, candidate, active, kept = v["before"], v["candidate"], v["active"], v["kept"]

    def step(t: int) -> None:
        torch.where(active[t], candidate[t], before[t], out=kept[t])

    return step
