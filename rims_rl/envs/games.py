"""Atari games by name: every game that ale-py ships for one player, in any of its spellings, becomes its rom name.

`pong`, `Pong`, `ALE/Pong-v5`, `PongNoFrameskip-v4` and `PongDeterministic-v4` are all "pong"; `MsPacman` and
`ms-pacman` are "ms_pacman".
"""

from __future__ import annotations

import re
from functools import cache

from ale_py import roms

from rims_rl.errors import ConfigError, UnknownNameError

# ALE aborts the whole process when one of these is loaded: they have no single-player version.
MULTIPLAYER_ONLY = frozenset({"combat", "joust", "maze_craze", "warlords"})

# Only ALE's own version numbers, so that Gymnasium's Blackjack-v1 is not taken for the Atari game blackjack.
_SPELLING = re.compile(
    r"^(?P<ale>ALE/)?(?P<game>[A-Za-z0-9_\- ]+?)(?P<ram>-ram)?(NoFrameskip|Deterministic)?(-v[045])?$", re.IGNORECASE
)


@cache
def game_names() -> tuple[str, ...]:
    """Return the rom names of all games that one player can play, sorted."""
    return tuple(sorted(set(roms.get_all_rom_ids()) - MULTIPLAYER_ONLY))


@cache
def _rom_by_letters() -> dict[str, str]:
    """Map each rom name without its underscores to the rom name; multiplayer-only games included."""
    return {name.replace("_", ""): name for name in roms.get_all_rom_ids()}


def _read(name: str) -> tuple[str | None, re.Match[str] | None]:
    """Return (rom name or None, how the spelling was read or None)."""
    spelling = _SPELLING.match(name.strip())
    if spelling is None:
        return None, None
    letters = re.sub(r"[_\- ]", "", spelling["game"]).lower()
    return _rom_by_letters().get(letters), spelling


def is_atari(name: str) -> bool:
    """Tell whether `name` means an Atari game: a known game in any spelling, or anything under ALE/."""
    rom, _ = _read(name)
    return rom is not None or name.strip().lower().startswith("ale/")


def resolve_game(name: str) -> str:
    """Return the rom name of a game in any spelling.

    Raises:
        UnknownNameError: when no such game exists; the message holds the nearest names.
        ConfigError: when the name asks for RAM observations, or the game needs two players.
    """
    rom, spelling = _read(name) if isinstance(name, str) else (None, None)
    if rom is None:
        raise UnknownNameError("Atari game", spelling["game"] if spelling else str(name), game_names())
    if spelling is not None and spelling["ram"]:
        raise ConfigError(f"{name!r} asks for RAM observations, which are not offered; use {rom!r} for frames")
    if rom in MULTIPLAYER_ONLY:
        raise ConfigError(f"Atari game {rom!r} has no single-player version in ale-py; choose another game")
    return rom
