"""The C++ route against single games, and as a `VecEnv`."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack

from rims_rl.envs import emulator, make_atari_env
from rims_rl.errors import ConfigError
from tests.envs.single_game import SingleGame, losing_breakout_actions


def _vector(game="breakout", n_envs=1, **kwargs):
    return make_atari_env(game, n_envs, route="vector", noop_max=1, **kwargs)


@pytest.fixture(scope="module")
def pong():
    env = _vector("pong", n_envs=2)
    env.reset()
    yield env
    env.close()


class TestAgainstASingleGame:
    @pytest.mark.parametrize("game", ["breakout", "ms_pacman"])
    def test_whole_games_agree_in_frames_rewards_lives_scores_and_lengths(self, game):
        env, single = _vector(game, training=False), SingleGame(game)
        np.testing.assert_array_equal(env.reset()[0], single.reset())
        rng, score, length, games = np.random.default_rng(7), 0.0, 0, 0
        while games < 1 and length < 900:
            action = int(rng.integers(env.action_space.n))
            seen, reward, over, _, lives = single.step(action)
            observations, rewards, dones, (info,) = env.step(np.array([action]))
            score, length = score + reward, length + 1
            assert (rewards[0], dones[0]) == (reward, over)
            np.testing.assert_array_equal(info["terminal_observation"] if over else observations[0], seen)
            if over:
                assert (info["episode"]["r"], info["episode"]["l"]) == (score, length)
                np.testing.assert_array_equal(observations[0], single.reset())
                score, length, games = 0.0, 0, games + 1
            else:
                assert info == {"lives": lives, "life_lost": False}
        assert games == 1

    def test_a_time_limit_truncates_where_the_single_game_does(self):
        env, single = _vector("pong", max_frames=150), SingleGame("pong", max_frames=150)
        env.reset(), single.reset()
        for step in range(1, 39):
            seen, _, _, truncated, _ = single.step(2)
            _, _, dones, (info,) = env.step(np.array([2]))
            assert dones[0] == truncated == (step == 38)
        assert info["TimeLimit.truncated"] is True
        assert info["episode"]["l"] == 38
        np.testing.assert_array_equal(info["terminal_observation"], seen)


@pytest.mark.faults
class TestALostLife:
    def test_is_done_with_the_present_observation_and_the_game_goes_on(self):
        env, single = _vector(), SingleGame("breakout")
        env.reset(), single.reset()
        lives, losses, continued = 5, 0, None
        for action in losing_breakout_actions(200):
            seen, _, over, _, left = single.step(action)
            observations, _, dones, (info,) = env.step(np.array([action]))
            lost = left < lives and not over
            lives = left
            assert (info["life_lost"], bool(dones[0])) == (lost, lost or over)
            if continued is not None:
                np.testing.assert_array_equal(observations[0][:-1], continued[1:])
            continued = observations[0] if lost else None
            if over:
                break
            if lost:
                losses += 1
                assert "episode" not in info
                assert info["TimeLimit.truncated"] is False
                np.testing.assert_array_equal(info["terminal_observation"], seen)
            np.testing.assert_array_equal(observations[0], seen)
        assert losses == 4
        assert info["episode"]["l"] > 100
        assert info["lives"] == 5

    def test_is_not_seen_where_a_game_with_extra_lives_ends_and_the_next_has_fewer(self):
        env = _vector(max_frames=4)
        env.reset()
        env._lives[:] = 7
        _, _, dones, (info,) = env.step(np.array([0]))
        assert dones[0]
        assert (info["life_lost"], info["lives"], info["episode"]["l"]) == (False, 5, 1)

    def test_is_no_done_in_evaluation(self):
        env = _vector(training=False)
        env.reset()
        steps = [env.step(np.array([action])) for action in losing_breakout_actions(200)]
        ends = [index for index, (_, _, dones, _) in enumerate(steps) if dones[0]]
        assert len(ends) == 1
        assert not any(infos[0]["life_lost"] for _, _, _, infos in steps)


class TestCopies:
    def test_are_independent_and_keep_their_own_statistics(self):
        env = _vector(n_envs=2, training=False)
        env.reset()
        lengths = {0: [], 1: []}
        for step, action in enumerate(losing_breakout_actions(280)):
            _, _, dones, infos = env.step(np.array([action, action if step % 2 else 1]))
            for index in np.flatnonzero(dones):
                lengths[int(index)].append(infos[index]["episode"]["l"])
        assert len(lengths[0]) == 2
        assert lengths[0][0] == lengths[0][1]
        assert lengths[1][0] != lengths[0][0]

    def test_a_reset_in_mid_game_starts_statistics_and_lives_anew(self):
        env = _vector(max_frames=400)
        env.reset()
        for action in losing_breakout_actions(60):
            env.step(np.array([action]))
        first = env.reset()
        assert env.reset_infos == [{"lives": 5}]
        assert not first[0, :3].any()
        for _ in range(100):
            _, _, dones, (info,) = env.step(np.array([0]))
        assert dones[0]
        assert info["episode"]["l"] == 100


class TestObservations:
    def test_returned_arrays_are_never_written_to_again(self):
        env = _vector("pong", n_envs=2)
        kept = [env.reset()]
        copies = [kept[0].copy()]
        for step in range(30):
            kept.append(env.step(np.full(2, step % 6))[0])
            copies.append(kept[-1].copy())
        for array, copy in zip(kept, copies, strict=True):
            np.testing.assert_array_equal(array, copy)
        assert not np.array_equal(copies[0], copies[-1])

    @pytest.mark.parametrize("frame_stack", [1, 3])
    def test_have_the_asked_number_of_frames(self, frame_stack):
        env = _vector("pong", frame_stack=frame_stack)
        observations = env.reset()
        assert observations.shape == (1, frame_stack, 84, 84)
        assert env.observation_space.contains(observations[0])


@pytest.mark.faults
class TestActions:
    @pytest.mark.parametrize("wrong", [-1, 6, 10**9])
    def test_one_out_of_range_is_refused_and_the_game_goes_on(self, pong, wrong):
        with pytest.raises(ConfigError, match=f"action {wrong} of environment 1 is out of range: .* 0 to 5"):
            pong.step(np.array([5, wrong]))
        assert pong.step(np.array([5, 0]))[0].shape == (2, 4, 84, 84)

    @pytest.mark.parametrize("wrong", [np.array([0]), np.array([[0], [1]]), np.array([0.0, 1.0])])
    def test_a_wrong_shape_or_type_is_refused(self, pong, wrong):
        with pytest.raises(ConfigError, match="actions must be 2 integers, got shape"):
            pong.step(wrong)

    @pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
    def test_any_integer_type_will_do(self, pong, dtype):
        assert pong.step(np.array([0, 5], dtype))[1].shape == (2,)


class TestAsAVecEnv:
    def test_what_has_different_defaults_elsewhere_is_set_explicitly(self, monkeypatch):
        given = {}
        build = emulator.AtariVectorEnv
        monkeypatch.setattr(emulator, "AtariVectorEnv", lambda *args, **kw: given.update(kw) or build(*args, **kw))
        make_atari_env("pong", 1, protocol="machado").close()
        assert given["autoreset_mode"] is AutoresetMode.SAME_STEP
        assert (given["reward_clipping"], given["episodic_life"], given["life_loss_info"]) == (False, False, False)
        assert (given["repeat_action_probability"], given["full_action_space"]) == (0.25, True)

    def test_it_counts_as_monitored_but_not_as_otherwise_wrapped(self):
        env = _vector("pong", n_envs=2)
        assert env.env_is_wrapped(Monitor) == [True, True]
        assert env.env_is_wrapped(VecFrameStack, indices=[1]) == [False]

    def test_it_has_shared_attributes_and_no_snapshot(self):
        env = _vector("pong", n_envs=2)
        assert env.get_attr("route") == ["vector"] * 2
        assert env.get_attr("protocol", indices=[1]) == ["nature"]
        assert env.get_attr("render_mode") == [None] * 2
        assert not env.has_attr("snapshot")

    def test_methods_and_settings_per_copy_are_refused_with_the_way_out(self):
        env = _vector("pong")
        with pytest.raises(AttributeError, match="use route='gym'"):
            env.env_method("snapshot")
        with pytest.raises(AttributeError, match="use route='gym'"):
            env.set_attr("frame_hook", None)

    def test_it_can_be_closed_twice(self):
        env = _vector("pong")
        env.close()
        env.close()
