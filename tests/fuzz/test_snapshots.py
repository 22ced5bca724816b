"""Snapshots of environments: whoever calls `restore` gets the snapshot's state or one line, whatever it is given."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecNormalize

from rims_rl.agents.environment_state import environment_state, set_environment_state
from rims_rl.envs import make_env
from rims_rl.envs.variants import VariantAtariEnv
from rims_rl.errors import ConfigError
from tests.fuzz.guard import survives
from tests.fuzz.hostile import Mischief, fuzzed

pytestmark = pytest.mark.faults
MONITORED = ("cartpole-novel", "rims_rl/PickObject-v0", "rims_rl/DoorKey-5x5-v0", "rims_rl/MultiRoom-N2-S4-v0")


@cache
def monitored(name: str) -> tuple[Any, dict[str, Any]]:
    """Return an environment with its Monitor, in the middle of an episode, and its snapshot."""
    env: Any = make_env(name, 1, 3)
    env.reset()
    for _ in range(3):
        env.step(np.array([0]))
    one = env.envs[0]
    return one, one.snapshot()


@cache
def pong() -> tuple[VariantAtariEnv, dict[str, Any]]:
    env = VariantAtariEnv("pong", variant="lazy_enemy", distractor="noise:0.5", frame_stack=2)
    env.reset(seed=1)
    return env, env.snapshot()


def mixed(by: Mischief, snapshot: dict[str, Any]) -> Any:
    """Return a mutated snapshot, some of whose arrays are others."""
    changed = by.json(snapshot)
    for name in list(changed) if isinstance(changed, dict) and by.random.random() < 0.5 else []:
        value = changed[name]
        if isinstance(value, np.ndarray):
            changed[name] = by.one_of(
                [np.zeros(3), np.full((), np.nan), value.ravel()[:1], value[None], value * 0 + 99]
            )
    return changed


class TestMutations:
    @fuzzed(250)
    def test_monitored(self, tmp_path_factory, by):
        env, snapshot = monitored(by.one_of(list(MONITORED)))
        changed = mixed(by, snapshot)
        if isinstance(changed, dict) and by.random.random() < 0.6:
            changed = snapshot | {"env": mixed(by, snapshot["env"])}

        def go_on() -> None:
            env.restore(changed)
            env.action_space.seed(1)
            if not env.needs_reset:
                env.step(np.int64(0))

        survives(go_on, Path(tmp_path_factory.getbasetemp()))
        env.restore(snapshot)

    @fuzzed(150)
    def test_a_variant_of_pong(self, tmp_path_factory, by):
        env, snapshot = pong()
        part = by.one_of(["console", "distraction", "screen", "counters", None])
        changed = mixed(by, snapshot) if part is None else snapshot | {part: mixed(by, snapshot[part])}

        def go_on() -> None:
            env.restore(changed)
            env.step(np.int64(0))

        survives(go_on, Path(tmp_path_factory.getbasetemp()))
        env.restore(snapshot)


class TestWhatIsRefused:
    @pytest.mark.parametrize("codes", [11, 200])
    def test_objects_that_minigrid_lacks(self, codes):
        env, snapshot = monitored("rims_rl/PickObject-v0")
        grid = np.full_like(snapshot["env"]["grid"], codes)
        with pytest.raises(ConfigError, match="no object of MiniGrid's"):
            env.restore(snapshot | {"env": snapshot["env"] | {"grid": grid}})

    @pytest.mark.parametrize("agent", [[-1, 0, 0], [100, 0, 0], [1, 1, 4], [1, 1], "abc", [1.5, 1, 1], {"x": 1}])
    def test_agents_outside_of_the_grid(self, agent):
        env, snapshot = monitored("rims_rl/DoorKey-5x5-v0")
        with pytest.raises(ConfigError, match="this snapshot is damaged"):
            env.restore(snapshot | {"env": snapshot["env"] | {"agent": agent}})

    @pytest.mark.parametrize("steps", [[-1], [10**9], [], [1, 1], None, ["1"]])
    def test_times_that_no_limit_has(self, steps):
        env, snapshot = monitored("cartpole-novel")
        with pytest.raises(ConfigError, match="this snapshot is"):
            env.restore(snapshot | {"elapsed_steps": steps})

    @pytest.mark.parametrize(
        "state", [np.zeros(3), np.full(4, np.nan), np.zeros((4, 1)), [0, 0, 0, 0], np.zeros(4, "f4")]
    )
    def test_poles_that_are_nowhere(self, state):
        env, snapshot = monitored("cartpole-novel")
        with pytest.raises(ConfigError, match="this snapshot is damaged"):
            env.restore(snapshot | {"env": snapshot["env"] | {"state": state}})

    @pytest.mark.parametrize("name", ["newest", "previous", "stack"])
    def test_screens_of_other_sizes(self, name):
        env, snapshot = pong()
        for other in (np.zeros(1, np.uint8), np.zeros((), np.uint8), snapshot["screen"][name].astype(np.float32), 7):
            with pytest.raises(ConfigError, match=f"its {name} is"):
                env.restore(snapshot | {"screen": snapshot["screen"] | {name: other}})

    @pytest.mark.parametrize("part", ["mean", "var", "count", "returns"])
    def test_statistics_of_other_observations(self, part):
        env = VecNormalize(make_env("cartpole-novel", 2, 3))
        env.reset()
        state = environment_state(env)
        for value in (np.zeros(7), np.full(2, np.nan), "x", None, np.zeros((2, 2)), {}):
            changed = {**state["normalizer"], "statistics": {**state["normalizer"]["statistics"]}}
            if part == "returns":
                changed["returns"] = value
            else:
                changed["statistics"]["obs observation"] = changed["statistics"]["obs observation"] | {part: value}
            with pytest.raises((ValueError, TypeError)):
                set_environment_state(env, {**state, "normalizer": changed}, 3)
        set_environment_state(env, state, 3)

    def test_an_attribute_that_is_no_statistic_stays(self):
        env = VecNormalize(make_env("cartpole-novel", 2, 3))
        env.reset()
        state = environment_state(env)
        state["normalizer"]["statistics"]["return"]["update"] = "mine"
        set_environment_state(env, state, 3)
        assert callable(env.ret_rms.update)


def test_gymnasium_is_as_it_is_expected_to_be():
    """`gymnasium.spec` imports no module; `gymnasium.make` would."""
    with pytest.raises(gym.error.Error):
        gym.spec("rims_canary:Evil-v0")
