"""Our environments under Gymnasium ids: `import rims_rl.envs`, then `gymnasium.make("rims_rl/CartPoleNovel-v0")`."""

from __future__ import annotations

import gymnasium as gym

CARTPOLE_NOVEL = "rims_rl/CartPoleNovel-v0"
ATARI = "rims_rl/Atari-v0"


def register_environments() -> None:
    """Register every id of ours that is not there yet; all settings are JSON-safe, so specs survive a round trip."""
    if CARTPOLE_NOVEL not in gym.registry:
        gym.register(
            id=CARTPOLE_NOVEL,
            entry_point="rims_rl.envs.cartpole:CartPoleNovelEnv",
            max_episode_steps=500,
            reward_threshold=475.0,
        )
    if ATARI not in gym.registry:
        gym.register(id=ATARI, entry_point="rims_rl.envs.gym_route:AtariGymEnv", kwargs={"game": "pong"})
