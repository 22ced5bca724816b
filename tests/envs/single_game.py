"""One game on ale-py's plain `AtariEnv`, preprocessed the slow way: what both routes are tested against."""

from __future__ import annotations

import cv2
import numpy as np
from ale_py import AtariEnv


class SingleGame:
    """A game without randomness: no frames without input at its start, no sticky actions, no time limit but ours."""

    def __init__(self, game, frame_stack=4, max_frames=108_000):
        self.env = AtariEnv(game, obs_type="grayscale", frameskip=1, max_num_frames_per_episode=None)
        self.env.ale.setFloat("repeat_action_probability", 0.0)
        self.env.load_game()
        self.frame_stack, self.max_frames = frame_stack, max_frames

    def reset(self):
        frame, _ = self.env.reset()
        meanings = self.env.get_action_meanings()
        if "FIRE" in meanings:
            frame = self.env.step(meanings.index("FIRE"))[0]
        self.shown, self.before = frame, np.zeros_like(frame)
        self.seen = [np.zeros((84, 84), np.uint8)] * (self.frame_stack - 1) + [self._small()]
        self.frames = 0
        return np.stack(self.seen)

    def step(self, action):
        """Return (observation, raw reward, game over, truncated, lives)."""
        total = 0.0
        for repetition in range(4):
            frame, reward, over, _, info = self.env.step(action)
            total += reward
            self.frames += 1
            if over or self.frames >= self.max_frames:
                break
            if repetition == 2:
                self.before = frame
            if repetition == 3:
                self.shown = frame
        self.shown = np.maximum(self.shown, self.before)
        self.seen = [*self.seen[1:], self._small()]
        return np.stack(self.seen), total, over, self.frames >= self.max_frames and not over, info["lives"]

    def _small(self):
        return cv2.resize(self.shown, (84, 84), interpolation=cv2.INTER_AREA)


def losing_breakout_actions(length):
    """Serve every fifth step and never move: Breakout's five lives are gone after some 130 steps."""
    return [1 if step % 5 == 0 else 0 for step in range(length)]
