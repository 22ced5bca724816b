"""The growing mazes of the public comparison of RIMs with LSTMs on MiniGrid: trained small, tested larger.

The ids and sizes are in `rims_rl.envs.registration.MAZES`. What that comparison calls MultiRoom-N4-S5 was MiniGrid's id
MultiRoom-N4-S5-v0, which builds six rooms and not four; here the two are two ids, N4-S5 with four and N6-S5 with six.
"""

from __future__ import annotations

from typing import Any

from minigrid.envs.doorkey import DoorKeyEnv
from minigrid.envs.empty import EmptyEnv
from minigrid.envs.multiroom import MultiRoomEnv

from rims_rl.envs.minigrid.flat import LARGEST, FlatMiniGridEnv
from rims_rl.envs.protocols import check_count
from rims_rl.errors import ConfigError


class EmptyMazeEnv(FlatMiniGridEnv, EmptyEnv):
    """An empty room of `size` cells a side, walls included; the agent starts in the corner opposite to the goal."""

    def __init__(self, size: int = 5, render_mode: str | None = None) -> None:
        check_count("size", size, 4, LARGEST)
        super().__init__(size=size, render_mode=render_mode)


class DoorKeyMazeEnv(FlatMiniGridEnv, DoorKeyEnv):
    """Two rooms of together `size` cells a side: fetch the key, unlock the door, go to the goal."""

    def __init__(self, size: int = 5, render_mode: str | None = None) -> None:
        check_count("size", size, 5, LARGEST)
        super().__init__(size=size, render_mode=render_mode)


class MultiRoomMazeEnv(FlatMiniGridEnv, MultiRoomEnv):
    """A row of `rooms` rooms of at most `room_size` cells a side behind closed doors, the goal in the last one."""

    def __init__(self, rooms: int = 2, room_size: int = 4, render_mode: str | None = None) -> None:
        check_count("rooms", rooms, 1)
        check_count("room_size", room_size, 4)
        if rooms > 6 or room_size > 10:
            raise ConfigError(f"at most 6 rooms of at most 10 cells fit into the grid, got {rooms} of {room_size}")
        sizes: dict[str, Any] = {"minNumRooms": rooms, "maxNumRooms": rooms, "maxRoomSize": room_size}
        super().__init__(**sizes, render_mode=render_mode)
