"""Distractors at work on one copy of an environment: from a seed and an episode to altered frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from rims_rl.envs.distractors.distractor import SPLITS, Distractor, Distractors
from rims_rl.envs.distractors.effect import Effect, Screen
from rims_rl.envs.distractors.kinds import EFFECTS, make_effect
from rims_rl.envs.distractors.looks import Frame
from rims_rl.envs.snapshots import text, whole_number
from rims_rl.errors import ConfigError, shortened

_SEEDS = 2**31  # which the vector route tells apart
_MOST_FRAMES = 2**31  # of an episode; they last a year


class Distraction:
    """Alters frames, one after the other, by several distractors in their order.

    The looks and motions of an episode are drawn from its seed and number alone, so the same seed and episode give
    the same pixels, and nothing is drawn from the environment's own random stream: the game stays what it is.
    Distractors of intensity 0 do nothing.
    """

    def __init__(self, distractors: Distractors, screen: Screen) -> None:
        self._specs = [spec for spec in distractors if spec.intensity > 0]
        self._effects: list[Effect] = [make_effect(spec, screen) for spec in self._specs]
        self._seed = self._frame = 0
        self._episode = -1
        self._is_drawn = False

    @property
    def is_idle(self) -> bool:
        """Whether every frame stays as it is."""
        return not self._effects

    def begin(self, seed: int, *, anew: bool) -> None:
        """Begin the next episode, or the seed's first one when `anew`, or when there was none yet."""
        if anew or self._episode < 0:
            self.start(seed)
        else:
            self.next_episode()

    def start(self, seed: int) -> None:
        """Begin a seed's first episode."""
        self._seed, self._episode = abs(seed) % _SEEDS, 0
        self._draw()

    def next_episode(self) -> None:
        """Begin the seed's next episode."""
        self._episode += 1
        self._draw()

    def __call__(self, frame: Frame) -> Frame:
        """Return the episode's next frame altered; the given one (H, W, 3) is left as it was."""
        return self.alter(frame.copy())

    def alter(self, frame: Frame) -> Frame:
        """Alter the episode's next frame (H, W, 3), or (H, W) on a grey screen, in place, and return it."""
        self._apply(frame, self._frame)
        self._frame += 1
        return frame

    def again(self, frame: Frame) -> Frame:
        """Return a frame altered as the episode's last one was; the given one is left as it was.

        Before the first episode, nothing is altered.
        """
        altered = frame.copy()
        if self._is_drawn:
            self._apply(altered, max(self._frame - 1, 0))
        return altered

    def follow(self, other: Distraction) -> None:
        """Go to where another one of the same distractors is in its episode; on an RGB screen, that of a grey one."""
        if (self._seed, self._episode, self._is_drawn) != (other._seed, other._episode, other._is_drawn):
            self._seed, self._episode = other._seed, max(other._episode, 0)
            self._draw()
            self._episode, self._is_drawn = other._episode, other._is_drawn
        self._frame = other._frame
        for effect, its in zip(self._effects, other._effects, strict=True):
            effect.follow(its)

    def snapshot(self) -> dict[str, Any]:
        """Return where in which episode this is, and of which distractors, as numbers and a text."""
        place = {"seed": self._seed, "episode": self._episode, "frame": self._frame}
        return {"distractors": describe(self._specs), **place}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to where `snapshot()` was taken.

        Raises:
            ConfigError: when that had other distractors, or is damaged; an empty snapshot had none.
        """
        if not isinstance(snapshot, dict):
            raise ConfigError(f"this snapshot is damaged: its distraction is {shortened(snapshot)}")
        here, there = describe(self._specs), text(snapshot, "distractors") if snapshot else ""
        if there != here:
            raise ConfigError(
                f"this snapshot is of distractors {shortened(there)[1:-1] or 'none'}, "
                f"but the environment has {here or 'none'}"
            )
        if snapshot:
            seed, episode = whole_number(snapshot, "seed", 0, _SEEDS - 1), whole_number(snapshot, "episode", -1)
            frame = whole_number(snapshot, "frame", 0, _MOST_FRAMES)
            self._seed, self._episode = seed, max(episode, 0)
            self._draw()
            self._episode, self._frame = episode, frame

    def _draw(self) -> None:
        """Draw the looks of the episode."""
        self._frame, self._is_drawn = 0, True
        for place, (spec, effect) in enumerate(zip(self._specs, self._effects, strict=True)):
            kind = int.from_bytes(spec.kind.encode())
            effect.begin(np.random.default_rng([SPLITS.index(spec.split), place, kind, self._seed, self._episode]))

    def _apply(self, frame: Frame, time: int) -> None:
        """Let the distractors, one after the other, alter a frame in place."""
        for effect in self._effects:
            effect.apply(frame, time if effect.spec.dynamic else 0)


def suit_grey(distractors: Distractors) -> bool:
    """Tell whether these may alter grey frames instead of RGB ones that turn grey afterwards."""
    return all(spec.split in EFFECTS[spec.kind].grey_splits for spec in distractors if spec.intensity > 0)


def describe(distractors: list[Distractor] | Distractors) -> str:
    """Return the distractors as one text."""
    return "+".join(spec.text for spec in distractors)
