"""One Atari emulator, and a look at how a game's screen tends to be."""

from __future__ import annotations

from functools import cache

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from numpy.typing import NDArray

_SCREENS, _FRAMES_BETWEEN, _REPEATS = 12, 48, 8  # how many screens are looked at, and how they are reached


def load_emulator(game: str) -> ALEInterface:
    """Return an emulator with the game's rom loaded; nothing in it is random, since actions stick outside of it."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.loadROM(str(roms.get_rom_path(game)))
    return ale


@cache
def typical_screens(game: str) -> NDArray[np.uint8]:
    """Return RGB screens (12, H, W, 3) from the first ten seconds of play with random actions, always the same."""
    ale = load_emulator(game)
    ale.reset_game()
    actions = [Action.FIRE, *ale.getMinimalActionSet()]
    chosen = np.random.default_rng(0).integers(len(actions), size=(_SCREENS, _FRAMES_BETWEEN // _REPEATS))
    screens = []
    for turn in chosen:
        for index in turn:
            for _ in range(_REPEATS):
                ale.act(actions[index])
        if ale.game_over():
            ale.reset_game()
        screens.append(ale.getScreenRGB())
    return np.stack(screens)
