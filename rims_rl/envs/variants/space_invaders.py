"""Variations of Space Invaders."""

from __future__ import annotations

from rims_rl.envs.variants.variation import Change, Console, Variation, write

# Found by poking; a shield is nine rows of bits, a player's shot stands at y 246 while there is none.
_SHIELDS = {"left": range(43, 52), "middle": range(52, 61), "right": range(61, 70)}
_SHIELDS_X, _PLAYER_X, _SHOT_Y, _SHOT_X = 27, 28, 85, 87
_NO_SHOT = 246
_FIELD_X, _MIDDLE = (35, 120), 81

_RELOCATIONS = {
    "relocate_shields_slight_left": 35,
    "relocate_shields_off_by_one": 44,
    "relocate_shields_off_by_three": 46,
    "relocate_shields_right": 53,
}
_CURVATURES = {"weak": 0.002, "medium": 0.004, "strong": 0.008}  # pixels aside per squared pixel of height


def _shield(name: str) -> str:
    """Return how a variation's subjects call one shield."""
    return f"the {name} shield"


def _no_shields(*names: str) -> Change:
    """Return the change that empties these shields."""
    return write({address: 0 for name in names for address in _SHIELDS[name]})


def _curve(curvature: float) -> Change:
    """Return the change that bends the player's shots along a parabola, away from the field's middle."""

    def change(console: Console, level: int) -> None:
        if console[_SHOT_Y] == _NO_SHOT:
            console.memory.pop("shot_x", None)
            console.memory.pop("shot_y", None)
            return
        start_x = console.memory.setdefault("shot_x", console[_SHOT_X])
        start_y = console.memory.setdefault("shot_y", console[_SHOT_Y])
        aside = round(curvature * (start_y - console[_SHOT_Y]) ** 2)
        low, high = _FIELD_X
        console[_SHOT_X] = min(max(start_x + (aside if start_x >= _MIDDLE else -aside), low), high)

    return change


def _steer(console: Console, level: int) -> None:
    """Keep a flying shot above the player."""
    if console[_SHOT_Y] != _NO_SHOT:
        console[_SHOT_X] = console[_PLAYER_X]


_PATH = ("the shots' path",)

VARIATIONS = (
    *(
        Variation(f"disable_shield_{name}", f"The {name} shield is gone.", (_shield(name),), _no_shields(name))
        for name in _SHIELDS
    ),
    Variation("disable_shields", "All shields are gone.", tuple(map(_shield, _SHIELDS)), _no_shields(*_SHIELDS)),
    *(
        Variation(
            name,
            f"The shields stand {abs(x - 43)} pixels further {'right' if x > 43 else 'left'}.",
            ("the shields' place",),
            write({_SHIELDS_X: x}),
        )
        for name, x in _RELOCATIONS.items()
    ),
    *(
        Variation(f"curved_shots_{name}", f"The player's shots bend outwards ({name}).", _PATH, _curve(by))
        for name, by in _CURVATURES.items()
    ),
    Variation("controlable_missile", "The player's shots follow the player.", _PATH, _steer),
)
