"""The losses of proximal policy optimisation (Schulman et al. 2017) as free functions.

Axes: T time, B sequences; losses take tensors of any equal shape.
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantage(
    rewards: Tensor, values: Tensor, last_values: Tensor, ends: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Return the generalised advantage estimates (Schulman et al. 2016, equation 16), (T, B).

    A_t = delta_t + gamma lambda (1 - end_t) A_{t+1}  with  delta_t = r_t + gamma (1 - end_t) V_{t+1} - V_t

    Args:
        rewards: (T, B), the bootstrap of a time limit already added.
        values: (T, B), V_t.
        last_values: (B,), the value after the last step.
        ends: (T, B) of bool, whether step t ended the return.
        gamma: discount per step.
        gae_lambda: lambda.
    """
    going_on = 1.0 - ends.to(values.dtype)
    advantages = torch.empty_like(values)
    advantage, next_values = torch.zeros_like(last_values), last_values
    for t in reversed(range(rewards.shape[0])):
        delta = rewards[t] + gamma * going_on[t] * next_values - values[t]
        advantage = delta + gamma * gae_lambda * going_on[t] * advantage
        advantages[t] = advantage
        next_values = values[t]
    return advantages


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Return the clipped surrogate loss, a scalar to minimise (Schulman et al. 2017, equation 7)."""
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.min(ratio * advantages, clipped * advantages).mean()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None) -> Tensor:
    """Return the mean squared error of the values, whose change is clipped when `clip_range` is given (as SB3's)."""
    if clip_range is not None:
        values = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return torch.nn.functional.mse_loss(values, returns)


def normalised(advantages: Tensor) -> Tensor:
    """Return the advantages with mean 0 and standard deviation 1; a single one is returned as it is."""
    if advantages.numel() < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Return the low-variance estimate of KL(old || new), mean((r - 1) - log r), a scalar (Schulman's k3)."""
    log_ratio = log_prob - old_log_prob
    return ((torch.exp(log_ratio) - 1.0) - log_ratio).mean()
