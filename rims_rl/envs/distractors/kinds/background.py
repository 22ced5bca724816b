"""Something else behind the game: a moving texture, or a clip from the user's folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.distractors.distractor import Distractor
from rims_rl.envs.distractors.effect import Effect, Screen, bounced
from rims_rl.envs.distractors.looks import Frame
from rims_rl.envs.distractors.modal import background_colours, game_background, plain_picture, short_numbers
from rims_rl.envs.distractors.textures import make_texture
from rims_rl.envs.distractors.videos import clip_files, load_clip

_MARGIN = 96  # by which a texture is larger than the screen
_FRAMES_PER_PICTURE = 4  # of a clip: 60 frames per second are played, half of which are seen
_STRONGEST = 0.9


class Background(Effect):
    """Mixes a picture into all pixels that have one of the game's background colours.

    Where no Atari game is known, the colours are those of each episode's first frame.
    """

    def __init__(self, spec: Distractor, screen: Screen) -> None:
        super().__init__(spec, screen)
        self._share = _STRONGEST * spec.intensity
        self._files = [] if spec.folder is None else clip_files(Path(spec.folder), spec.split)
        self._is_game = screen.game is not None
        self._colours: NDArray[np.uint8] | None = None
        if screen.game is not None:
            self._learn(game_background(screen.game))

    def begin(self, generator: np.random.Generator) -> None:
        """Draw the texture, or the clip, and the moment to begin with."""
        if not self._is_game:
            self._colours = None
        self._start = int(generator.integers(1_000))
        if self._files:
            path = self._files[generator.integers(len(self._files))]
            self._film, self._margin = load_clip(path, self.screen.height, self.screen.width), 0
        else:
            size = self.screen.height + _MARGIN, self.screen.width + _MARGIN
            self._film = make_texture(self.spec.split, *size, self.screen.unit, generator)[None]
            self._margin = _MARGIN
        self._speeds = generator.uniform(*((0.15, 0.35) if self.is_train else (0.4, 0.6)), 2).tolist()
        self._kept: tuple[int, Frame] | None = None

    def apply(self, frame: Frame, time: int) -> None:
        """Mix the picture in."""
        if self._colours is None:
            self._learn(background_colours(frame[None]))
        picture = self._picture(self._start + time)
        numbers = short_numbers(frame)
        for number, rest in self._parts:
            mask: NDArray[np.bool_] = np.equal(numbers, number)
            cv2.copyTo(cv2.add(picture, rest), mask.view(np.uint8), frame)

    def follow(self, other: Effect) -> None:
        """Take over the colours that the other one has found."""
        if isinstance(other, Background) and other._colours is not self._colours:
            self._colours = None
            if other._colours is not None:
                self._learn(other._colours)

    def _learn(self, colours: NDArray[np.uint8]) -> None:
        """Take colours (C, 3) for the background."""
        self._colours, self._parts = colours, self._prepared(colours)

    def _prepared(self, colours: NDArray[np.uint8]) -> list[tuple[int, Frame]]:
        """Return the number of each colour (C, 3), and a picture of what the mixture keeps of it."""
        numbers = short_numbers(colours[None])[0].tolist()
        kept = np.rint(colours * (1 - self._share)).astype(np.uint8)
        size = self.screen.height, self.screen.width
        return [(number, plain_picture(*size, rest)) for number, rest in zip(numbers, kept, strict=True)]

    def _picture(self, moment: int) -> Frame:
        """Return the share of the mixture that is to be seen behind the game (H, W, 3)."""
        index = int(bounced(moment // _FRAMES_PER_PICTURE, len(self._film) - 1))
        if self._kept is None or self._kept[0] != index:
            self._kept = index, np.asarray(cv2.convertScaleAbs(self._film[index], alpha=self._share), np.uint8)
        top, left = (int(bounced(moment * speed, self._margin)) for speed in self._speeds)
        return self._kept[1][top : top + self.screen.height, left : left + self.screen.width]
