"""Things that move over the screen: bouncing balls, drifting blobs, marching sprites.

Axes: W worlds, T frames, N things, H rows, C columns. Lengths are in pixels of a screen of 210 rows.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.bouncing_balls import Scene, sample_balls, simulate
from rims_rl.envs.distractors.distractor import SPLITS
from rims_rl.envs.distractors.effect import Effect, bounced
from rims_rl.envs.distractors.looks import Frame, Stamp, pick_colours, put, put_translucent, stamp_of
from rims_rl.envs.distractors.modal import colour_numbers
from rims_rl.envs.emulator import typical_screens

_WORLDS, _FRAMES = 16, 256
_SPEEDS = (0.005, 0.012)  # heights of the screen per frame

SPRITE_GAMES: dict[str, tuple[str, ...]] = {
    "train": ("space_invaders", "ms_pacman", "demon_attack", "frostbite"),
    "held-out": ("phoenix", "centipede", "assault", "amidar"),
}
"""Whose figures march by; a game's own are left out."""
_SPRITE_SIDES, _SPRITE_PIXELS = (5, 24), 24


class Balls(Effect):
    """Balls that bounce off each other and off the edges: discs in training, rings held out."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw a world, a moment and a side to look from."""
        count, radius = 1 + round(7 * self.spec.intensity), self._radius()
        worlds = ball_worlds(self.spec.split, count, radius, self.screen.height, self.screen.width)
        self._corners = worlds[generator.integers(len(worlds))]  # (T, N, 2)
        self._start = int(generator.integers(2 * _FRAMES))
        mask = _disc(radius * self.screen.unit, hollow=not self.is_train)
        colours = self.as_seen(pick_colours(self.spec.split, count, generator))
        self._stamps = [stamp_of(mask, colour) for colour in colours]
        self._shift = mask.shape[0] // 2

    def apply(self, frame: Frame, time: int) -> None:
        """Stamp the balls; motion without friction is as right backwards, so a world's film runs to and fro."""
        moment = int(bounced(self._start + time, _FRAMES - 1))
        for stamp, (x, y) in zip(self._stamps, self._corners[moment].tolist(), strict=True):
            put(frame, stamp, y - self._shift, x - self._shift)

    def _radius(self) -> float:
        """Return the balls' radius."""
        return (5.0 if self.is_train else 5.5) + 4 * self.spec.intensity


@lru_cache(maxsize=32)
def ball_worlds(split: str, count: int, radius: float, height: int, width: int) -> NDArray[np.int64]:
    """Return the centres of N balls of a radius over 256 frames in 16 worlds, in pixels, (W, T, N, 2)."""
    box = width / height
    size = min(radius / 210, 0.45 * min(box, 1.0))
    scene = Scene(counts=(count,), radii=(size, size), speeds=_SPEEDS, width=box)
    generator = np.random.default_rng([SPLITS.index(split), count])
    centres = simulate(sample_balls(scene, _WORLDS, generator), _FRAMES, box)
    return np.floor(centres * height).astype(np.int64)


def _disc(radius: float, *, hollow: bool) -> NDArray[np.bool_]:
    """Return the pixels of a disc or a ring."""
    reach = int(np.ceil(radius))
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return np.asarray((distance <= radius) & (distance >= (0.55 * radius if hollow else 0)), bool)


class Blobs(Effect):
    """Large translucent shapes that drift: of two or three lobes in training, of four or five held out."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw the shapes and their paths."""
        count = 2 + round(3 * self.spec.intensity)
        lobes = generator.permutation(np.resize((2, 3) if self.is_train else (4, 5), count))
        radius = (14 + 14 * self.spec.intensity) * self.screen.unit
        colours = self.as_seen(pick_colours(self.spec.split, count, generator))
        self._opacity = 0.25 + 0.45 * self.spec.intensity
        self._stamps = [
            stamp_of(_lobed(radius, int(n), generator.uniform(0, 2 * np.pi)), colour)
            for n, colour in zip(lobes, colours, strict=True)
        ]
        periods = (190, 340) if self.is_train else (350, 560)
        self._turns = 2 * np.pi / generator.uniform(*periods, (count, 2))
        self._phases = generator.uniform(0, 2 * np.pi, (count, 2))

    def apply(self, frame: Frame, time: int) -> None:
        """Stamp the blobs at their places; they turn back at the screen's edges."""
        size = np.array([self.screen.height, self.screen.width])
        centres = (size * (0.5 + 0.42 * np.sin(self._phases + self._turns * time))).astype(int)
        for stamp, (y, x) in zip(self._stamps, centres.tolist(), strict=True):
            reach = stamp.mask.shape[0] // 2
            put_translucent(frame, stamp, y - reach, x - reach, self._opacity)


def _lobed(radius: float, lobes: int, turn: float) -> NDArray[np.bool_]:
    """Return the pixels of a shape whose edge goes in and out as many times as it has lobes."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    edge = radius * (0.75 + 0.25 * np.cos(lobes * (np.arctan2(y, x) + turn)))
    return np.asarray(np.hypot(y, x) <= edge, bool)


class Sprites(Effect):
    """Figures of other games that march from side to side; the splits cut them from different games."""

    grey_splits = SPLITS

    def begin(self, generator: np.random.Generator) -> None:
        """Draw who marches, where and how fast."""
        count = 2 + round(8 * self.spec.intensity)
        known = other_sprites(self.spec.split, self.screen.game)
        size, large = max(round(self.screen.unit), 1), round(count * self.spec.intensity)
        self._stamps = [
            _enlarged(self._as_seen_stamp(known[i]), size * (2 if place < large else 1))
            for place, i in enumerate(generator.choice(len(known), count))
        ]
        lanes = (generator.permutation(count) + generator.random(count)) / count * self.screen.height
        self._lanes = lanes.astype(int)
        directions = generator.choice((-1, 1), count)
        speeds = generator.uniform(*((0.4, 0.9) if self.is_train else (0.9, 1.4)), count)
        self._speeds = directions * speeds * self.screen.unit
        self._starts = generator.random(count) * self.screen.width

    def apply(self, frame: Frame, time: int) -> None:
        """Stamp the figures; who leaves on one side comes in on the other."""
        span = self.screen.width + 48
        lefts = ((self._starts + self._speeds * time) % span - 24).astype(int)
        for stamp, top, left in zip(self._stamps, self._lanes.tolist(), lefts.tolist(), strict=True):
            put(frame, stamp, top - stamp.mask.shape[0] // 2, left)

    def _as_seen_stamp(self, stamp: Stamp) -> Stamp:
        """Return a stamp as frames show it."""
        return stamp._replace(picture=self.as_seen(stamp.picture))


def _enlarged(stamp: Stamp, times: int) -> Stamp:
    """Return the stamp with every pixel repeated along both axes."""
    return Stamp(*(np.ascontiguousarray(part.repeat(times, 0).repeat(times, 1)) for part in stamp))


def other_sprites(split: str, game: str | None) -> list[Stamp]:
    """Return the split's figures, without those of the game itself."""
    return [stamp for other in SPRITE_GAMES[split] if other != game for stamp in cut_sprites(other)]


@lru_cache(maxsize=16)
def cut_sprites(game: str) -> tuple[Stamp, ...]:
    """Return the figures seen on a game's screens: connected pixels, none of them of the most frequent colour."""
    found: dict[bytes, Stamp] = {}
    for screen in typical_screens(game):
        figures = _figures(screen)
        _, labels, boxes, _ = cv2.connectedComponentsWithStats(figures, connectivity=8)
        for label, (x, y, width, height, pixels) in enumerate(boxes):
            sides = (min(width, height), max(width, height))
            if label and _SPRITE_SIDES[0] <= sides[0] and sides[1] <= _SPRITE_SIDES[1] and pixels >= _SPRITE_PIXELS:
                place = np.s_[y : y + height, x : x + width]
                mask = (labels[place] == label).astype(np.uint8) * 255
                if mask.mean() < 240:  # plain boxes are no figures
                    found.setdefault(mask.tobytes(), Stamp(screen[place].copy(), mask))
    return tuple(found.values())


def _figures(screen: Frame) -> Frame:
    """Return 1 where a screen (H, W, 3) has another than its most frequent colour (H, W)."""
    numbers = colour_numbers(screen)
    colours, counts = np.unique(numbers, return_counts=True)
    return np.asarray(numbers != colours[counts.argmax()], np.uint8)
