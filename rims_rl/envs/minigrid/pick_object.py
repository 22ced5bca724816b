"""Picking an object among distractors of which some kinds are never seen in training (paper 4.2 and D.6).

The paper names BabyAI's object picking with "novel distractors" and gives neither ids nor numbers, so these are ours:
one room, one object of the wanted kind, distractors around it. A kind is a type with a colour. The wanted kinds, the
known and the novel distractors share no kind, while each of the six colours occurs among the known and among the novel
ones: only the combination is new, so looking at colour alone, or at type alone, tells the wanted object from neither.

The goal is told in every observation, as in BabyAI, here one-hot instead of by words. By default it is always the red
ball: what is measured is then whether new objects disturb the agent, not whether it follows instructions; pass several
`targets` to ask for both. Picking up anything ends the episode, a wrong object without reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Box, Key, WorldObj
from numpy.typing import NDArray

from rims_rl.envs.minigrid.flat import LARGEST, FlatMiniGridEnv
from rims_rl.envs.protocols import check_count
from rims_rl.envs.snapshots import entry, text
from rims_rl.errors import ConfigError, UnknownNameError, shortened

TYPES = ("key", "ball", "box")
TARGETS = ("red ball", "green key", "blue box", "yellow ball")
KNOWN = ("red key", "purple key", "yellow key", "blue ball", "grey ball", "green box", "purple box")
NOVEL = ("blue key", "grey key", "green ball", "purple ball", "red box", "yellow box", "grey box")
DISTRACTORS = {"known": KNOWN, "novel": NOVEL}

_NEIGHBOURS = ((1, 0), (0, 1), (-1, 0), (0, -1))


class SealedBox(Box):
    """A box that can't be opened: toggling MiniGrid's own makes it vanish, and with it perhaps the wanted object."""

    def toggle(self, env: Any, pos: tuple[int, int]) -> bool:
        """Do nothing and tell so."""
        return False


_CLASSES: dict[str, Callable[[str], WorldObj]] = {"key": Key, "ball": Ball, "box": SealedBox}


class PickObjectEnv(FlatMiniGridEnv):
    """One room with one wanted object and distractors; observation (993,) float32 of zeros and ones.

    The last nine numbers tell the goal: its type one-hot (key, ball, box) and its colour one-hot, as MiniGrid numbers
    colours. The wanted object can always be reached without touching another one. `step`'s info holds "picked", the
    kind of the object that was picked up, in the step that does it.

    Args:
        size: side of the square room, walls included, at least 5.
        distractors: "known", the kinds for training, or "novel".
        min_distractors: least number of distractors; their kinds may repeat.
        max_distractors: greatest number, drawn uniformly; at most a quarter of the room's cells.
        targets: wanted kinds, of `TARGETS`; one is drawn per episode.
        max_steps: steps after which an episode is truncated; None for 5 * size^2.
        render_mode: None or "rgb_array".

    Raises:
        ConfigError: one line on the first setting that cannot work; UnknownNameError for a name that is not known.
    """

    goal_size = len(TYPES) + len(COLOR_TO_IDX)

    def __init__(
        self,
        size: int = 8,
        distractors: str = "known",
        min_distractors: int = 2,
        max_distractors: int = 4,
        targets: Sequence[str] = TARGETS[:1],
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_count("size", size, 5, LARGEST)
        _check_choices(distractors, targets)
        _check_numbers(min_distractors, max_distractors, (size - 2) ** 2 // 4)
        max_steps = 5 * size**2 if max_steps is None else max_steps
        check_count("max_steps", max_steps, 1)
        self.target = ""
        """The kind that is wanted in this episode, such as "red ball"."""
        self.distractor_kinds = DISTRACTORS[distractors]
        """The kinds that distractors are drawn from."""
        self._targets = tuple(targets)
        self._numbers = (min_distractors, max_distractors)
        missions = MissionSpace(mission_func=_mission, ordered_placeholders=[list(TARGETS)])
        super().__init__(mission_space=missions, grid_size=size, max_steps=max_steps, render_mode=render_mode)

    def step(  # type: ignore[override]
        self, action: Any
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Act; whatever is picked up ends the episode, the wanted kind with the reward."""
        observation, reward, terminated, truncated, info = super().step(action)
        carried = cast("WorldObj | None", self.carrying)
        if carried is not None:
            picked = f"{carried.color} {carried.type}"
            reward = float(self._reward()) if picked == self.target else 0.0
            terminated, info = True, {**info, "picked": picked}
        return observation, reward, terminated, truncated, info

    def snapshot(self) -> dict[str, Any]:
        """Return all that decides how the episode goes on."""
        return super().snapshot() | {"target": self.target}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned, here or in a task made alike: the episode goes on bit for bit.

        Raises:
            ConfigError: when the snapshot is of another task, or damaged.
        """
        target = text(snapshot, "target")
        if target not in TARGETS and (target or entry(snapshot, "agent")):  # there is none before the first reset
            raise ConfigError(f"this snapshot is damaged: its target is {shortened(target)}")
        super().restore(snapshot)
        self.target = target

    def _gen_grid(self, width: int, height: int) -> None:
        """Draw the goal, the objects and the agent's place until the wanted object can be reached."""
        reached = False
        while not reached:
            self.grid = Grid(width, height)
            self.grid.wall_rect(0, 0, width, height)
            self.target = str(self._rand_elem(self._targets))
            wanted = self.place_obj(_make(self.target))
            for _ in range(self._rand_int(self._numbers[0], self._numbers[1] + 1)):
                self.place_obj(_make(str(self._rand_elem(self.distractor_kinds))))
            start = self.place_agent()  # type: ignore[no-untyped-call]
            reached = _can_reach(self.grid, start, wanted)
        self.mission = _mission(self.target)

    def _object(self, kind: int, colour: int, state: int) -> WorldObj | None:
        """Return the object of these codes; boxes are sealed."""
        found = super()._object(kind, colour, state)
        return SealedBox(found.color) if isinstance(found, Box) else found

    def _goal(self) -> NDArray[np.float32]:
        """Return the wanted type and colour, one-hot (9)."""
        colour, _, kind = self.target.partition(" ")
        goal = np.zeros(self.goal_size, np.float32)
        goal[TYPES.index(kind)] = 1.0
        goal[len(TYPES) + COLOR_TO_IDX[colour]] = 1.0
        return goal


def _mission(target: str) -> str:
    """Return the mission's text."""
    return f"pick up the {target}"


def _make(kind: str) -> WorldObj:
    """Return an object of a kind such as "red ball"."""
    colour, _, name = kind.partition(" ")
    return _CLASSES[name](colour)


def _can_reach(grid: Grid, start: tuple[int, int], goal: tuple[int, int]) -> bool:
    """Tell whether an agent at `start` can step beside `goal` over free cells."""
    seen, border = {(int(start[0]), int(start[1]))}, [(int(start[0]), int(start[1]))]
    while border:
        x, y = border.pop()
        for dx, dy in _NEIGHBOURS:
            cell = (x + dx, y + dy)
            if cell == tuple(map(int, goal)):
                return True
            if cell not in seen and grid.get(*cell) is None:
                seen.add(cell)
                border.append(cell)
    return False


def _check_choices(distractors: str, targets: Sequence[str]) -> None:
    """Raise UnknownNameError or ConfigError for names that don't exist or targets that are no list of them."""
    if not isinstance(distractors, str) or distractors not in DISTRACTORS:
        raise UnknownNameError("set of distractors", str(distractors), DISTRACTORS)
    if isinstance(targets, str) or not isinstance(targets, Sequence) or not targets:
        raise ConfigError(f"targets must be a list of kinds such as {list(TARGETS[:1])}, got {shortened(targets)}")
    for target in targets:
        if target not in TARGETS:
            raise UnknownNameError("target", str(target), TARGETS)


def _check_numbers(least: int, most: int, limit: int) -> None:
    """Raise ConfigError unless 0 <= least <= most <= limit."""
    check_count("min_distractors", least, 0)
    check_count("max_distractors", most, 0)
    if not least <= most <= limit:
        raise ConfigError(
            f"min_distractors {least} and max_distractors {most} must be in order and at most {limit} in this room"
        )
