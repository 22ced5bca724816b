"""CartPole without velocities: the smallest control task that a policy without memory cannot solve.

The pole's position tells nothing of where it moves, so a memoryless policy holds it for some tens of steps out of 500.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

from rims_rl.envs.random_state import dump_generator, load_generator
from rims_rl.envs.snapshots import array, entry, text, whole_number
from rims_rl.errors import ConfigError

_VISIBLE = [0, 2]  # cart position and pole angle of (position, velocity, angle, angular velocity)


class CartPoleNovelEnv(CartPoleEnv):
    """CartPole whose observation (2,) float32 is the cart's position in metres and the pole's angle in radians."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        high = np.array([self.x_threshold * 2, self.theta_threshold_radians * 2], np.float32)  # as CartPole has them
        self.observation_space = Box(-high, high, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode as CartPole does; return the visible part and an empty info."""
        observation, info = super().reset(seed=seed, options=options)
        return observation[_VISIBLE], info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the cart left (0) or right (1) for 0.02 s; the reward is 1 until the pole falls."""
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        return observation[_VISIBLE], float(reward), terminated, truncated, info

    def snapshot(self) -> dict[str, Any]:
        """Return the physical state (4,) float64, empty before the first reset, and the random stream."""
        state = np.zeros(0) if self.state is None else np.array(self.state, np.float64)
        return {"state": state, "fallen": self.steps_beyond_terminated, "np_random": dump_generator(self.np_random)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned, bit for bit; raises ConfigError when it is damaged."""
        state = array(snapshot, "state", None, np.float64)
        if state.shape not in ((0,), (4,)):
            raise ConfigError(f"this snapshot is damaged: its state is of shape {state.shape}, expected (4,)")
        fallen = None if entry(snapshot, "fallen") is None else whole_number(snapshot, "fallen")
        vars(self).update(state=state.copy() if state.size else None, steps_beyond_terminated=fallen)
        load_generator(self.np_random, text(snapshot, "np_random"))
