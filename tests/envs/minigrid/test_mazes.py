"""The growing mazes: sizes, rooms, solvability."""

from __future__ import annotations

import gymnasium as gym
import pytest

from rims_rl.envs.registration import MAZES
from rims_rl.errors import ConfigError
from tests.envs.minigrid.oracle import PICK_UP, find, play, walk

pytest.importorskip("minigrid")

from rims_rl.envs.minigrid import DoorKeyMazeEnv, EmptyMazeEnv, MultiRoomMazeEnv


def _solve(env):
    """Return the last step of an oracle: to the key if there is one, then to the goal."""
    if keys := find(env, "key"):
        play(env, [*walk(env, keys[0]), PICK_UP])
    return play(env, walk(env, find(env, "goal")[0], onto=True))[-1]


class TestEveryMaze:
    @pytest.mark.parametrize("name", [name for tasks in MAZES.values() for name in tasks])
    def test_an_oracle_solves_it_for_minigrids_reward(self, name):
        env = gym.make(name).unwrapped
        for seed in range(5):
            env.reset(seed=seed)
            _, reward, terminated, _, _ = _solve(env)
            assert terminated
            assert reward == pytest.approx(1 - 0.9 * env.step_count / env.max_steps, abs=1e-12)
            assert reward > 0.1

    @pytest.mark.parametrize("tasks", MAZES.values(), ids=MAZES)
    def test_the_first_of_a_family_is_the_smallest(self, tasks):
        sizes = [[value for _, value in sorted(settings.items())] for settings in tasks.values()]
        assert all(first <= later for later in sizes for first in sizes[:1])
        assert len({tuple(size) for size in sizes}) == len(sizes)


class TestSizes:
    @pytest.mark.parametrize(("name", "side"), [("Empty-5x5", 5), ("Empty-16x16", 16), ("DoorKey-8x8", 8)])
    def test_rooms_have_the_named_size(self, name, side):
        env = gym.make(f"rims_rl/{name}-v0").unwrapped
        assert (env.width, env.height) == (side, side)

    @pytest.mark.parametrize(
        ("name", "rooms", "room_size"), [("N2-S4", 2, 4), ("N4-S5", 4, 5), ("N6-S5", 6, 5), ("N6", 6, 10)]
    )
    def test_there_are_as_many_rooms_as_named_and_none_is_larger(self, name, rooms, room_size):
        env = gym.make(f"rims_rl/MultiRoom-{name}-v0").unwrapped
        for seed in range(7):
            env.reset(seed=seed)
            assert len(env.rooms) == rooms
            assert len(find(env, "door")) == rooms - 1
            assert max(side for room in env.rooms for side in room.size) <= room_size

    def test_minigrids_own_n4_s5_v0_has_six_rooms_as_our_docs_say(self):
        assert gym.spec("MiniGrid-MultiRoom-N4-S5-v0").kwargs["minNumRooms"] == 6


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "settings", "message"),
        [
            (EmptyMazeEnv, {"size": 3}, "size must be a whole number of at least 4, got 3"),
            (DoorKeyMazeEnv, {"size": 4.5}, "size must be a whole number of at least 5, got 4.5"),
            (MultiRoomMazeEnv, {"rooms": 0}, "rooms must be a whole number of at least 1, got 0"),
            (MultiRoomMazeEnv, {"room_size": 3}, "room_size must be a whole number of at least 4, got 3"),
            (MultiRoomMazeEnv, {"rooms": 7}, "at most 6 rooms of at most 10 cells fit into the grid, got 7 of 4"),
        ],
    )
    def test_each_is_one_line_that_says_what_would_be_right(self, make, settings, message):
        with pytest.raises(ConfigError, match=message):
            make(**settings)
