"""`make_env` for every kind of name."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.monitor import Monitor

from rims_rl.envs import make_env
from rims_rl.envs.watched import Patience, WatchedVecEnv
from rims_rl.errors import ConfigError, UnknownNameError


class Dot(gym.Env):
    """A dot on green, one pixel further with every step; an episode has 5 steps, the reward is the step."""

    def __init__(self, size=41):
        self.observation_space, self.action_space = Box(0, 255, (37, size, 3), np.uint8), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._frame(), {}

    def step(self, action):
        self.steps += 1
        return self._frame(), float(self.steps), self.steps == 5, False, {}

    def _frame(self):
        frame = np.full(self.observation_space.shape, (10, 90, 30), np.uint8)
        frame[17:20, self.steps] = 255
        return frame


@pytest.fixture
def dot():
    """The name of `Dot` while a test runs."""
    name = "rims_rl_test/Dot-v0"
    gym.register(name, entry_point=Dot)
    yield name
    gym.registry.pop(name)


def _rollout(env, length=7):
    """Return observations (length + 1, n, H, W, 3), rewards and dones of some steps."""
    first, steps = env.reset(), [env.step(np.zeros(env.num_envs, int)) for _ in range(length)]
    env.close()
    return np.stack([first, *(step[0] for step in steps)]), *(np.stack([step[i] for step in steps]) for i in (1, 2))


class TestAtariNames:
    @pytest.mark.parametrize("route", ["vector", "gym"])
    def test_any_spelling_makes_the_game_by_the_asked_route(self, route):
        env = make_env("PongNoFrameskip-v4", 2, 5, route=route, frame_stack=3, protocol="machado", max_frames=8)
        assert env.get_attr("route") == [route, route]
        assert env.reset().shape == (2, 3, 84, 84)
        env.step(np.array([0, 17]))
        assert env.step(np.array([0, 17]))[2].all()

    def test_evaluation_is_passed_on(self):
        assert make_env("pong", 1, training=False).settings.rewards_are_signs is False

    def test_a_setting_that_atari_lacks_gets_the_nearest_name(self):
        with pytest.raises(
            ConfigError, match="pong takes no environment setting 'dificulty'; did you mean 'difficulty'"
        ):
            make_env("pong", 1, dificulty=1)


class TestGymnasiumNames:
    def test_copies_are_monitored_and_seeded(self):
        one, other = (make_env("CartPole-v1", 3, 5) for _ in range(2))
        assert one.env_is_wrapped(Monitor) == [True] * 3
        first = one.reset()
        assert first.shape == (3, 4)
        assert len({row.tobytes() for row in first}) == 3
        np.testing.assert_array_equal(first, other.reset())
        assert [space.sample() for space in one.get_attr("action_space")] == [
            space.sample() for space in other.get_attr("action_space")
        ]

    def test_infos_hold_monitors_episode_and_no_lives(self):
        env = make_env("CartPole-v1", 1, 5)
        env.reset()
        for length in range(1, 50):  # noqa: B007 - the length is compared below
            _, _, dones, (info,) = env.step(np.array([0]))
            if dones[0]:
                break
            assert info == {"TimeLimit.truncated": False}
        assert info.keys() == {"TimeLimit.truncated", "episode", "terminal_observation"}
        assert (info["episode"]["r"], info["episode"]["l"]) == (float(length), length)

    def test_settings_go_to_the_environment(self):
        env = make_env("CartPole-v1", 1, 5, sutton_barto_reward=True, max_episode_steps=3)
        env.reset()
        steps = [env.step(np.array([step % 2])) for step in range(3)]
        assert [step[1][0] for step in steps] == [0.0, 0.0, 0.0]
        assert steps[-1][3][0]["TimeLimit.truncated"] is True

    def test_a_setting_that_it_lacks_is_refused_in_one_line(self):
        with pytest.raises(ConfigError, match=r"^CartPole-v1 takes no environment setting 'mode'; did you mean"):
            make_env("CartPole-v1", 1, mode=1)

    @pytest.mark.parametrize("subprocess", [False, True])
    def test_what_its_constructor_refuses_becomes_one_line(self, subprocess):
        gym.register(
            "rims_rl_test/Refusing-v0", entry_point=lambda size: (_ for _ in ()).throw(ValueError("bad\nsize"))
        )
        try:
            with pytest.raises(
                ConfigError,
                match=r"^rims_rl_test/Refusing-v0 can't be made with {'size': 7}: bad size(\nenvironment 0|$)",
            ):
                make_env("rims_rl_test/Refusing-v0", 1, size=7, subprocess=subprocess)
        finally:
            gym.registry.pop("rims_rl_test/Refusing-v0")

    def test_one_without_snapshots_says_so(self):
        assert not make_env("CartPole-v1", 2).has_attr("snapshot")


class TestInProcessesOfTheirOwn:
    def test_copies_do_what_they_do_in_this_one(self):
        here, there = (make_env("CartPole-v1", 2, 5, subprocess=apart, max_episode_steps=7) for apart in (False, True))
        for one, other in zip(_rollout(here, 17), _rollout(there, 17), strict=True):
            np.testing.assert_array_equal(one, other)
        assert isinstance(there, WatchedVecEnv)

    def test_their_action_spaces_are_seeded_alike(self):
        here, there = (make_env("CartPole-v1", 2, 5, subprocess=apart) for apart in (False, True))
        samples, others = ([space.sample() for space in env.get_attr("action_space")] for env in (here, there))
        there.close()
        assert samples == others

    def test_distractors_lie_over_them(self, dot):
        here, there = (make_env(dot, 2, 5, distractor="balls:1", subprocess=apart) for apart in (False, True))
        for one, other in zip(_rollout(here), _rollout(there), strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("name", ["pong", "CartPole-v1"])
    def test_alone_have_patience(self, name):
        with pytest.raises(ConfigError, match=r"^env_restarts: only for environments in processes of their own, use s"):
            make_env(name, 1, env_restarts=1)

    def test_have_the_patience_that_is_asked_for(self):
        env = make_env("CartPole-v1", 1, subprocess=True, step_timeout=None, env_restarts=7)
        env.close()
        assert env.patience == Patience(None, 7)


class TestDistractors:
    def test_on_other_pictures_alter_what_is_seen_in_every_copy_and_nothing_else(self, dot):
        clean, *clean_rest = _rollout(make_env(dot, 3, 5))
        frames, *rest = _rollout(make_env(dot, 3, 5, distractor="balls:1"))
        assert frames.shape == clean.shape == (8, 3, 37, 41, 3)
        assert (frames != clean).any(axis=(0, 2, 3, 4)).all()
        np.testing.assert_array_equal(rest, clean_rest)
        assert rest[0][:, 0].tolist() == [1, 2, 3, 4, 5, 1, 2]

    def test_on_other_pictures_are_drawn_from_the_seed_and_differ_between_copies(self, dot):
        one, again, other = (_rollout(make_env(dot, 2, seed, distractor="balls:1"))[0] for seed in (5, 5, 50))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
        assert (one[:, 0] != one[:, 1]).any()

    def test_on_other_pictures_have_held_out_looks(self, dot):
        asked, meant, train = (
            _rollout(make_env(dot, 1, 5, **settings))[0]
            for settings in (
                {"distractor": "colour:1", "distractor_split": "held-out"},
                {"distractor": "colour:1:held-out"},
                {"distractor": "colour:1"},
            )
        )
        np.testing.assert_array_equal(asked, meant)
        assert (asked != train).any()

    def test_leave_the_environment_s_own_settings_to_it(self, dot):
        assert make_env(dot, 1, 5, distractor="noise:0.5", size=43).reset().shape == (1, 37, 43, 3)

    def test_where_nothing_is_rgb_are_refused_in_one_line_and_all_is_closed(self, monkeypatch):
        closed = []
        monkeypatch.setattr(Monitor, "close", lambda self: closed.append(self))
        with pytest.raises(ConfigError, match=r"^CartPole-v1: distractors need RGB observations .*") as caught:
            make_env("CartPole-v1", 3, distractor="balls:0.5")
        assert "\n" not in str(caught.value)
        assert len({id(env) for env in closed}) == 3

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"distractor": "ballz:0.5"}, "unknown kind of distractor 'ballz'; did you mean 'balls'?"),
            ({"distractor": "balls:7"}, "intensity must be from 0 to 1, got 7.0"),
            (
                {"distractor": "background:0.5:folder=nowhere"},
                "there is no folder nowhere; folder must hold videos or images",
            ),
            (
                {"distractor": "balls", "distractor_split": "test"},
                "unknown distractor split 'test'; known names: held-out, train",
            ),
        ],
    )
    def test_that_cannot_be_are_one_line_before_anything_is_built(self, settings, message, dot, monkeypatch):
        monkeypatch.setattr(Dot, "__init__", lambda *_, **__: pytest.fail("an environment was built"))
        with pytest.raises(ConfigError) as caught:
            make_env(dot, 1, **settings)
        assert str(caught.value) == message

    @pytest.mark.parametrize("name", ["rims_rl/Atari-balls-v0", "rims_rl/AtariVariant-v0"])
    def test_go_to_an_environment_that_has_them_itself(self, name):
        env = make_env(name, 1, 5, game="pong", distractor="noise:0.3")
        np.testing.assert_array_equal(env.reset(), make_env("pong", 1, 5, route="gym", distractor="noise:0.3").reset())


class TestOurNames:
    @pytest.mark.parametrize("name", ["cartpole-novel", "CartPole-Novel", "rims_rl/CartPoleNovel-v0"])
    def test_cartpole_without_velocities_has_an_alias(self, name):
        assert make_env(name, 2, 5).reset().shape == (2, 2)


class TestBadArguments:
    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("CartPol-v1", "'CartPole-v1'"),
            ("cartpole-nvoel", "'cartpole-novel'"),
            ("brekout", "'breakout'"),
            ("CartPole-v17", "'CartPole-v1'"),
            ("ALE/Brekout-v5", "'breakout'"),
        ],
    )
    def test_an_unknown_name_gets_the_nearest_of_all(self, name, near):
        with pytest.raises(UnknownNameError, match=near):
            make_env(name, 1)

    @pytest.mark.faults
    def test_a_name_imports_no_module(self, tmp_path, monkeypatch):
        (tmp_path / "some_module.py").write_text("raise SystemExit('it ran')")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ConfigError, match="names a module, which a name may not run; import it yourself"):
            make_env("some_module:Thing-v0", 1)

    @pytest.mark.parametrize("arguments", [{"n_envs": 0}, {"seed": -1}])
    def test_counts_are_checked(self, arguments):
        with pytest.raises(ConfigError, match="must be a whole number of at least"):
            make_env("CartPole-v1", **arguments)
