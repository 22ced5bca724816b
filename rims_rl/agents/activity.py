"""What a RIM's units did during a rollout, as a few numbers for the log.

Axes: T time, B batch, K units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def activity_statistics(found: Mapping[str, Tensor]) -> dict[str, float]:
    """Return numbers that sum up a rollout's diagnostics; empty when `found` is.

    `active_unit_k` is the fraction of steps in which unit k was active; `use_entropy` the entropy, in nats, of how use
    is spread over the units, and `use_evenness` the same over its maximum. `null_attention` is the mean attention on
    the null row, `null_active` and `null_inactive` the same over active and inactive units. `comm_unit_i_j` is how much
    unit i reads from unit j when it is active, and `comm_entropy` the mean entropy, in nats, of what a unit reads.

    Args:
        found: `active` (T, B, K) of bool, `null_attention` (T, B, K), `communication` (T, B, K, K), row = reading unit;
            any may be missing.
    """
    numbers: dict[str, float] = {}
    active = found.get("active")
    if active is not None:
        numbers |= _use(active)
    if "null_attention" in found:
        numbers |= _null_attention(found["null_attention"], active)
    if "communication" in found:
        numbers |= _communication(found["communication"], active)
    return numbers


def _use(active: Tensor) -> dict[str, float]:
    """Return how often each unit was active, and how evenly use is spread, from (T, B, K)."""
    often = active.double().mean(dim=(0, 1))  # (K,)
    numbers = {f"active_unit_{unit}": value for unit, value in enumerate(often.tolist())}
    if often.sum() > 0 and len(often) > 1:
        numbers["use_entropy"] = _entropy(often / often.sum()).item()
        numbers["use_evenness"] = numbers["use_entropy"] / math.log(len(often))
    return numbers


def _null_attention(null: Tensor, active: Tensor | None) -> dict[str, float]:
    """Return the mean attention on the null row, of all, of active and of inactive units, from (T, B, K)."""
    numbers = {"null_attention": null.double().mean().item()}
    for name, chosen in (("null_active", active), ("null_inactive", None if active is None else ~active)):
        if chosen is not None and bool(chosen.any()):
            numbers[name] = null[chosen].double().mean().item()
    return numbers


def _communication(attention: Tensor, active: Tensor | None) -> dict[str, float]:
    """Return who reads from whom, over the steps in which the reader was active, from (T, B, K, K)."""
    units = attention.shape[-1]
    rows = attention.double().reshape(-1, units, units)
    reads = rows.new_ones(rows.shape[:2], dtype=torch.bool) if active is None else active.reshape(-1, units)
    weight = reads.to(rows).unsqueeze(-1)  # (T*B, K, 1)
    if not bool(reads.any()):
        return {}
    mean = (rows * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)  # (K, K)
    numbers = {f"comm_unit_{i}_{j}": mean[i, j].item() for i in range(units) for j in range(units)}
    return {"comm_entropy": _entropy(rows)[reads].mean().item(), **numbers}


def _entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy over the last axis, in nats."""
    terms: Tensor = torch.special.xlogy(probabilities, probabilities)
    return -terms.sum(dim=-1)
