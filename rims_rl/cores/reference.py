"""The slow RIM: Goyal et al. 2021 as a loop, one equation a line, against which the fast RIM is tested.

Sequences, steps, units, heads and slots are visited one at a time, in the paper's order; nothing is batched, stacked or
computed ahead. The parameters are the fast core's own, so that values and gradients compare. Sections are the paper's.

One sequence, one step: x the input slots (N, I); for unit k the state h_k (S,), c_k (S,), and what it reads A_k (E,).
Where the paper has W it multiplies from the right: a row vector of states or inputs times a matrix.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softmax

from rims_rl.cores.rim import RIM


class Unit(NamedTuple):
    """The memory of one unit of one sequence."""

    h: Tensor
    """Hidden state (S,)."""
    c: Tensor | None
    """Cell state (S,) of an LSTM unit, None for a GRU unit."""


def reference_rim(
    core: RIM, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run `core` over a sequence as the paper writes it: slow, differentiable, for comparison only.

    Args:
        core: the RIM whose configuration and parameters are used.
        inputs: (T, B, I), or (T, B, N, I) for N slots.
        state: (B, F), the flat state before the first step.
        episode_starts: (T, B) of bool; where set, that sequence starts that step from its initial state.

    Returns:
        The outputs (T, B, K*S) and the flat state after the last step (B, F).
    """
    slots = inputs if inputs.dim() == 4 else inputs.unsqueeze(2)
    outputs, states = [], []
    for b in range(inputs.shape[1]):
        units = _units_of(core, state[b])
        seen = []
        for t in range(inputs.shape[0]):
            if episode_starts is not None and bool(episode_starts[t, b]):
                units = _units_of(core, core.initial_state(1)[0])
            units = _step(core, slots[t, b], units)
            seen.append(torch.cat([unit.h for unit in units]))  # the output is all units' states (appendix C.3)
        outputs.append(torch.stack(seen))
        states.append(_flat_state(units))
    return torch.stack(outputs, dim=1), torch.stack(states)


def _units_of(core: RIM, state: Tensor) -> list[Unit]:
    """Cut the flat state of one sequence (F,) into its units: all h first, then, for LSTM units, all c."""
    parts = torch.split(state, core.config.unit_size)
    k_total = core.config.num_units
    return [Unit(parts[k], parts[k_total + k] if core.config.cell == "lstm" else None) for k in range(k_total)]


def _flat_state(units: list[Unit]) -> Tensor:
    return torch.cat([unit.h for unit in units] + [unit.c for unit in units if unit.c is not None])


def _step(core: RIM, x: Tensor, units: list[Unit]) -> list[Unit]:
    """Take one step of one sequence, (N, I) and the units before it -> the units after it (section 2)."""
    k_total = range(core.config.num_units)
    attention, unread = _input_attention(core, x, units)  # 2.2, the weights of A_k
    active = _select(unread, core.config.active_units)  # 2.2, S_t
    read = [_attended_input(core, x, attention[k]) for k in k_total]  # 2.2, A_k
    candidates = [_dynamics(core, k, read[k], units[k]) for k in k_total]  # 2.3, h~_k
    shown = [_shown(core, units[k], candidates[k], k in active) for k in k_total]
    after = []
    for k in k_total:
        if k not in active:
            after.append(units[k])  # 2.3: h_{t+1,k} = h_{t,k}, and c likewise
        elif core.config.communication:
            after.append(Unit(candidates[k].h + _message(core, k, shown), candidates[k].c))  # 2.4, residual
        else:
            after.append(candidates[k])
    return after


# ---------------------------------------------------------------- 2.2 input attention and selection


def _input_attention(core: RIM, x: Tensor, units: list[Unit]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Return each unit's attention on the slots, per head (N,), and what it left unread, averaged over the heads.

    What is left unread, by which units are selected, is the attention on the null row; where units compete for the
    slots instead, it is one minus the mean share that a unit won.
    """
    config = core.config
    heads, k_total = range(config.heads), range(config.num_units)
    if not config.input_attention:  # ablation: every unit reads the mean of the slots
        return [[x.new_full((len(x),), 1.0 / len(x))] for _ in k_total], [x.new_zeros(()) for _ in k_total]
    scores = [[_input_scores(core, k, head, x, units[k].h) for head in heads] for k in k_total]
    if config.competition == "units":
        attention = _compete_for_slots(scores, config.active_units)
        unread = [1.0 - torch.stack(attention[k]).mean() for k in k_total]
        return attention, unread
    rows = [[softmax(torch.cat([x.new_zeros(1), scores[k][head]]), dim=0) for head in heads] for k in k_total]
    unread = [torch.stack([rows[k][head][0] for head in heads]).mean() for k in k_total]
    return [[rows[k][head][1:] for head in heads] for k in k_total], unread


def _input_scores(core: RIM, k: int, head: int, x: Tensor, h: Tensor) -> Tensor:
    """Return (h_k W^q_k)(x W^e)^T / sqrt(d_e) for one head, (N,); the null row's key is 0 and so is its score."""
    d_e = core.config.input_key_size
    block = slice(head * d_e, (head + 1) * d_e)
    w_query = core.from_state[k, :, core.gate_size :][:, block]  # W^q_k, behind the recurrent weights
    w_key = core.key[:, block]  # W^e, shared by the units
    query = h @ w_query
    return torch.stack([query @ (slot @ w_key) / math.sqrt(d_e) for slot in x])


def _compete_for_slots(scores: list[list[Tensor]], k_active: int) -> list[list[Tensor]]:
    """Share out every slot among the units by a sparse softmax over the units (the authors' Atari code)."""
    shares: list[list[list[Tensor]]] = [[[] for _ in unit] for unit in scores]  # [unit][head][slot]
    for head in range(len(scores[0])):
        for slot in range(len(scores[0][0])):
            weights = softmax(torch.stack([unit[head][slot] for unit in scores]), dim=0)
            weights = _sparse(weights, k_active)
            for k in range(len(scores)):
                shares[k][head].append(weights[k])
    return [[torch.stack(shares_of_head) for shares_of_head in unit] for unit in shares]


def _sparse(weights: Tensor, k_active: int) -> Tensor:
    """Keep the weights (K,) above the (k_A + 1)-th, less it, and renormalise (Ke et al. 2018)."""
    if k_active >= len(weights):
        return weights
    threshold = weights.sort(descending=True).values[k_active] + 1e-7
    kept = (weights - threshold).clamp(min=0.0)
    return kept / (kept.sum() + 1e-7)


def _select(unread: list[Tensor], k_active: int) -> set[int]:
    """Return the k_A units that left least unread; the sort is stable, so ties go to the lower index."""
    order = sorted(range(len(unread)), key=lambda k: unread[k].item())
    return set(order[:k_active])


def _attended_input(core: RIM, x: Tensor, attention: list[Tensor]) -> Tensor:
    """Return A_k = the heads' attention times (x W^v), concatenated, (E,); the null row's value is 0."""
    d_v = core.config.value_size // len(attention)
    read = []
    for head, weights in enumerate(attention):
        w_value = core.value[:, head * d_v : (head + 1) * d_v]  # W^v, shared by the units
        read.append(sum((weights[n] * (x[n] @ w_value) for n in range(len(x))), x.new_zeros(d_v)))
    return torch.cat(read)


# ---------------------------------------------------------------- 2.3 independent dynamics


def _dynamics(core: RIM, k: int, a: Tensor, unit: Unit) -> Unit:
    """Return D_k(h_k, A_k): the unit's state if it were active."""
    size = core.config.unit_size
    from_input = torch.split(a @ core.weight_ih[k] + core.bias[k, 0], size)
    from_hidden = torch.split(unit.h @ core.from_state[k, :, : core.gate_size], size)
    if unit.c is not None:
        return _lstm(from_input, from_hidden, unit.c)
    assert core.bias_hn is not None
    return _gru(from_input, from_hidden, unit.h, core.bias_hn[k, 0])


def _gru(from_input: tuple[Tensor, ...], from_hidden: tuple[Tensor, ...], h: Tensor, bias_hn: Tensor) -> Unit:
    reset = torch.sigmoid(from_input[0] + from_hidden[0])
    update = torch.sigmoid(from_input[1] + from_hidden[1])
    new = torch.tanh(from_input[2] + reset * (from_hidden[2] + bias_hn))
    return Unit((1.0 - update) * new + update * h, None)


def _lstm(from_input: tuple[Tensor, ...], from_hidden: tuple[Tensor, ...], c: Tensor) -> Unit:
    take = torch.sigmoid(from_input[0] + from_hidden[0])
    keep = torch.sigmoid(from_input[1] + from_hidden[1])
    new = torch.tanh(from_input[2] + from_hidden[2])
    show = torch.sigmoid(from_input[3] + from_hidden[3])
    c_next = keep * c + take * new
    return Unit(show * torch.tanh(c_next), c_next)


# ---------------------------------------------------------------- 2.4 communication


def _shown(core: RIM, unit: Unit, candidate: Unit, active: bool) -> Tensor:
    """Return what a unit shows to the others (S,)."""
    if active:
        return candidate.h
    if core.config.inactive_show == "candidate":
        return candidate.h.detach()  # the authors' code blocks the gradient into inactive units' candidates
    return unit.h


def _message(core: RIM, k: int, shown: list[Tensor]) -> Tensor:
    """Return what unit k reads from all units (S,): softmax(Q_k K^T / sqrt(d)) V per head, then the output map."""
    config = core.config
    d_k, d_v = config.communication_key_size, config.communication_value_size
    heads = []
    for head in range(config.communication_heads):
        columns = head * d_k, config.message_key_size + head * d_k, 2 * config.message_key_size + head * d_v
        query = shown[k] @ core.to_message[k, :, columns[0] : columns[0] + d_k]  # W~q_k h~_k
        keys = [h @ core.to_message[j, :, columns[1] : columns[1] + d_k] for j, h in enumerate(shown)]  # W~e_j h~_j
        values = [h @ core.to_message[j, :, columns[2] : columns[2] + d_v] for j, h in enumerate(shown)]  # W~v_j h~_j
        weights = softmax(torch.stack([query @ key for key in keys]) / math.sqrt(d_k), dim=0)
        heads.append(sum((weights[j] * values[j] for j in range(len(shown))), query.new_zeros(d_v)))
    message = torch.cat(heads)
    if config.gated_communication:  # the authors' code: maps shared by the units
        return torch.sigmoid(core.message_gate(message)) * torch.tanh(core.message_out(message))
    said = message @ core.from_message[k]
    return torch.tanh(said) if config.bounded_messages else said  # bounded: ours; plain: the paper's
