"""MiniGrid tasks: picking an object among novel distractors, and mazes that grow beyond those of training.

Needs the extra: pip install "rims-rl[minigrid]". The ids are in `rims_rl.envs.registration`.
"""

from __future__ import annotations

import contextlib
import io

try:
    with contextlib.redirect_stdout(io.StringIO()):  # pygame greets on import, which is no part of our output
        import minigrid  # noqa: F401
except ModuleNotFoundError as problem:
    raise ModuleNotFoundError(
        f'{problem.name} is not installed: pip install "rims-rl[minigrid]"', name=problem.name
    ) from problem

from rims_rl.envs.minigrid.mazes import DoorKeyMazeEnv, EmptyMazeEnv, MultiRoomMazeEnv
from rims_rl.envs.minigrid.pick_object import KNOWN, NOVEL, TARGETS, PickObjectEnv

__all__ = ["KNOWN", "NOVEL", "TARGETS", "DoorKeyMazeEnv", "EmptyMazeEnv", "MultiRoomMazeEnv", "PickObjectEnv"]
