"""Variations of Pong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.variants.variation import Change, Console, Variation

# Addresses found by playing the game and by poking: the ball stands at y 0 while nobody has served.
_ENEMY_Y, _BALL_X, _BALL_Y, _BALL_GOES = 21, 49, 54, 58
_TO_THE_PLAYER = 255
_PERIODS = {1: 10, 2: 8, 3: 6, 4: 4, 5: 3}  # frames between two steps of a pixel

_FIELD, _ENEMY_COLUMNS = slice(34, 194), slice(16, 20)
_ENEMY_COLOUR, _BACKGROUND = (213, 130, 74), (144, 72, 17)


def _lazy_enemy(console: Console, level: int) -> None:
    """Hold the enemy where it was when the ball turned away from it."""
    if console[_BALL_Y] and console[_BALL_GOES] == _TO_THE_PLAYER:
        console[_ENEMY_Y] = console.memory.setdefault("enemy_y", console[_ENEMY_Y])
    else:
        console.memory.pop("enemy_y", None)


def _hide_enemy(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the frame (H, W, 3) with the enemy's paddle in the field's colour."""
    # The paddle's height, the one number in RAM that shrinks it, also decides whether the ball bounces off it.
    hidden = frame.copy()
    strip = hidden[_FIELD, _ENEMY_COLUMNS]
    strip[(strip == _ENEMY_COLOUR).all(-1)] = _BACKGROUND
    return hidden


def _drift(address: int, step: int) -> Change:
    """Return the change that moves a flying ball by `step` pixels every few frames."""

    def change(console: Console, level: int) -> None:
        if console[_BALL_Y] and console.frame % _PERIODS[level] == 0:
            console[address] += step

    return change


VARIATIONS = (
    Variation(
        "lazy_enemy", "The enemy stands still while the ball flies to the player.", ("the enemy's moves",), _lazy_enemy
    ),
    Variation("hidden_enemy", "The enemy plays on unseen.", ("the enemy's looks",), paint=_hide_enemy),
    Variation("up_drift", "The ball drifts up.", ("the vertical drift",), _drift(_BALL_Y, -1), default_level=3),
    Variation("down_drift", "The ball drifts down.", ("the vertical drift",), _drift(_BALL_Y, 1), default_level=3),
    Variation("left_drift", "The ball drifts left.", ("the horizontal drift",), _drift(_BALL_X, -1), default_level=3),
    Variation("right_drift", "The ball drifts right.", ("the horizontal drift",), _drift(_BALL_X, 1), default_level=3),
)
