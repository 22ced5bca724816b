"""Variations of Freeway."""

from __future__ import annotations

from rims_rl.envs.variants.variation import Change, Console, Variation, write

# Found by poking; cars count from the lowest lane, the lower five drive right and the upper five left.
_WAITS = range(33, 43)  # frames until each car's next move
_LOOKS = range(77, 87)
_LOWER_X, _UPPER_X = range(108, 113), range(113, 118)

_STANDSTILL = 100
_PAUSE = 60  # frames, one second
_PAUSE_CHANCE = 0.02  # per frame: each of the ten cars pauses about every eight seconds
_BLINK_PERIOD = 30

_COLOURS = {"black": 0, "white": 15, "red": 66, "green": 210, "blue": 145}
_ROAD = 6


def _stand(lower_x: int, upper_x: int) -> Change:
    """Return the change that makes all cars stand at these columns."""
    return write(
        dict.fromkeys(_WAITS, _STANDSTILL) | dict.fromkeys(_LOWER_X, lower_x) | dict.fromkeys(_UPPER_X, upper_x)
    )


def _stop_random_car(console: Console, level: int) -> None:
    """Now and then make one car, drawn at random, wait for a second."""
    if console.random.random() < _PAUSE_CHANCE:
        console[int(console.random.choice(_WAITS))] = _PAUSE


def _strobe(console: Console, level: int) -> None:
    """Give every car a random colour in every frame."""
    for address in _LOOKS:
        console[address] = int(console.random.integers(256))


def _blink(console: Console, level: int) -> None:
    """Give every car one of the named colours, a new one twice a second."""
    if console.frame % _BLINK_PERIOD == 0:
        for address in _LOOKS:
            console[address] = int(console.random.choice(list(_COLOURS.values())))


_MOVES, _COLOUR = ("the cars' moves",), ("the cars' colour",)

VARIATIONS = (
    Variation("stop_all_cars", "All cars stand at the road's edges.", _MOVES, _stand(15, 150)),
    Variation("stop_all_cars_tunnel", "All cars stand left and right of the chicken's lane.", _MOVES, _stand(35, 55)),
    Variation("stop_random_car", "Now and then a car stands still for a second.", _MOVES, _stop_random_car),
    *(
        Variation(f"all_{name}_cars", f"All cars are {name}.", _COLOUR, write(dict.fromkeys(_LOOKS, colour)))
        for name, colour in _COLOURS.items()
    ),
    Variation("invisible_mode", "All cars have the road's colour.", _COLOUR, write(dict.fromkeys(_LOOKS, _ROAD))),
    Variation("strobo_mode", "Every car has a random colour in every frame.", _COLOUR, _strobe),
    Variation("blinking_mode", "Every car changes its colour twice a second.", _COLOUR, _blink),
)
