"""Environments as SB3 `VecEnv`s: Atari by two routes, CartPole without velocities, any Gymnasium id."""

from rims_rl.envs.atari import make_atari_env
from rims_rl.envs.distractors import Distractor, DistractorWrapper, VecDistractor
from rims_rl.envs.games import game_names, is_atari, resolve_game
from rims_rl.envs.make import make_env
from rims_rl.envs.protocols import PROTOCOLS, AtariProtocol
from rims_rl.envs.registration import register_environments

register_environments()

__all__ = [
    "PROTOCOLS",
    "AtariProtocol",
    "Distractor",
    "DistractorWrapper",
    "VecDistractor",
    "game_names",
    "is_atari",
    "make_atari_env",
    "make_env",
    "register_environments",
    "resolve_game",
]
