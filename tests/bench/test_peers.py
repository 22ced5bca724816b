"""The peers are set up as their users have them, and on the same task as ours."""

from __future__ import annotations

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rims_rl.bench.env import EnvTurn
from rims_rl.bench.peers import bare_game, ppo, recurrent_ppo, sb3_env
from rims_rl.envs.games import game_names


class TestEnvironments:
    def test_the_bare_game_shows_every_frame_and_no_action_sticks(self):
        env = bare_game("pong")
        assert env.spec is not None
        assert (env.spec.kwargs["frameskip"], env.spec.kwargs["repeat_action_probability"]) == (1, 0.0)
        env.reset(seed=3)
        _, _, _, _, info = env.step(0)
        before = info["frame_number"]
        assert env.step(0)[4]["frame_number"] == before + 1
        env.close()

    @pytest.mark.parametrize("game", ["tic_tac_toe_3d", "ms_pacman"])
    def test_names_that_gymnasium_spells_in_its_own_way_are_found(self, game):
        assert game in game_names()
        bare_game(game).close()

    def test_observations_and_actions_are_those_of_our_routes(self):
        theirs, ours = sb3_env("Pong-v5", 3, seed=0), EnvTurn("vector", "pong", 3, 1).build()
        assert ours.observation_space.shape == (4, 84, 84)
        assert theirs.observation_space.shape == (84, 84, 4)
        assert theirs.observation_space.dtype == ours.observation_space.dtype == np.uint8
        assert theirs.action_space == ours.action_space
        assert isinstance(theirs.unwrapped, DummyVecEnv)
        assert theirs.env_is_wrapped(Monitor) == [True] * 3
        for env in (theirs, ours):
            env.close()


class TestAgents:
    def test_they_are_those_of_the_issue(self):
        env = EnvTurn("vector", "pong", 2, 1).build()
        recurrent = recurrent_ppo(env, n_steps=4, batch_size=8)
        assert (recurrent.policy.lstm_actor.hidden_size, recurrent.policy.lstm_critic) == (512, None)
        assert recurrent.policy.shared_lstm
        assert not hasattr(ppo(env, n_steps=4, batch_size=8).policy, "lstm_actor")
        env.close()
