"""Variations of Seaquest."""

from __future__ import annotations

from rims_rl.envs.variants.variation import Console, Variation

# Addresses as public annotations of the game's RAM have them, checked by poking. Four lanes, the lowest first.
_ENEMY_X, _ENEMY_KIND, _ENEMY_COLOUR = range(30, 34), range(36, 40), range(44, 48)
_SURFACE_ENEMY, _PLAYER_Y, _OXYGEN = 60, 97, 102
_SURFACE_Y, _GROUND_Y, _FULL = 13, 105, 64
_SINKS_EVERY = 5  # frames
_RIGHT_EDGE = 160  # a lane's enemy beyond it is out of sight


def _unlimited_oxygen(console: Console, level: int) -> None:
    """Keep the tank full under water; at the surface the game fills it itself."""
    if console[_PLAYER_Y] > _SURFACE_Y:
        console[_OXYGEN] = _FULL


def _gravity(console: Console, level: int) -> None:
    """Let the submarine sink by a pixel every five frames, from below the surface down to the ground."""
    # HackAtari's gravity also acts at the surface, where it interrupts the filling of the tank.
    if _SURFACE_Y < console[_PLAYER_Y] < _GROUND_Y and console.frame % _SINKS_EVERY == 0:
        console[_PLAYER_Y] += 1


def _disable_enemies(console: Console, level: int) -> None:
    """Take the enemies out of all lanes and off the surface."""
    for address in (*_ENEMY_KIND, _SURFACE_ENEMY):
        console[address] = 0


def _random_colours(console: Console, level: int) -> None:
    """Give each lane's enemies a new random colour whenever they have left the picture."""
    for lane, (x, colour) in enumerate(zip(_ENEMY_X, _ENEMY_COLOUR, strict=True)):
        name = f"colour_{lane}"
        outside = console[x] >= _RIGHT_EDGE
        if name not in console.memory or (outside and not console.memory[f"outside_{lane}"]):
            console.memory[name] = int(console.random.integers(256))
        console.memory[f"outside_{lane}"] = int(outside)
        console[colour] = console.memory[name]


VARIATIONS = (
    Variation("unlimited_oxygen", "The tank stays full under water.", ("the oxygen",), _unlimited_oxygen),
    Variation("gravity", "The submarine sinks.", ("gravity",), _gravity),
    Variation("disable_enemies", "There are no enemies.", ("the enemies",), _disable_enemies),
    Variation(
        "random_color_enemies",
        "Enemies have a new random colour whenever they cross the picture.",
        ("the enemies' colour",),
        _random_colours,
    ),
)
