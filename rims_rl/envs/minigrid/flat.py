"""What all our MiniGrid tasks share: flat one-hot observations and exact snapshots.

Axis legend: V = 7 the side of the agent's view, C = 20 the one-hot channels of a cell, W, H the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

from rims_rl.envs.minigrid.view import view_codes
from rims_rl.envs.protocols import action_number
from rims_rl.envs.random_state import dump_generator, load_generator
from rims_rl.envs.snapshots import array, entry, text, whole_number
from rims_rl.errors import ConfigError, shortened

DIRECTIONS = 4
LARGEST = 500
"""Cells along the side of a grid, at most: every one is an object."""
_CODES = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))  # 11 types, 6 colours, 3 states of doors
_CHANNELS = sum(_CODES)
_FIRST_CHANNELS = np.cumsum((0, *_CODES[:-1]))


class FlatMiniGridEnv(MiniGridEnv):
    """A MiniGrid task whose observation is one vector of zeros and ones, float32, as `MlpRIMPolicy` takes it.

    First the partial, egocentric view (V, V, 3) with every code one-hot, (V * V * C) numbers, column by column as
    MiniGrid orders it; then the direction, one-hot (4); then what `_goal()` returns, where a task tells its goal.
    Actions: left, right, forward, pick up, drop, toggle, done. The reward comes at success alone and is
    1 - 0.9 * steps / max_steps; an episode is truncated after max_steps.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own form
    goal_size = 0
    """Numbers at the observation's end that tell the goal."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._size = self.agent_view_size**2 * _CHANNELS + DIRECTIONS + self.goal_size
        self.observation_space = Box(0.0, 1.0, (self._size,), np.float32)

    def reset(  # type: ignore[override]  # MiniGrid's own type variable is bound to nothing
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Build a new grid from the random stream and return its first observation and an empty info."""
        observation, info = super().reset(seed=seed, options=options)
        return self._flatten(observation), info

    def step(  # type: ignore[override]
        self, action: Any
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Act as MiniGrid does; raises ConfigError for an action out of range."""
        chosen = action_number(action, len(self.actions), "task")
        observation, reward, terminated, truncated, info = super().step(chosen)
        return self._flatten(observation), float(reward), terminated, truncated, info

    def gen_obs(self) -> dict[str, Any]:
        """Return MiniGrid's own observation, made faster."""
        x, y = int(self.agent_pos[0]), int(self.agent_pos[1])
        image = view_codes(
            self.grid, (x, y), self.agent_dir, self.carrying, self.agent_view_size, self.see_through_walls
        )
        return {"image": image, "direction": self.agent_dir, "mission": self.mission}

    def snapshot(self) -> dict[str, Any]:
        """Return the grid's codes (W, H, 3), the agent, what it carries, and the random stream."""
        begun = self.agent_dir is not None
        return {
            "grid": self.grid.encode(),
            "agent": [int(self.agent_pos[0]), int(self.agent_pos[1]), int(self.agent_dir)] if begun else [],
            "carrying": list(self.carrying.encode()) if self.carrying else [],
            "step_count": self.step_count if begun else 0,
            "mission": self.mission,
            "np_random": dump_generator(self.np_random),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned, here or in a task made alike: the episode goes on bit for bit.

        Raises:
            ConfigError: when the snapshot is of a grid of another size, or damaged.
        """
        codes = array(snapshot, "grid", None, np.uint8)
        if codes.shape != (self.width, self.height, len(_CODES)):
            raise ConfigError(f"this snapshot is of a grid {codes.shape[:2]}, this task has {self.width, self.height}")
        x, y, direction = self._checked_agent(entry(snapshot, "agent"))
        carried = entry(snapshot, "carrying")
        carrying = self._decoded(carried) if carried else None
        grid = Grid(self.width, self.height)
        for column, row in np.ndindex(self.width, self.height):
            grid.set(column, row, self._decoded(codes[column, row].tolist()))
        # MiniGrid declares these without the None that they begin with.
        vars(self).update(grid=grid, agent_pos=None if x is None else (x, y), agent_dir=direction, carrying=carrying)
        self.step_count = whole_number(snapshot, "step_count", 0, self.max_steps)
        self.mission = text(snapshot, "mission")
        load_generator(self.np_random, text(snapshot, "np_random"))

    def _checked_agent(self, agent: Any) -> tuple[int | None, int | None, int | None]:
        """Return place and direction of a stored agent, Nones before its first episode, or raise ConfigError."""
        if agent == []:
            return None, None, None
        if not isinstance(agent, list) or len(agent) != 3:
            raise ConfigError(f"this snapshot is damaged: its agent is {shortened(agent)}, expected x, y and direction")
        named = dict(zip(("x", "y", "direction"), agent, strict=True))
        most = {"x": self.width - 1, "y": self.height - 1, "direction": DIRECTIONS - 1}
        x, y, direction = (whole_number(named, name, 0, most[name]) for name in named)
        return x, y, direction

    def _decoded(self, codes: Any) -> WorldObj | None:
        """Return the object of stored codes, or raise ConfigError where they are none."""
        try:
            return self._object(*codes)
        except (KeyError, TypeError, AssertionError):
            raise ConfigError(f"this snapshot is damaged: {shortened(codes)} is no object of MiniGrid's") from None

    def _object(self, kind: int, colour: int, state: int) -> WorldObj | None:
        """Return the object of these codes, None for an empty cell."""
        return WorldObj.decode(kind, colour, state)

    def _goal(self) -> NDArray[np.float32]:
        """Return what the observation tells of the goal (goal_size)."""
        return np.zeros(0, np.float32)

    def _flatten(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """Return MiniGrid's observation as one vector."""
        flat = np.zeros(self._size, np.float32)
        codes = observation["image"].reshape(-1, len(_CODES)) + _FIRST_CHANNELS  # (V * V, 3)
        cells = len(codes)
        flat[codes + _CHANNELS * np.arange(cells)[:, None]] = 1.0
        flat[cells * _CHANNELS + observation["direction"]] = 1.0
        flat[self._size - self.goal_size :] = self._goal()
        return flat
