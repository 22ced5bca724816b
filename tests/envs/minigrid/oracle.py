"""Knows the whole grid and walks the shortest way: proves that a task can be solved, and how fast."""

from __future__ import annotations

from collections import deque

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)
_VECTORS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def walk(env, goal, *, onto=False):
    """Return the actions that bring the agent in front of `goal` (x, y), or onto it; doors on the way are opened."""
    start = (*map(int, env.agent_pos), int(env.agent_dir), frozenset())
    border, seen = deque([(start, [])]), {start}
    while border:
        (x, y, direction, opened), actions = border.popleft()
        dx, dy = _VECTORS[direction]
        ahead = (x + dx, y + dy)
        if ((x, y) if onto else ahead) == goal:
            return actions
        cell = env.grid.get(*ahead)
        steps = [(LEFT, (x, y, (direction - 1) % 4, opened)), (RIGHT, (x, y, (direction + 1) % 4, opened))]
        if cell is None or cell.can_overlap() or ahead in opened:
            steps.append((FORWARD, (*ahead, direction, opened)))
        elif cell.type == "door":
            steps.append((TOGGLE, (x, y, direction, opened | {ahead})))
        for action, state in steps:
            if state not in seen:
                seen.add(state)
                border.append((state, [*actions, action]))
    raise AssertionError(f"{goal} can't be reached")


def find(env, kind):
    """Return the places (x, y) of all objects of a type, or of a kind such as "red ball"."""
    return [
        (x, y)
        for x in range(env.width)
        for y in range(env.height)
        if (cell := env.grid.get(x, y)) and kind in (cell.type, f"{cell.color} {cell.type}")
    ]


def play(env, actions):
    """Step through the actions and return what each of them gave."""
    return [env.step(action) for action in actions]
