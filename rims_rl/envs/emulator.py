"""Atari emulators, one or many in C++ threads, and a look at how a game's screen tends to be."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rims_rl.envs.protocols import AtariSettings

_SCREENS, _FRAMES_BETWEEN, _REPEATS = 12, 48, 8  # how many screens are looked at, and how they are reached

NOOP, FIRE = Action.NOOP.value, Action.FIRE.value
"""ALE's numbers of two actions."""


def load_emulator(game: str, sticky: float = 0.0) -> ALEInterface:
    """Return an emulator with the game's rom loaded; nothing in it is random unless actions are to stick inside it."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    load_game(ale, game, 0)
    return ale


def load_game(ale: ALEInterface, game: str, seed: int) -> None:
    """Load the game's rom and begin ALE's random stream of a seed."""
    ale.setInt("random_seed", seed)
    ale.loadROM(str(roms.get_rom_path(game)))


def action_numbers(ale: ALEInterface, settings: AtariSettings) -> list[int]:
    """Return ALE's numbers of the actions that the agent chooses from."""
    full = settings.rules.full_action_set
    actions = ale.getLegalActionSet() if full else ale.getMinimalActionSet()
    return [action.value for action in actions]


def vector_emulators(settings: AtariSettings, n_envs: int, **shown: Any) -> AtariVectorEnv:
    """Return copies of a game in C++ threads that play it as the settings say and show it as `shown` says.

    What has another default depending on the way in is set explicitly.
    """
    return AtariVectorEnv(
        settings.game,
        n_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward_clipping=False,
        episodic_life=False,
        life_loss_info=False,
        repeat_action_probability=settings.rules.sticky,
        full_action_space=settings.rules.full_action_set,
        max_num_frames_per_episode=settings.max_frames,
        noop_max=max(settings.noop_max, 1),
        use_fire_reset=True,
        **shown,
    )


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
