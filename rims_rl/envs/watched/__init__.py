"""Environments that are watched: a copy that raises, dies or hangs says so, and may be replaced.

`WatchedVecEnv` runs each copy in a process of its own, `TellingDummyVecEnv` all of them in this one.
"""

from rims_rl.envs.watched.in_process import TellingDummyVecEnv
from rims_rl.envs.watched.patience import Patience, asked_patience
from rims_rl.envs.watched.vec_env import WatchedVecEnv

__all__ = ["Patience", "TellingDummyVecEnv", "WatchedVecEnv", "asked_patience"]
