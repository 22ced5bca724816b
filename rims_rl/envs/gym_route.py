"""The open route: one `gymnasium.Env` per copy of a game, with raw frames, game modes and the emulator's state at hand.

Observations are the same, frame for frame, as on the vector route. What differs: the number of frames without input at
a game's start comes from another random generator (uniform over the same range), and so do sticky actions. They are
drawn here and not in ALE, whose saved state lacks the action that may have to be repeated: a restored game could go on
differently.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from ale_py import ALEInterface, ALEState
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from rims_rl.envs.distractors.distraction import Distraction
from rims_rl.envs.distractors.distractor import AnyDistractor, as_distractors
from rims_rl.envs.distractors.effect import Screen as Picture
from rims_rl.envs.emulator import FIRE, NOOP, action_numbers
from rims_rl.envs.emulator import load_emulator as load_emulator  # also known from here
from rims_rl.envs.emulator_state import check_emulator_state
from rims_rl.envs.protocols import FRAME_SKIP, SCREEN_SIZE, AtariSettings, action_number
from rims_rl.envs.random_state import dump_generator, load_generator
from rims_rl.envs.screen import FrameHook, Screen, alter_grey, capture
from rims_rl.envs.snapshots import MOST, array, entry, flag, text, whole_number
from rims_rl.errors import ConfigError, shortened

_NUMBERS = ("_last_action", "_elapsed_frames", "_lives", "_score", "_length")
_COUNTERS = (*_NUMBERS, "_game_goes_on")


def check_variant(ale: ALEInterface, game: str, mode: int | None, difficulty: int | None) -> None:
    """Raise ConfigError, naming the available ones, when the game lacks this mode or difficulty."""
    asked = {"mode": (mode, ale.getAvailableModes()), "difficulty": (difficulty, ale.getAvailableDifficulties())}
    for name, (value, available) in asked.items():
        if value is not None and (type(value) is not int or value not in available):
            known = ", ".join(map(str, sorted(available)))
            raise ConfigError(f"{game} has no {name} {shortened(value)}; available: {known}")


class AtariGymEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """One Atari game: observations (frame_stack, 84, 84) uint8, the newest frame last.

    `distractor` and `distractor_split` alter what is seen, see `rims_rl.envs.distractors`: nothing else is changed.

    `step`'s info holds "lives", "life_lost" (terminated is only a lost life: the next `reset()` without a seed goes on
    with the game and returns the present observation) and, at a game's real end, "episode" with the raw score "r", the
    agent's steps "l" and the seconds "t" since this object was made.

    Raises:
        ConfigError: for a setting that cannot work, see `AtariSettings` and `Distractor`; for a mode or difficulty
            that the game lacks.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // FRAME_SKIP}  # noqa: RUF012 - Gymnasium's own form
    route = "gym"

    def __init__(
        self,
        game: str,
        *,
        mode: int | None = None,
        difficulty: int | None = None,
        distractor: AnyDistractor = None,
        distractor_split: str | None = None,
        render_mode: str | None = "rgb_array",
        **settings: Any,
    ) -> None:
        self.settings = AtariSettings(game, **settings)
        self.protocol = self.settings.protocol
        self.render_mode = render_mode
        self.frame_hook: FrameHook | None = None
        """Called with each raw RGB frame (H, W, 3) that an observation is made of, returns the frame to use instead.

        Distractors come after it.
        """
        self._variant = (mode, difficulty)
        self._ale = load_emulator(self.settings.game)
        check_variant(self._ale, self.settings.game, mode, difficulty)
        self._set_variant()
        self._power_on = self._ale.cloneState(include_rng=True)
        self._actions = action_numbers(self._ale, self.settings)
        self.action_space = Discrete(len(self._actions))
        self.observation_space = Box(0, 255, (self.settings.frame_stack, SCREEN_SIZE, SCREEN_SIZE), np.uint8)
        self._screen = Screen(self._ale.getScreenDims(), self.settings.frame_stack)
        height, width = self._ale.getScreenDims()
        distractors = as_distractors(distractor, distractor_split)
        self._in_colour = Distraction(distractors, Picture(height, width, self.settings.game))
        self._alters_grey = alter_grey(self.settings.game, distractors)
        if self._alters_grey:
            self._distraction = Distraction(distractors, Picture(height, width, self.settings.game, is_grey=True))
        else:
            self._distraction = self._in_colour
        self._start_time = time.time()
        self._game_goes_on = False
        self._last_action = NOOP
        self._lives = 0
        self._begin_counts()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start a new game, or go on with the present one after a lost life; return the observation and {"lives"}."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._ale.restoreState(self._power_on)  # some games keep traces of the last one through a restart
        if seed is not None or not self._game_goes_on:
            self._distraction.begin(self.np_random_seed, anew=seed is not None)
            self._start_game()
        self._game_goes_on = False
        return self._screen.stack.copy(), {"lives": self._lives}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Repeat the action for 4 frames; raises ConfigError when it is out of range."""
        raw_reward = self._repeat(self._checked(action))
        self._screen.push()
        self._score += raw_reward
        self._length += 1
        game_over = self._ale.game_over()
        truncated = self._elapsed_frames >= self.settings.max_frames and not game_over
        self._game_goes_on = self._lost_a_life() and not (game_over or truncated)
        info: dict[str, Any] = {"lives": self._lives, "life_lost": self._game_goes_on}
        if game_over or truncated:
            seconds = round(time.time() - self._start_time, 6)
            info["episode"] = {"r": float(self._score), "l": self._length, "t": seconds}
        reward = float(np.sign(raw_reward) if self.settings.rewards_are_signs else raw_reward)
        return self._screen.stack.copy(), reward, game_over or self._game_goes_on, truncated, info

    def render(self) -> NDArray[np.uint8]:
        """Return the raw screen (H, W, 3) under the distractors; right after `restore` it is the one from before."""
        self._in_colour.follow(self._distraction)
        return self._in_colour.again(self._raw_screen())

    def snapshot(self) -> dict[str, Any]:
        """Return all that decides how the game goes on, as arrays, numbers and texts; `frame_hook` is not in it."""
        state = self._ale.cloneState(include_rng=True)
        self._enter(state)  # so that this game goes on from exactly what a restored one has
        return {
            "game": self.settings.game,
            "emulator": np.frombuffer(state.serialize(), np.uint8).copy(),
            "np_random": dump_generator(self.np_random),
            "screen": self._screen.snapshot(),
            "counters": {name.removeprefix("_"): getattr(self, name) for name in _COUNTERS},
            "distraction": self._distraction.snapshot(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned, here or in an environment made alike: the game goes on bit for bit.

        Raises:
            ConfigError: when the snapshot is of another game, or of other distractors, or damaged.
        """
        game = text(snapshot, "game")
        if game != self.settings.game:
            raise ConfigError(
                f"this snapshot is of {shortened(game)}, but the environment plays {self.settings.game!r}"
            )
        counters = self._checked_counters(entry(snapshot, "counters"))
        self._distraction.restore(snapshot.get("distraction", {}))
        content = array(snapshot, "emulator", None, np.uint8).tobytes()
        check_emulator_state(content, self._power_on.serialize())
        self._enter(ALEState(content))
        load_generator(self.np_random, text(snapshot, "np_random"))
        self._screen.restore(entry(snapshot, "screen"))
        vars(self).update(counters)

    def _checked_counters(self, stored: Any) -> dict[str, Any]:
        """Return the counters as attributes; ALE ends the whole process for an action that it doesn't know."""
        limits = {"_elapsed_frames": (0, self.settings.max_frames), "_score": (-MOST, MOST)}
        counters: dict[str, Any] = {
            name: whole_number(stored, name.removeprefix("_"), *limits.get(name, (0, MOST))) for name in _NUMBERS
        }
        if counters["_last_action"] not in (NOOP, *self._actions):
            raise ConfigError(f"this snapshot is damaged: its last action is {counters['_last_action']}")
        return counters | {"_game_goes_on": flag(stored, "game_goes_on")}

    def _start_game(self) -> None:
        """Start a new game: FIRE where the game has it, then a random number of frames without input."""
        self._restart()
        fires = FIRE in self._actions
        if fires:
            self._act(FIRE)
        for _ in range(int(self.np_random.integers(max(self.settings.noop_max, 1))) - fires):
            self._act(NOOP)
            if self._ale.game_over():
                self._restart()
        self._screen.clear()
        self._capture(self._screen.newest)
        self._screen.push()
        self._begin_counts()

    def _repeat(self, action: int) -> int:
        """Act for up to 4 frames, fewer when the game ends; capture the last two; return the sum of rewards."""
        reward = 0
        for frame in range(FRAME_SKIP):
            reward += self._act(action)
            self._elapsed_frames += 1
            if self._ale.game_over() or self._elapsed_frames >= self.settings.max_frames:
                break
            if frame >= FRAME_SKIP - 2:
                target = self._screen.newest if frame == FRAME_SKIP - 1 else self._screen.previous
                self._capture(target)
        return reward

    def _capture(self, target: NDArray[np.uint8]) -> None:
        """Write the present screen, altered, in grey into `target` (H, W)."""
        if self._alters_grey and self.frame_hook is None:
            capture(self._ale, None, target)
            self._distraction.alter(target)
        else:
            capture(self._ale, self._hook(), target)

    def _hook(self) -> FrameHook | None:
        """Return what alters the raw frames: the frame hook, then the distractors."""
        first = self.frame_hook
        if self._distraction.is_idle:
            return first
        return self._distract if first is None else lambda frame: self._distract(first(frame).copy())

    def _distract(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Let the distractors alter the episode's next RGB frame (H, W, 3), in place."""
        self._in_colour.follow(self._distraction)
        altered = self._in_colour.alter(frame)
        self._distraction.follow(self._in_colour)
        return altered

    def _raw_screen(self) -> NDArray[np.uint8]:
        """Return the emulator's screen (H, W, 3)."""
        frame: NDArray[np.uint8] = self._ale.getScreenRGB()
        return frame

    def _act(self, action: int) -> int:
        """Emulate one frame with the action, or with the previous one when that sticks; return the reward."""
        sticky = self.settings.rules.sticky
        if not (sticky and self.np_random.random() < sticky):
            self._last_action = action
        return int(self._ale.act(self._last_action))

    def _restart(self) -> None:
        """Reset the emulated console."""
        self._ale.reset_game()
        self._last_action = NOOP

    def _enter(self, state: ALEState) -> None:
        """Restore an emulator state together with what ALE leaves out of it, the same in every environment."""
        # Left out are the screen's unused lines (seen in Tic-Tac-Toe 3D), which a restart makes the same everywhere,
        # and the RESET switch, which a restart holds down until the next frame. Q*bert, Tetris and Trondead read it;
        # in these FIRE has been pressed since the restart, so the switch is up.
        self._ale.restoreState(self._power_on)
        self._ale.reset_game()
        self._ale.act(NOOP)
        self._ale.restoreState(state)

    def _lost_a_life(self) -> bool:
        """Tell whether done should report a lost life, and remember the lives."""
        before = self._lives
        self._lives = self._ale.lives()
        return self.settings.life_loss_is_done and 0 < self._lives < before

    def _begin_counts(self) -> None:
        """Start counting frames, steps and score."""
        self._elapsed_frames = 0
        self._score = 0
        self._length = 0
        self._lives = self._ale.lives()

    def _set_variant(self) -> None:
        """Choose the game's mode and difficulty, which count from the next restart on."""
        mode, difficulty = self._variant
        if mode is not None:
            self._ale.setMode(mode)
        if difficulty is not None:
            self._ale.setDifficulty(difficulty)

    def _checked(self, action: np.int64) -> int:
        """Return ALE's number of an action, or raise ConfigError."""
        return self._actions[action_number(action, len(self._actions), "game")]
