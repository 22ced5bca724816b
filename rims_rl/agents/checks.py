"""Checks of RIMPPO's input: sizes, spaces, and numbers that must be finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from rims_rl.agents.policies import CnnRIMPolicy, RIMPolicy
from rims_rl.agents.spaces import check_action_space
from rims_rl.errors import ConfigError, NonFiniteError


def check_sizes(n_envs: int, n_steps: int, batch_size: int, bptt_length: int, n_epochs: int = 1) -> None:
    """Raise ConfigError, in one line that says which and why, when the sizes of an update do not fit."""
    sizes = {"n_envs": n_envs, "n_steps": n_steps, "batch_size": batch_size, "bptt_length": bptt_length}
    for name, size in {**sizes, "n_epochs": n_epochs}.items():
        if size < 1:
            raise ConfigError(f"{name} must be at least 1, got {size}")
    if n_steps % bptt_length:
        raise ConfigError(f"bptt_length={bptt_length} does not divide n_steps={n_steps}")
    if batch_size % bptt_length:
        raise ConfigError(f"batch_size={batch_size} is not a whole number of chunks of bptt_length={bptt_length} steps")
    if (n_envs * n_steps) % batch_size:
        raise ConfigError(f"batch_size={batch_size} does not divide n_envs x n_steps = {n_envs} x {n_steps}")


def check_policy_fits(policy: Any, env: Any, aliases: dict[str, type[BasePolicy]]) -> None:
    """Ask the policy whether it can serve the environment's spaces, before SB3 wraps or asserts anything."""
    cls = aliases.get(policy) if isinstance(policy, str) else policy
    spaces_known = hasattr(env, "observation_space") and hasattr(env, "action_space")
    if not (isinstance(cls, type) and issubclass(cls, RIMPolicy) and spaces_known):
        return
    if issubclass(cls, CnnRIMPolicy):  # whose images SB3 may still transpose
        check_action_space(env.action_space)
    else:
        cls.check_spaces(env.observation_space, env.action_space)


def check_finite_observation(obs: Any, env: int | None = None) -> None:
    """Raise NonFiniteError naming the entry and the environment when an observation is not finite.

    Args:
        obs: observations (B, ...), or, where `env` is given, the single one of that environment.
        env: the number of an environment.
    """
    parts = obs if isinstance(obs, dict) else {"observation": obs}
    for name, part in parts.items():
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            bad = int(np.argmax(~np.isfinite(part).reshape(len(part), -1).all(axis=1))) if env is None else env
            raise NonFiniteError(
                f"{name} of environment {bad} is not finite (NaN or infinity); training stops before it"
            )


def check_finite_rewards(rewards: np.ndarray) -> None:
    """Raise NonFiniteError naming the environment when a reward is not finite."""
    if not np.isfinite(rewards).all():
        bad = int(np.argmax(~np.isfinite(rewards)))
        raise NonFiniteError(f"the reward of environment {bad} is {rewards[bad]}; training stops before it")


def first_non_finite(loss: float, policy: nn.Module, norm: Tensor) -> str:
    """Return one line that names what was not finite: the loss, else the first parameter whose gradient is not."""
    if not np.isfinite(loss):
        return f"the loss is {loss}"
    for name, parameter in policy.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"the gradient of {name} is not finite"
    return f"the gradient's norm is {norm.item()}"
