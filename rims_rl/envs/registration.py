"""Our environments under Gymnasium ids: `import rims_rl.envs`, then `gymnasium.make("rims_rl/CartPoleNovel-v0")`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rims_rl.envs.distractors.distractor import KINDS

CARTPOLE_NOVEL = "rims_rl/CartPoleNovel-v0"
ATARI = "rims_rl/Atari-v0"
ATARI_VARIANT = "rims_rl/AtariVariant-v0"
ATARI_DISTRACTED = {kind: f"rims_rl/Atari-{kind}-v0" for kind in KINDS}
"""An id per kind of distractor, at intensity 0.5 unless `distractor` says otherwise."""

PICK_OBJECT: dict[str, dict[str, Any]] = {
    "rims_rl/PickObject-v0": {"distractors": "known", "min_distractors": 2, "max_distractors": 4},
    "rims_rl/PickObject-novel-v0": {"distractors": "novel", "min_distractors": 2, "max_distractors": 4},
    "rims_rl/PickObject-many-v0": {"distractors": "known", "min_distractors": 6, "max_distractors": 8},
    "rims_rl/PickObject-novel-many-v0": {"distractors": "novel", "min_distractors": 6, "max_distractors": 8},
}
"""Object picking: training comes first; then novel kinds, greater numbers, and both at test."""
PICK_TOLD_OBJECT = {
    name.replace("PickObject", "PickToldObject"): settings
    | {"targets": ["red ball", "green key", "blue box", "yellow ball"]}
    for name, settings in PICK_OBJECT.items()
}
"""The same with one of four wanted kinds per episode, which the observation tells."""
MAZES: dict[str, dict[str, dict[str, Any]]] = {
    "EmptyMazeEnv": {"rims_rl/Empty-5x5-v0": {"size": 5}, "rims_rl/Empty-16x16-v0": {"size": 16}},
    "DoorKeyMazeEnv": {f"rims_rl/DoorKey-{size}x{size}-v0": {"size": size} for size in (5, 6, 8, 16)},
    "MultiRoomMazeEnv": {
        "rims_rl/MultiRoom-N2-S4-v0": {"rooms": 2, "room_size": 4},
        "rims_rl/MultiRoom-N4-S5-v0": {"rooms": 4, "room_size": 5},
        "rims_rl/MultiRoom-N6-S5-v0": {"rooms": 6, "room_size": 5},
        "rims_rl/MultiRoom-N6-v0": {"rooms": 6, "room_size": 10},
    },
}
"""The growing mazes by class: training comes first, the larger ones are for tests."""


def _changed_tasks() -> dict[str, tuple[str, ...]]:
    families = [list(tasks) for tasks in (PICK_OBJECT, PICK_TOLD_OBJECT, *MAZES.values())]
    return {first: tuple(others) for first, *others in families}


CHANGED_TASKS = _changed_tasks()
"""For each id that is for training, those that differ from it and are for tests."""


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
    for kind, name in ATARI_DISTRACTED.items():
        if name not in gym.registry:
            settings = {"game": "pong", "distractor": f"{kind}:0.5", "distractor_split": "train"}
            gym.register(id=name, entry_point="rims_rl.envs.gym_route:AtariGymEnv", kwargs=settings)
    if ATARI_VARIANT not in gym.registry:
        settings = {"game": "pong", "variant": "lazy_enemy"}
        gym.register(id=ATARI_VARIANT, entry_point="rims_rl.envs.variants:VariantAtariEnv", kwargs=settings)
    _register_minigrid()


def _register_minigrid() -> None:
    """Register the ids whose classes need the extra package minigrid, which only making one of them imports."""
    for class_name, tasks in {"PickObjectEnv": PICK_OBJECT | PICK_TOLD_OBJECT, **MAZES}.items():
        for name, settings in tasks.items():
            if name not in gym.registry:
                gym.register(id=name, entry_point=f"rims_rl.envs.minigrid:{class_name}", kwargs=settings)
