"""What all MiniGrid tasks share: ids, observations, seeds, snapshots."""

from __future__ import annotations

import json
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from rims_rl.envs import make_env
from rims_rl.envs.registration import MAZES, PICK_OBJECT, PICK_TOLD_OBJECT
from rims_rl.errors import ConfigError

pytest.importorskip("minigrid")

from minigrid.minigrid_env import MiniGridEnv

from rims_rl.envs.minigrid.flat import FlatMiniGridEnv

_IDS = [*PICK_OBJECT, *PICK_TOLD_OBJECT, *(name for tasks in MAZES.values() for name in tasks)]
_SOME = [
    "rims_rl/PickToldObject-novel-many-v0",
    "rims_rl/DoorKey-6x6-v0",
    "rims_rl/MultiRoom-N4-S5-v0",
]


def _walk_about(env, length, seed):
    """Return all that is seen on a random walk that likes to go forward, with resets where an episode ends."""
    seen = []
    for action in np.random.default_rng(seed).choice(7, size=length, p=[0.2, 0.2, 0.3, 0.1, 0.05, 0.1, 0.05]):
        observation, *rest = env.step(int(action))
        if rest[1] or rest[2]:
            observation = env.reset()[0]
        seen.append((observation, rest))
    return seen


def _assert_equal(seen, other):
    for (observation, rest), (other_observation, other_rest) in zip(seen, other, strict=True):
        np.testing.assert_array_equal(observation, other_observation)
        assert rest == other_rest


class TestEveryId:
    @pytest.mark.parametrize("name", _IDS)
    def test_its_spec_survives_json(self, name):
        env = gym.make(name, render_mode="rgb_array")
        again = gym.make(EnvSpec.from_json(env.spec.to_json()))
        np.testing.assert_array_equal(again.reset(seed=5)[0], env.reset(seed=5)[0])
        assert again.spec.kwargs == env.spec.kwargs

    def test_they_train_as_one_vectorised_environment(self):
        env = make_env("rims_rl/PickObject-v0", n_envs=3, seed=5)
        assert env.reset().shape == (3, 993)
        observations, *_ = env.step(np.array([0, 1, 2]))
        assert (observations.dtype, env.observation_space.shape) == (np.float32, (993,))
        assert env.has_attr("snapshot")


class TestObservations:
    @pytest.mark.parametrize("name", [*_SOME, "rims_rl/Empty-5x5-v0"])
    def test_they_are_minigrids_own_one_hot(self, name):
        env = gym.make(name).unwrapped
        env.reset(seed=5)
        for _ in range(60):
            ((observation, _),) = _walk_about(env, 1, env.np_random.integers(1000))
            own = MiniGridEnv.gen_obs(env)
            cells = observation[:980].reshape(7, 7, 20)
            for code, channels in enumerate((slice(0, 11), slice(11, 17), slice(17, 20))):
                assert (cells[..., channels].sum(-1) == 1).all()
                np.testing.assert_array_equal(cells[..., channels].argmax(-1), own["image"][..., code])
            assert observation[980:984].tolist() == [float(d == own["direction"]) for d in range(4)]
            assert set(observation.tolist()) == {0.0, 1.0}

    def test_what_is_carried_is_seen_in_the_agents_own_cell(self):
        env = gym.make("rims_rl/DoorKey-5x5-v0").unwrapped
        env.reset(seed=5)
        assert env.gen_obs()["image"][3, 6].tolist() == [1, 0, 0]
        env.carrying = env.grid.get(
            *next((x, y) for x in range(5) for y in range(5) if env.grid.get(x, y) and env.grid.get(x, y).type == "key")
        )
        assert env.gen_obs()["image"][3, 6].tolist() == [5, 4, 0]


class TestSeeds:
    @pytest.mark.parametrize("name", _SOME)
    def test_a_seed_decides_everything(self, name):
        first, again = (gym.make(name).unwrapped for _ in range(2))
        for env in (first, again):
            env.reset(seed=5)
        _assert_equal(_walk_about(first, 101, 3), _walk_about(again, 101, 3))
        grids = {str(first.reset(seed=seed)[0].nonzero()) for seed in range(11)}
        assert len(grids) > 5


class TestSnapshots:
    @pytest.mark.parametrize("name", _SOME)
    def test_a_restored_episode_goes_on_bit_for_bit_into_the_next_ones(self, name):
        env, fresh = (gym.make(name).unwrapped for _ in range(2))
        env.reset(seed=5)
        _walk_about(env, 23, 3)
        fresh.restore(env.snapshot())
        _assert_equal(_walk_about(fresh, 211, 7), _walk_about(env, 211, 7))

    def test_doors_and_what_is_carried_come_back(self):
        env, fresh = (gym.make("rims_rl/DoorKey-5x5-v0").unwrapped for _ in range(2))
        env.reset(seed=5)
        door = next(cell for cell in env.grid.grid if cell and cell.type == "door")
        key = next(cell for cell in env.grid.grid if cell and cell.type == "key")
        door.is_locked, env.carrying = False, key
        fresh.restore(env.snapshot())
        np.testing.assert_array_equal(fresh.grid.encode(), env.grid.encode())
        assert (fresh.carrying.type, fresh.carrying.color) == ("key", "yellow")

    def test_one_from_before_the_first_reset_can_be_restored(self):
        env, other = (gym.make("rims_rl/PickObject-v0").unwrapped for _ in range(2))
        other.reset(seed=5)
        other.restore(env.snapshot())
        assert other.agent_dir is None
        np.testing.assert_array_equal(env.reset()[0], other.reset()[0])

    def test_all_but_the_grid_is_json(self):
        env = gym.make("rims_rl/PickToldObject-v0").unwrapped
        env.reset(seed=5)
        snapshot = env.snapshot()
        assert snapshot.pop("grid").shape == (8, 8, 3)
        assert json.loads(json.dumps(snapshot)) == snapshot

    def test_one_of_another_size_is_refused(self):
        env, other = gym.make("rims_rl/Empty-5x5-v0").unwrapped, gym.make("rims_rl/Empty-16x16-v0").unwrapped
        env.reset(seed=5)
        with pytest.raises(ConfigError, match=r"snapshot is of a grid \(5, 5\), this task has \(16, 16\)"):
            other.restore(env.snapshot())


class TestRefusals:
    @pytest.mark.parametrize("action", [-1, 7, 2.5, [1], float("nan"), None])
    def test_an_action_out_of_range_is_one_line(self, action):
        env = gym.make("rims_rl/Empty-5x5-v0").unwrapped
        env.reset(seed=5)
        with pytest.raises(ConfigError, match="is out of range: this task has actions 0 to 6"):
            env.step(action)

    def test_without_the_package_the_message_names_the_extra(self, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "minigrid" or "envs.minigrid" in name]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "minigrid", None)
        with pytest.raises(
            ConfigError, match=r'minigrid is not installed: pip install "rims-rl\[minigrid\]"'
        ) as caught:
            make_env("rims_rl/PickObject-v0", n_envs=1)
        assert "\n" not in str(caught.value)

    def test_all_tasks_share_the_base(self):
        assert all(isinstance(gym.make(name).unwrapped, FlatMiniGridEnv) for name in _SOME)
