"""Variations of Breakout."""

from __future__ import annotations

from rims_rl.envs.variants.variation import Change, Console, Variation, write

# Addresses as public annotations of the game's RAM have them, checked by poking; the ball waits at y 0.
_BALL_X, _BALL_Y, _PADDLE_AND_BALL = 99, 101, 62
_ROWS = range(64, 70)
_PERIOD = 10  # frames between two pushes of `level` pixels
# Only where a push can put the ball into no wall, brick or paddle.
_X_RANGE, _ABOVE_PADDLE = range(57, 200), range(1, 188)
_Y_RANGES = {1: range(90, 166), -1: range(90, 181)}

_COLOURS = {"black": 0, "white": 12, "red": 48, "blue": 113, "green": 200}


def _sideways(direction: int) -> Change:
    """Return the change that pushes a flying ball sideways."""

    def change(console: Console, level: int) -> None:
        pushed = console[_BALL_X] + direction * level
        if console.frame % _PERIOD == 0 and pushed in _X_RANGE and console[_BALL_Y] in _ABOVE_PADDLE:
            console[_BALL_X] = pushed

    return change


def _vertical(direction: int) -> Change:
    """Return the change that pushes a ball between bricks and paddle down (1) or up (-1)."""

    def change(console: Console, level: int) -> None:
        pushed = console[_BALL_Y] + direction * level
        if console.frame % _PERIOD == 0 and pushed in _Y_RANGES[direction]:
            console[_BALL_Y] = pushed

    return change


VARIATIONS = (
    Variation("right_drift", "The ball drifts right.", ("the horizontal drift",), _sideways(1), default_level=2),
    Variation("left_drift", "The ball drifts left.", ("the horizontal drift",), _sideways(-1), default_level=2),
    Variation("gravity", "The ball is pulled down.", ("gravity",), _vertical(1), default_level=2),
    Variation("inverse_gravity", "The ball is pushed up.", ("gravity",), _vertical(-1), default_level=2),
    *(
        Variation(
            f"color_player_and_ball_{name}",
            f"Paddle and ball are {name}.",
            ("the colour of paddle and ball",),
            write({_PADDLE_AND_BALL: colour}),
        )
        for name, colour in _COLOURS.items()
    ),
    *(
        Variation(
            f"color_all_blocks_{name}",
            f"All bricks are {name}.",
            ("the colour of the bricks",),
            write(dict.fromkeys(_ROWS, colour)),
        )
        for name, colour in _COLOURS.items()
    ),
)
