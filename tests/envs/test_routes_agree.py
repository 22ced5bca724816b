"""The two Atari routes against each other, frame for frame."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs import game_names, make_atari_env


def _rollout(route, game, actions, **kwargs):
    """Return the first observation and all steps' (obs, reward, done, info), the info without wall time."""
    env = make_atari_env(game, 1, seed=3, route=route, noop_max=1, **kwargs)
    first, steps = env.reset(), []
    for action in actions:
        observations, rewards, dones, (info,) = env.step(np.array([action]))
        info.get("episode", {}).pop("t", None)
        if not dones[0]:
            info.pop("TimeLimit.truncated", None)  # DummyVecEnv has it in every step
        steps.append((observations, rewards, dones, info))
    env.close()
    return first, steps


def _assert_same(game, length, **kwargs):
    full = kwargs.get("protocol") == "machado"
    actions = np.random.default_rng(11).integers(18 if full else _action_count(game), size=length)
    (first, steps), (other_first, other_steps) = (_rollout(r, game, actions, **kwargs) for r in ("vector", "gym"))
    np.testing.assert_array_equal(first, other_first)
    for (obs, rewards, dones, info), (other_obs, other_rewards, other_dones, other_info) in zip(
        steps, other_steps, strict=True
    ):
        np.testing.assert_array_equal(obs, other_obs)
        assert (rewards, dones) == (other_rewards, other_dones)
        assert info.keys() == other_info.keys()
        if dones[0]:
            np.testing.assert_array_equal(info.pop("terminal_observation"), other_info.pop("terminal_observation"))
        assert info == other_info
    return steps


def _action_count(game):
    env = make_atari_env(game, 1)
    env.close()
    return env.action_space.n


class TestBothRoutesPlayTheSameGame:
    """Every observation, reward, done and info is equal: with FIRE at the start, without it, with many buttons."""

    @pytest.mark.parametrize("game", ["pong", "breakout", "montezuma_revenge", "ms_pacman", "air_raid"])
    def test_in_training(self, game):
        steps = _assert_same(game, 271)
        assert any(info["life_lost"] for *_, info in steps) == (game in ("breakout", "montezuma_revenge", "ms_pacman"))

    def test_in_evaluation_up_to_the_games_end(self):
        steps = _assert_same("breakout", 401, training=False)
        assert sum("episode" in info for *_, info in steps) >= 1

    @pytest.mark.parametrize(("max_frames", "length"), [(3, 7), (150, 83)])
    def test_when_the_time_limit_cuts_a_step_short(self, max_frames, length):
        steps = _assert_same("space_invaders", length, max_frames=max_frames)
        assert sum(info.get("TimeLimit.truncated", False) for *_, info in steps) >= 2

    def test_with_another_number_of_frames_stacked(self):
        _assert_same("breakout", 53, frame_stack=2)

    @pytest.mark.slow
    @pytest.mark.parametrize("game", game_names())
    def test_in_every_game_that_ale_py_ships(self, game):
        _assert_same(game, 151, max_frames=320)
