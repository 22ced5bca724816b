"""The agent's partial view in one pass over its cells: MiniGrid's own codes, without its copies and rotations.

Axis legend: V the view's side; a view is indexed [column, row], the agent in the middle of the last row.
"""

from __future__ import annotations

import numpy as np
from minigrid.core.constants import DIR_TO_VEC, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Wall, WorldObj
from numpy.typing import NDArray

_EMPTY = (OBJECT_TO_IDX["empty"], 0, 0)
_UNSEEN = (OBJECT_TO_IDX["unseen"], 0, 0)
_OUTSIDE = Wall()
_VECTORS = [(int(dx), int(dy)) for dx, dy in DIR_TO_VEC]


def view_codes(
    grid: Grid, position: tuple[int, int], direction: int, carrying: WorldObj | None, size: int, sees_all: bool = False
) -> NDArray[np.uint8]:
    """Return type, colour and state of what the agent sees, (V, V, 3).

    Walls and closed doors hide what is behind, unless it `sees_all`.
    """
    rows = _cells(grid, position, direction, size)
    visible = [[True] * size] * size if sees_all else _visible(rows, size)
    codes = np.empty((size, size, 3), np.uint8)
    for row, (cells, seen) in enumerate(zip(rows, visible, strict=True)):
        for column, cell in enumerate(cells):
            if not seen[column]:
                codes[column, row] = _UNSEEN
            else:
                codes[column, row] = _EMPTY if cell is None else cell.encode()
    codes[size // 2, size - 1] = _EMPTY if carrying is None else carrying.encode()  # in the agent's own cell
    return codes


def _cells(grid: Grid, position: tuple[int, int], direction: int, size: int) -> list[list[WorldObj | None]]:
    """Return the cells in view, row by row, the farthest row first."""
    (x, y), (dx, dy), half = position, _VECTORS[direction], size // 2
    rows = []
    for ahead in range(size - 1, -1, -1):
        cells = []
        for aside in range(-half, half + 1):
            at_x, at_y = x + dx * ahead - dy * aside, y + dy * ahead + dx * aside
            inside = 0 <= at_x < grid.width and 0 <= at_y < grid.height
            cells.append(grid.grid[at_y * grid.width + at_x] if inside else _OUTSIDE)
        rows.append(cells)
    return rows


def _visible(rows: list[list[WorldObj | None]], size: int) -> list[list[bool]]:
    """Return which cells are lit: light spreads from the agent sideways and ahead, and stops at what is opaque."""
    clear = [[cell is None or cell.see_behind() for cell in cells] for cells in rows]
    lit = [[False] * size for _ in range(size)]
    lit[size - 1][size // 2] = True
    for row in range(size - 1, -1, -1):
        for order, step in ((range(size - 1), 1), (range(size - 1, 0, -1), -1)):
            for column in order:
                if lit[row][column] and clear[row][column]:
                    lit[row][column + step] = True
                    if row:
                        lit[row - 1][column] = lit[row - 1][column + step] = True
    return lit
