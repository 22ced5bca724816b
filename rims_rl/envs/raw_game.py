"""One copy of a game on the vector route with distractors: frames are altered here, and all else is as C++ does it.

An emulator of its own, which is played as ale-py's C++ vector environment plays one: the same random starts and sticky
actions, and the last two frames of a step are seen, see `screen`. Frames are altered in RGB where a distractor needs
colours, and in grey, a third of the bytes, where it doesn't.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.distraction import Distraction
from rims_rl.envs.distractors.distractor import Distractors
from rims_rl.envs.distractors.effect import Screen as Picture
from rims_rl.envs.emulator import FIRE, NOOP, action_numbers, load_emulator, load_game
from rims_rl.envs.protocols import FRAME_SKIP, AtariSettings
from rims_rl.envs.random_starts import RandomStarts
from rims_rl.envs.screen import Screen, alter_grey, to_grey

Frame = NDArray[np.uint8]


class RawStep(NamedTuple):
    """What a step of one copy gives."""

    reward: int = 0
    """The sum over its frames."""
    terminated: bool = False
    """Whether the game is over; the next one has begun then, as where it is truncated."""
    truncated: bool = False
    """Whether it has gone on for too many frames."""
    last: Frame | None = None
    """The last picture (84, 84) of a game that has ended."""


class RawGame:
    """One copy: its newest picture is that of an observation (84, 84) uint8."""

    def __init__(self, settings: AtariSettings, distractors: Distractors) -> None:
        self._settings = settings
        self._ale = load_emulator(settings.game, settings.rules.sticky)
        self._actions = action_numbers(self._ale, settings)
        self._unseeded = np.random.default_rng()
        self._starts = RandomStarts(settings.noop_max)
        self._elapsed_frames = 0
        height, width = self._ale.getScreenDims()
        self._screen = Screen((height, width), 1)
        self._is_grey = alter_grey(settings.game, distractors)
        self._distraction = Distraction(distractors, Picture(height, width, settings.game, self._is_grey))
        self._colours = np.zeros((height, width, 3), np.uint8)
        self._is_new = True

    @property
    def picture(self) -> Frame:
        """The newest picture (84, 84), which the next step overwrites."""
        picture: Frame = self._screen.stack[-1]
        return picture

    @property
    def lives(self) -> int:
        """The lives that are left."""
        return int(self._ale.lives())

    def begin(self, seed: int | None) -> None:
        """Start a new game, with a seed below 2**31, or None to go on with the present random streams."""
        own = int(self._unseeded.integers(2**31)) if seed is None else seed
        if seed is not None or self._is_new:
            self._starts.seed(own)
            load_game(self._ale, self._settings.game, own)
        self._is_new = False
        self._distraction.begin(own, anew=seed is not None)
        self._start_game()

    def step(self, action: int) -> RawStep:
        """Repeat the action for 4 frames, fewer when the game ends; then the next one begins."""
        reward = 0
        for frame in range(FRAME_SKIP):
            reward += int(self._ale.act(self._actions[action]))
            self._elapsed_frames += 1
            if self._ale.game_over() or self._elapsed_frames >= self._settings.max_frames:
                return self._end(reward)
            if frame >= FRAME_SKIP - 2:
                self._capture(self._screen.newest if frame == FRAME_SKIP - 1 else self._screen.previous)
        self._screen.push()
        return RawStep(reward)

    def _end(self, reward: int) -> RawStep:
        """Return the step that ended the game, and begin the next one."""
        is_over = bool(self._ale.game_over())
        self._screen.push()
        last = self.picture.copy()
        self._distraction.next_episode()
        self._start_game()
        return RawStep(reward, is_over, not is_over, last)

    def _start_game(self) -> None:
        """Start a new game: FIRE where the game has it, then a random number of frames without input."""
        self._ale.reset_game()
        fires = FIRE in self._actions
        if fires:
            self._ale.act(FIRE)
        for _ in range(self._starts.draw() - fires):
            self._ale.act(NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self._elapsed_frames = 0
        self._screen.clear()
        self._capture(self._screen.newest)
        self._screen.push()

    def _capture(self, target: Frame) -> None:
        """Write the present screen, altered, in grey into `target` (H, W)."""
        if self._is_grey:
            self._ale.getScreenGrayscale(target)
            self._distraction.alter(target)
        else:
            self._ale.getScreenRGB(self._colours)
            to_grey(self._distraction.alter(self._colours), target)
