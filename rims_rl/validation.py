"""Checks of a training run's settings that need no environment: what cannot work is said before anything is built."""

from __future__ import annotations

import os

from rims_rl.config import TrainConfig, parse_schedule
from rims_rl.errors import ConfigError, shortened

MOST_THREADS = max(256, os.cpu_count() or 1)
"""Threads of PyTorch's; where the system refuses one of thousands, its library ends the process."""

_AT_LEAST_ONE = (
    "total_timesteps", "n_envs", "n_steps", "batch_size", "n_epochs", "frame_stack", "eval_episodes", "log_interval",
    "keep_checkpoints",
)  # fmt: skip
_AT_LEAST_ZERO = (
    "seed", "save_freq", "eval_freq", "video_freq", "torch_threads", "ent_coef", "vf_coef", "most_skipped",
    "env_restarts",
)  # fmt: skip
_AT_MOST = {
    "n_envs": 65_536, "n_steps": 2**24, "batch_size": 2**31, "n_epochs": 100_000, "torch_threads": MOST_THREADS,
    "eval_episodes": 100_000,
}  # fmt: skip
_POSITIVE_IF_GIVEN = ("max_grad_norm", "clip_range_vf", "target_kl", "core_parameters", "step_timeout")
_NO_DEVICE = (
    RuntimeError, AssertionError, ImportError, AttributeError, LookupError, TypeError, ValueError, OverflowError,
)  # fmt: skip
"""What PyTorch raises for devices that it was not built for, and for names that are none."""
_LARGEST = 1e38  # that float32 holds
_MOST_SEED = 2**31 - 1


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise ConfigError for a seed that some generator does not take."""
    if seed < 0:
        raise ConfigError(f"{name} must be at least 0, got {shortened(seed)}")
    if seed > _MOST_SEED:
        raise ConfigError(f"{name} must be at most {_MOST_SEED}, got {shortened(seed)}")


def check_settings(config: TrainConfig) -> None:
    """Raise ConfigError, in one line that says which setting and why, for the first one that cannot work."""
    check_ranges(config)
    from rims_rl.agents.checks import check_sizes

    bptt_length = config.n_steps if config.bptt_length is None else config.bptt_length
    check_sizes(config.n_envs, config.n_steps, config.batch_size, bptt_length, config.n_epochs)
    _check_networks(config)
    check_device(config.device)


def check_ranges(config: TrainConfig) -> None:
    """Raise ConfigError for a number out of its range, or a schedule that can't be read."""
    for name in _AT_LEAST_ONE:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1, got {getattr(config, name)}")
    for name in _AT_LEAST_ZERO:
        if not 0 <= getattr(config, name) < _LARGEST:
            raise ConfigError(f"{name} must be at least 0, got {getattr(config, name)}")
    for name, most in _AT_MOST.items():
        if getattr(config, name) > most:
            raise ConfigError(f"{name} must be at most {most:,}, got {shortened(getattr(config, name))}")
    for name in _POSITIVE_IF_GIVEN:
        value = getattr(config, name)
        if value is not None and not 0 < value < _LARGEST:
            raise ConfigError(f"{name} must be positive and finite, got {value}")
    check_seed(config.seed)
    for name in ("gamma", "gae_lambda"):
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], got {getattr(config, name)}")
    parse_schedule("learning_rate", config.learning_rate)
    parse_schedule("clip_range", config.clip_range)


def _check_networks(config: TrainConfig) -> None:
    """Check the core's and the encoder's names and settings."""
    from rims_rl.agents.extractors import check_encoder_settings, encoder_class
    from rims_rl.cores import core_config, matched_setting

    core_config(config.core, config.core_kwargs)
    if config.core_parameters is not None:
        matched_setting(config.core, config.core_kwargs)
    if config.encoder is not None:
        check_encoder_settings(encoder_class(config.encoder), config.encoder_kwargs)


def check_device(name: str) -> None:
    """Raise ConfigError for a device that PyTorch doesn't know, or that is not there."""
    import torch

    if name == "auto":
        return
    try:
        torch.zeros(1, device=name).item()
    except _NO_DEVICE as error:
        reason = " ".join(str(error).split(". ")[0].split())
        raise ConfigError(f"device {shortened(name)} cannot be used ({reason[:120]}); use auto, cpu or cuda") from None
