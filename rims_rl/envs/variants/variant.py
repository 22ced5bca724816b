"""A variant of a game as data: ALE's mode and difficulty, and RAM variations, written as one text.

`mode:1+difficulty:2+lazy_enemy+up_drift:4` names the parts in any order; a number after a variation is
its level, 1 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from rims_rl.envs.emulator import load_emulator
from rims_rl.envs.games import resolve_game
from rims_rl.envs.gym_route import check_variant
from rims_rl.envs.variants import breakout, freeway, pong, seaquest, space_invaders
from rims_rl.envs.variants.variation import LEVELS, Variation
from rims_rl.errors import ConfigError, UnknownNameError, shortened

_VARIATIONS = {
    "breakout": breakout.VARIATIONS,
    "freeway": freeway.VARIATIONS,
    "pong": pong.VARIATIONS,
    "seaquest": seaquest.VARIATIONS,
    "space_invaders": space_invaders.VARIATIONS,
}
_SWITCHES = ("mode", "difficulty")
_MOST_DIGITS = 9


class GameVariants(NamedTuple):
    """What a game has to offer."""

    game: str
    """Its rom name."""
    modes: tuple[int, ...]
    """ALE's game modes."""
    difficulties: tuple[int, ...]
    """ALE's positions of the difficulty switches."""
    variations: dict[str, Variation]
    """RAM variations by name; empty for games without any."""


def list_variants(game: str) -> GameVariants:
    """Return all modes, difficulties and variations of a game in any spelling; raises UnknownNameError for no game."""
    return _offer(resolve_game(game))


@cache
def _offer(game: str) -> GameVariants:
    """Ask an emulator for the switches of a game by its rom name."""
    ale = load_emulator(game)
    modes, difficulties = sorted(ale.getAvailableModes()), sorted(ale.getAvailableDifficulties())
    return GameVariants(
        game, tuple(modes), tuple(difficulties), {item.name: item for item in _VARIATIONS.get(game, ())}
    )


@dataclass(frozen=True)
class Variant:
    """A checked variant of one game.

    Raises:
        ConfigError: for a mode or difficulty that the game lacks, a level that a variation does not take, or variations
            that contradict each other; UnknownNameError, with the nearest names, for an unknown game or variation.
    """

    game: str
    """The game, in any spelling; becomes its rom name."""
    mode: int | None = None
    """ALE's game mode; None for the game's own."""
    difficulty: int | None = None
    """ALE's difficulty; None for the game's own."""
    levels: tuple[tuple[str, int], ...] = ()
    """Names of RAM variations, each with its level, in the order in which they act; level 0 where there is none."""

    def __post_init__(self) -> None:
        """Check every part against what the game offers."""
        object.__setattr__(self, "game", resolve_game(self.game))
        if (self.mode, self.difficulty) != (None, None):
            check_variant(load_emulator(self.game), self.game, self.mode, self.difficulty)
        taken: dict[str, str] = {}
        for name, level in self.levels:
            variation = _find(self.game, name)
            _check_level(variation, level)
            for subject in variation.subjects:
                if subject in taken:
                    raise ConfigError(f"{taken[subject]!r} and {name!r} can't be combined: both set {subject}")
                taken[subject] = name

    @property
    def variations(self) -> tuple[tuple[Variation, int], ...]:
        """The variations themselves, each with its level."""
        return tuple((_find(self.game, name), level) for name, level in self.levels)

    @property
    def text(self) -> str:
        """What `parse_variant` makes this variant of; empty for the unmodified game."""
        switches = [f"{name}:{getattr(self, name)}" for name in _SWITCHES if getattr(self, name) is not None]
        return "+".join(switches + [f"{name}:{level}" if level else name for name, level in self.levels])


def parse_variant(game: str, text: str) -> Variant:
    """Return the variant that `text` names, such as "mode:1+lazy_enemy+up_drift:4"; raises as `Variant` does."""
    game = resolve_game(game)
    if not isinstance(text, str):
        raise ConfigError(f"variant must be a text such as 'mode:1+lazy_enemy', got {text!r}")
    switches: dict[str, int] = {}
    levels: list[tuple[str, int]] = []
    for part in text.split("+") if text else []:
        name, colon, number = part.strip().partition(":")
        if name in _SWITCHES:
            if name in switches:
                raise ConfigError(f"{text!r} gives {name} twice")
            switches[name] = _whole(part, number)
        else:
            levels.append((name, _whole(part, number) if colon else _find(game, name).default_level))
    return Variant(game, switches.get("mode"), switches.get("difficulty"), tuple(levels))


def _find(game: str, name: str) -> Variation:
    """Return a game's variation, or raise UnknownNameError with what the game has."""
    offer = list_variants(game)
    if name not in offer.variations:
        switches = [f"mode:{mode}" for mode in offer.modes] + [f"difficulty:{level}" for level in offer.difficulties]
        raise UnknownNameError(f"variant of {game}", name, [*offer.variations, *switches])
    return offer.variations[name]


def _check_level(variation: Variation, level: int) -> None:
    """Raise ConfigError unless the variation takes this level."""
    if not variation.default_level and level:
        raise ConfigError(f"{variation.name} takes no level, got {level}")
    if variation.default_level and level not in LEVELS:
        raise ConfigError(f"{variation.name} takes a level from {LEVELS[0]} to {LEVELS[-1]}, got {level}")


def _whole(part: str, number: str) -> int:
    """Return the number after a colon, or raise ConfigError."""
    if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS):
        raise ConfigError(f"{shortened(part)} must have a whole number after its colon")
    return int(number)
