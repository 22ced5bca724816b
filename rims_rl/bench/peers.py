"""The peers as their users run them: SB3's Atari environments, its PPO, and sb3-contrib's RecurrentPPO."""

from __future__ import annotations

from typing import Any

import ale_py
import gymnasium as gym
from ale_py import ALEInterface, LoggerMode
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack

from rims_rl.envs.games import resolve_game

FRAME_STACK = 4
LSTM_SIZE = 512


def bare_game(game: str, render_mode: str = "rgb_array") -> gym.Env[Any, Any]:
    """Return Gymnasium's environment of a game (its rom name) without frame skipping and sticky actions.

    It is what `<Game>NoFrameskip-v4` is, for the games that have no such id, too.
    """
    ALEInterface.setLoggerMode(LoggerMode.Error)
    gym.register_envs(ale_py)
    entries = gym.registry.items()
    name = next(key for key, spec in entries if key.startswith("ALE/") and spec.kwargs.get("game") == game)
    return gym.make(name, render_mode=render_mode, frameskip=1, repeat_action_probability=0.0)


def sb3_env(game: str, n_envs: int, seed: int, subprocess: bool = False) -> VecEnv:
    """Return SB3's own Atari environments: `make_atari_env` with its defaults, and `VecFrameStack` of 4."""
    kind = SubprocVecEnv if subprocess else DummyVecEnv
    env = make_atari_env(bare_game, n_envs, seed, env_kwargs={"game": resolve_game(game)}, vec_env_cls=kind)
    return VecFrameStack(env, FRAME_STACK)


def recurrent_ppo(env: VecEnv, **settings: Any) -> OnPolicyAlgorithm:
    """Return sb3-contrib's RecurrentPPO with an LSTM of 512 that actor and critic share."""
    lstm = {"lstm_hidden_size": LSTM_SIZE, "shared_lstm": True, "enable_critic_lstm": False}
    return RecurrentPPO("CnnLstmPolicy", env, policy_kwargs=lstm, **settings)


def ppo(env: VecEnv, **settings: Any) -> OnPolicyAlgorithm:
    """Return SB3's PPO, which has no memory."""
    return PPO("CnnPolicy", env, **settings)
