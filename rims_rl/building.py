"""From settings to environments, policies and models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.agents import RIMPPO, CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy
from rims_rl.config import TrainConfig, parse_schedule
from rims_rl.envs import make_env
from rims_rl.envs.watched import asked_patience
from rims_rl.errors import ConfigError

if TYPE_CHECKING:
    from rims_rl.agents import RIMPolicy


_GIVEN_ELSEWHERE = frozenset({"name", "n_envs", "seed", "protocol", "route", "frame_stack", "training"})


def build_env(config: TrainConfig) -> VecEnv:
    """Return the training environments; raises ConfigError before any is built when the settings don't fit."""
    return make_env(
        config.env, config.n_envs, config.seed,
        protocol=config.protocol, route=config.route, frame_stack=config.frame_stack, training=True,
        **env_settings(config),
    )  # fmt: skip


def env_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the run's own settings of its environment, its distractors among them.

    Raises:
        ConfigError: when something is given in two places, or without what it belongs to.
    """
    settings = dict(config.env_kwargs)
    for name in _GIVEN_ELSEWHERE & settings.keys():
        raise ConfigError(f"env_kwargs can't hold {name}, which is a setting of its own or none")
    for name in ("distractor", "distractor_split"):
        value = getattr(config, name)
        if value is not None and name in settings:
            raise ConfigError(f"{name} is given twice: {value!r} and {settings[name]!r} in env_kwargs")
        settings |= {} if value is None else {name: value}
    asked_patience(config.subprocess, config.step_timeout, config.env_restarts)
    if config.subprocess:
        settings |= {"subprocess": True, "step_timeout": config.step_timeout, "env_restarts": config.env_restarts}
    check_split_has_distractor(settings)
    return settings


def check_split_has_distractor(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError when settings of an environment name a split, but nothing that could be of it."""
    if settings.get("distractor_split") is not None and settings.get("distractor") is None:
        raise ConfigError(f"distractor_split {settings['distractor_split']} needs a distractor, for example balls:0.5")


def build_model(config: TrainConfig, env: VecEnv) -> RIMPPO:
    """Return an untrained model for the environments."""
    return RIMPPO(
        policy_class_for(env.observation_space),
        env,
        learning_rate=schedule("learning_rate", config.learning_rate),
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=schedule("clip_range", config.clip_range),
        clip_range_vf=config.clip_range_vf,
        normalize_advantage=config.normalize_advantage,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        bptt_length=config.bptt_length,
        reset_memory_on_life_loss=config.reset_memory_on_life_loss,
        most_skipped=config.most_skipped,
        halve_on_oom=config.halve_on_oom,
        policy_kwargs=policy_kwargs(config),
        seed=config.seed,
        device=config.device,
    )


def policy_class_for(observation_space: spaces.Space[Any]) -> type[RIMPolicy]:
    """Return the policy class that serves a kind of observation: images, dictionaries, or vectors."""
    if isinstance(observation_space, spaces.Dict):
        return MultiInputRIMPolicy
    return CnnRIMPolicy if is_image_space(observation_space) else MlpRIMPolicy


def policy_kwargs(config: TrainConfig) -> dict[str, Any]:
    """Return what the policy's constructor takes beside the spaces."""
    return {
        "core": config.core,
        "core_kwargs": dict(config.core_kwargs),
        "core_parameters": config.core_parameters,
        "encoder": config.encoder,
        "encoder_kwargs": dict(config.encoder_kwargs),
        "encoder_precision": config.encoder_precision,
    }


def schedule(name: str, value: str | float) -> float | LinearSchedule:
    """Return a number, or for lin_NUMBER SB3's own linear schedule to 0, which `model.zip` can hold."""
    start, falls = parse_schedule(name, value)
    return LinearSchedule(start, 0.0, 1.0) if falls else start
