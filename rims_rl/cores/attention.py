"""The attentions of Recurrent Independent Mechanisms as free functions (Goyal et al. 2021, section 2).

Axes: K units, B batch, N input slots, H heads, D key size, E value size. Units come first; the modules that hold the
projections are elsewhere, here is only what happens between queries, keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-7


def attend_with_null(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over {null, slots} for every unit and head, where the null key is zero and so scores 0.

    Args:
        scores: (K, B, H, N) scaled products of queries and slot keys.

    Returns:
        The attention on the slots (K, B, H, N), and on the null row averaged over heads (K, B) (section 2.2).
    """
    if scores.shape[-1] == 1:  # softmax over {0, s} is the logistic function
        slots = torch.sigmoid(scores)
        return slots, torch.sigmoid(-scores.detach()).mean(dim=(2, 3))
    padded = torch.cat([torch.zeros_like(scores[..., :1]), scores], dim=-1)
    weights = torch.softmax(padded, dim=-1)
    return weights[..., 1:], weights[..., 0].detach().mean(dim=2)


def compete_between_units(scores: Tensor, active_units: int) -> tuple[Tensor, Tensor]:
    """Softmax over the units instead of a null row, kept for the best units alone (the authors' Atari code).

    The weight of the (active_units + 1)-th unit is subtracted, what falls below zero is cut, the rest renormalised, so
    that only `active_units` units receive anything. Where all scores tie, as at a zero state, nobody receives anything.
    For more than one slot, each slot is distributed over the units on its own.

    Args:
        scores: (K, B, H, N) scaled products of queries and slot keys.
        active_units: how many units may receive input.

    Returns:
        The attention on the slots (K, B, H, N), and what each unit failed to get, one minus its mean share (K, B),
        which stands where the null attention stands otherwise.
    """
    weights = torch.softmax(scores, dim=0)
    if active_units < weights.shape[0]:
        threshold = torch.topk(weights, active_units + 1, dim=0).values[-1:]
        weights = torch.clamp(weights - threshold - TINY, min=0.0)
        weights = weights / (weights.sum(dim=0, keepdim=True) + TINY)
    return weights, 1.0 - weights.detach().mean(dim=(2, 3))


def select_active(null_attention: Tensor, active_units: int) -> Tensor:
    """Mark the units with the least attention on the null row; ties go to the lower index; no gradient.

    Args:
        null_attention: (K, B).
        active_units: how many units are active at each step.

    Returns:
        (K, B) of bool with exactly `active_units` set for every batch entry.
    """
    units = null_attention.shape[0]
    if active_units >= units:
        return torch.ones_like(null_attention, dtype=torch.bool)
    order = torch.argsort(null_attention.detach(), dim=0, stable=True)
    return torch.zeros_like(null_attention, dtype=torch.bool).scatter_(0, order[:active_units], True)


def communicate(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Let every unit read from all units by scaled dot-product attention (section 2.4).

    Args:
        queries: (K, B, H*D), already scaled by 1/sqrt(D).
        keys: (K, B, H*D).
        values: (K, B, H*E).
        heads: H.

    Returns:
        The messages (K, B, H*E) and the attention of unit over unit (B, H, K, K).
    """
    units, batch, _ = queries.shape
    q = queries.view(units, batch, heads, -1).permute(1, 2, 0, 3)  # (B, H, K, D)
    k = keys.view(units, batch, heads, -1).permute(1, 2, 3, 0)  # (B, H, D, K)
    v = values.view(units, batch, heads, -1).permute(1, 2, 0, 3)  # (B, H, K, E)
    weights = torch.softmax(q @ k, dim=-1)
    messages = (weights @ v).permute(2, 0, 1, 3).reshape(units, batch, -1)
    return messages, weights
