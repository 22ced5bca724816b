"""The vector route with distractors: raw frames out of ale-py's C++ threads, preprocessed here.

One C++ environment per copy, each with a thread of its own, emulates single frames. So a copy whose game ends within a
step waits there while the others go on, and frames, random starts and sticky actions are those of the plain vector
route. A copy's next frame is emulated while its last one is altered here. Frames are RGB where
a distractor needs colours, and grey, a third of the bytes, where it doesn't.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from rims_rl.envs.distractors.distraction import Distraction
from rims_rl.envs.distractors.distractor import Distractors
from rims_rl.envs.distractors.effect import Screen as Picture
from rims_rl.envs.distractors.looks import grey_of
from rims_rl.envs.emulator import load_emulator, vector_emulators
from rims_rl.envs.protocols import FRAME_SKIP, SCREEN_SIZE, AtariSettings
from rims_rl.envs.screen import Screen, alter_grey

Frame = NDArray[np.uint8]
_FULL_STRENGTH = np.ones(1, np.float32)


class RawEmulators:
    """Copies of one game that speak as `AtariVectorEnv` does, and show what distractors leave to be seen."""

    def __init__(self, settings: AtariSettings, n_envs: int, distractors: Distractors) -> None:
        height, width = load_emulator(settings.game).getScreenDims()
        self._is_grey = alter_grey(settings.game, distractors)
        self._emulators = [_one_emulator(settings, height, width, self._is_grey) for _ in range(n_envs)]
        self._screens = [Screen((height, width), settings.frame_stack) for _ in range(n_envs)]
        picture = Picture(height, width, settings.game, self._is_grey)
        self._distractions = [Distraction(distractors, picture) for _ in range(n_envs)]
        self._unseeded = np.random.default_rng()
        self._actions: list[NDArray[np.int64]] = []
        self._observations = np.zeros((n_envs, settings.frame_stack, SCREEN_SIZE, SCREEN_SIZE), np.uint8)
        for screen, observation in zip(self._screens, self._observations, strict=True):
            screen.stack = observation
        self.ale = self._emulators[0].ale

    def reset(self, *, seed: NDArray[np.int64] | None) -> tuple[Frame, dict[str, Any]]:
        """Start a new game in every copy; return observations (n, frame_stack, 84, 84) and {"lives": (n,)}."""
        lives = np.zeros(len(self._emulators), np.int32)
        for index, emulator in enumerate(self._emulators):
            frames, info = emulator.reset(seed=None if seed is None else seed[index : index + 1])
            own = int(self._unseeded.integers(2**31)) if seed is None else int(seed[index])
            self._distractions[index].begin(own, anew=seed is not None)
            self._begin(index, frames[0, 0])
            lives[index] = info["lives"][0]
        return self._observations.copy(), {"lives": lives}

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start the first frame of a step with actions (n,)."""
        self._actions = [actions[index : index + 1] for index in range(len(actions))]
        for index in range(len(actions)):
            self._act(index)

    def recv(self) -> tuple[Frame, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Finish the step: observations, rewards, terminated, truncated (each (n,)) and {"lives", "final_obs"}."""
        count = len(self._emulators)
        rewards, lives = np.zeros(count, np.int64), np.zeros(count, np.int32)
        ends = np.zeros((2, count), np.bool_)
        last = np.zeros_like(self._observations)
        going = list(range(count))
        for frame in range(FRAME_SKIP):
            for index in tuple(going):
                shown, reward, terminated, truncated, info = self._emulators[index].ale.recv()
                rewards[index] += int(reward[0])
                lives[index] = info["lives"][0]
                if terminated[0] or truncated[0]:
                    going.remove(index)
                    ends[:, index] = terminated[0], truncated[0]
                    self._end(index, shown[0, 0], last[index])
                else:
                    self._go_on(index, frame, shown[0, 0])
        return self._observations.copy(), rewards, ends[0], ends[1], {"lives": lives, "final_obs": last}

    def close(self) -> None:
        """Stop the C++ threads."""
        for emulator in self._emulators:
            emulator.close()

    def _act(self, index: int) -> None:
        """Start one frame of a copy; nothing checks the action again, that was done once for the whole step."""
        self._emulators[index].ale.send(self._actions[index], _FULL_STRENGTH)

    def _go_on(self, index: int, frame: int, shown: Frame) -> None:
        """Start the step's next frame, then use this one: the last two of a step are seen."""
        if frame < FRAME_SKIP - 1:
            self._act(index)
        screen = self._screens[index]
        if frame == FRAME_SKIP - 2:
            screen.previous = self._altered(index, shown)
        elif frame == FRAME_SKIP - 1:
            screen.newest = self._altered(index, shown)
            screen.push()

    def _end(self, index: int, shown: Frame, last: Frame) -> None:
        """Write a game's last observation into `last`, and begin the next game, of which `shown` is the first frame."""
        self._screens[index].push()
        last[:] = self._screens[index].stack
        self._distractions[index].next_episode()
        self._begin(index, shown)

    def _begin(self, index: int, shown: Frame) -> None:
        """Show a new game's first frame."""
        screen = self._screens[index]
        screen.clear()
        screen.newest = self._altered(index, shown)
        screen.push()

    def _altered(self, index: int, shown: Frame) -> Frame:
        """Return a copy's frame, (H, W) or (H, W, 3), altered and in grey (H, W)."""
        altered = self._distractions[index].alter(shown)
        return altered if self._is_grey else grey_of(altered)


def _one_emulator(settings: AtariSettings, height: int, width: int, is_grey: bool) -> AtariVectorEnv:
    """Return one copy that shows every frame as it is; all else as on the plain vector route."""
    return vector_emulators(
        settings,
        1,
        img_height=height,
        img_width=width,
        grayscale=is_grey,
        stack_num=1,
        frameskip=1,
        maxpool=False,
    )
