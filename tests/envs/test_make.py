"""`make_env` for every kind of name."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from rims_rl.envs import make_env
from rims_rl.errors import ConfigError, UnknownNameError


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

    def test_what_its_constructor_refuses_becomes_one_line(self):
        gym.register(
            "rims_rl_test/Refusing-v0", entry_point=lambda size: (_ for _ in ()).throw(ValueError("bad\nsize"))
        )
        try:
            with pytest.raises(
                ConfigError, match=r"^rims_rl_test/Refusing-v0 can't be made with {'size': 7}: bad size$"
            ):
                make_env("rims_rl_test/Refusing-v0", 1, size=7)
        finally:
            gym.registry.pop("rims_rl_test/Refusing-v0")

    def test_one_without_snapshots_says_so(self):
        assert not make_env("CartPole-v1", 2).has_attr("snapshot")


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

    def test_a_name_with_a_missing_module_is_unknown(self):
        with pytest.raises(UnknownNameError, match="unknown environment"):
            make_env("no_such_module:Thing-v0", 1)

    @pytest.mark.parametrize("arguments", [{"n_envs": 0}, {"seed": -1}])
    def test_counts_are_checked(self, arguments):
        with pytest.raises(ConfigError, match="must be a whole number of at least"):
            make_env("CartPole-v1", **arguments)
