"""Object picking: distractors of training and test, the goal, the reward, solvability."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rims_rl.envs.registration import PICK_OBJECT, PICK_TOLD_OBJECT
from rims_rl.errors import ConfigError
from tests.envs.minigrid.oracle import PICK_UP, TOGGLE, find, play, walk

pytest.importorskip("minigrid")

from rims_rl.envs.minigrid import KNOWN, NOVEL, TARGETS, PickObjectEnv


def _kinds(env):
    """Return the kinds of all objects in the room."""
    return [f"{cell.color} {cell.type}" for cell in env.grid.grid if cell and cell.type != "wall"]


class TestDistractors:
    def test_wanted_known_and_novel_kinds_are_disjoint_and_are_all_kinds(self):
        assert len({*TARGETS, *KNOWN, *NOVEL}) == len(TARGETS) + len(KNOWN) + len(NOVEL) == 3 * 6

    @pytest.mark.parametrize("kinds", [KNOWN, NOVEL])
    def test_every_colour_and_every_type_occurs_on_both_sides(self, kinds):
        colours, types = zip(*(kind.split(" ") for kind in kinds), strict=True)
        assert set(colours) == {"red", "green", "blue", "purple", "yellow", "grey"}
        assert set(types) == {"key", "ball", "box"}

    @pytest.mark.parametrize("name", [*PICK_OBJECT, *PICK_TOLD_OBJECT])
    def test_a_room_holds_one_wanted_object_and_only_distractors_of_its_set(self, name):
        env = gym.make(name).unwrapped
        allowed = NOVEL if "novel" in name else KNOWN
        numbers, met = set(), set()
        for seed in range(150):
            env.reset(seed=seed)
            kinds = _kinds(env)
            assert kinds.count(env.target) == 1
            distractors = [kind for kind in kinds if kind != env.target]
            met.update(distractors)
            numbers.add(len(distractors))
        assert met == set(allowed)
        assert numbers == ({6, 7, 8} if "many" in name else {2, 3, 4})


class TestTheGoal:
    def test_it_is_the_red_ball_unless_several_are_asked_for(self):
        env = gym.make("rims_rl/PickObject-v0").unwrapped
        for seed in range(7):
            assert env.reset(seed=seed)[0][984:].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]
            assert env.target == "red ball"

    def test_each_of_four_is_told_by_the_last_nine_numbers(self):
        env = gym.make("rims_rl/PickToldObject-v0").unwrapped
        told = {}
        for seed in range(40):
            observation, _ = env.reset(seed=seed)
            told[env.target] = observation[984:].tolist()
        assert told == {
            "red ball": [0, 1, 0, 1, 0, 0, 0, 0, 0],
            "green key": [1, 0, 0, 0, 1, 0, 0, 0, 0],
            "blue box": [0, 0, 1, 0, 0, 1, 0, 0, 0],
            "yellow ball": [0, 1, 0, 0, 0, 0, 0, 1, 0],
        }


class TestReward:
    @pytest.mark.parametrize("name", ["rims_rl/PickObject-v0", "rims_rl/PickToldObject-novel-many-v0"])
    def test_an_oracle_picks_every_wanted_object_for_the_papers_reward(self, name):
        env = gym.make(name).unwrapped
        for seed in range(60):
            env.reset(seed=seed)
            (goal,) = find(env, env.target)
            actions = [*walk(env, goal), PICK_UP]
            *before, (_, reward, terminated, truncated, info) = play(env, actions)
            assert all(step[1:] == (0.0, False, False, {}) for step in before)
            assert reward == pytest.approx(1 - 0.9 * len(actions) / 320, abs=1e-12)
            assert (terminated, truncated, info) == (True, False, {"picked": env.target})

    def test_a_wrong_object_ends_the_episode_without_reward(self):
        env = gym.make("rims_rl/PickObject-v0").unwrapped
        checked = 0
        for seed in range(20):
            env.reset(seed=seed)
            wrong = next(kind for kind in _kinds(env) if kind != env.target)
            try:
                actions = [*walk(env, find(env, wrong)[0]), PICK_UP]
            except AssertionError:
                continue
            *_, (_, reward, terminated, _, info) = play(env, actions)
            assert (reward, terminated, info) == (0.0, True, {"picked": wrong})
            checked += 1
        assert checked > 10

    def test_nothing_picked_is_truncated_without_reward(self):
        env = PickObjectEnv(max_steps=11)
        env.reset(seed=5)
        steps = play(env, [0] * 11)
        assert [step[1:4] for step in steps] == [(0.0, False, False)] * 10 + [(0.0, False, True)]

    def test_a_box_can_not_be_opened(self):
        env = PickObjectEnv(targets=["blue box"])
        env.reset(seed=5)
        (goal,) = find(env, "blue box")
        play(env, [*walk(env, goal), TOGGLE])
        assert find(env, "blue box") == [goal]
        restored = PickObjectEnv(targets=["blue box"])
        restored.restore(env.snapshot())
        *_, (_, reward, _, _, _) = play(restored, [TOGGLE, PICK_UP])
        assert reward > 0


class TestPartialView:
    def test_what_lies_behind_the_agent_is_not_seen(self):
        env = PickObjectEnv(min_distractors=0, max_distractors=0)
        hidden = 0
        for seed in range(30):
            observation, _ = env.reset(seed=seed)
            dx, dy = env.dir_vec
            (x, y), (goal_x, goal_y) = env.agent_pos, find(env, "red ball")[0]
            ahead = (goal_x - x) * dx + (goal_y - y) * dy
            aside = abs((goal_x - x) * -dy + (goal_y - y) * dx)
            seen = observation[:980].reshape(7, 7, 20)[..., 6].any()
            assert seen == (ahead >= 0 and aside <= 3)
            hidden += not seen
        assert hidden > 5


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"size": 4}, "size must be a whole number of at least 5, got 4"),
            ({"distractors": "new"}, "unknown set of distractors 'new'; did you mean 'novel' or 'known'"),
            ({"targets": ["red bal"]}, "unknown target 'red bal'; did you mean 'red ball'"),
            ({"targets": 3}, "targets must be a list of kinds such as .*, got 3"),
            ({"distractors": ["known"]}, "unknown set of distractors"),
            ({"targets": ["grey key"]}, "unknown target 'grey key'"),
            ({"targets": []}, "targets must be a list of kinds such as \\['red ball'\\], got \\[\\]"),
            ({"targets": "red ball"}, "targets must be a list of kinds"),
            ({"min_distractors": 5}, "min_distractors 5 and max_distractors 4 must be in order and at most 9"),
            ({"max_distractors": 10}, "must be in order and at most 9 in this room"),
            ({"max_steps": 0}, "max_steps must be a whole number of at least 1, got 0"),
        ],
    )
    def test_each_is_one_line_that_says_what_would_be_right(self, settings, message):
        with pytest.raises(ConfigError, match=message) as caught:
            PickObjectEnv(**settings)
        assert "\n" not in str(caught.value)

    def test_crowded_rooms_are_still_solvable(self):
        env = PickObjectEnv(size=5, min_distractors=2, max_distractors=2)
        for seed in range(50):
            env.reset(seed=seed)
            assert walk(env, find(env, "red ball")[0]) is not None


def test_rooms_differ():
    env = PickObjectEnv()
    assert len({env.reset(seed=seed)[0].tobytes() for seed in range(23)}) == 23
    assert np.ptp([len(_kinds(env)) for _ in range(20) if env.reset()]) > 0
