"""An episode step by step: units, values, scores and pictures."""

from __future__ import annotations

import numpy as np
import torch

from rims_rl.agents import CnnRIMPolicy
from rims_rl.config import TrainConfig
from rims_rl.evaluation import View
from rims_rl.playback import action_names, picture, play
from rims_rl.recording import film_env
from tests.cartpole_player import RUN, cartpole


class TestEpisode:
    def test_each_step_shows_its_units_value_and_score_so_far(self) -> None:
        policy, env = cartpole()
        steps = list(play(policy, env, seed=5))
        env.close()
        assert [step.moment.step for step in steps] == list(range(len(steps)))
        assert [step.moment.score for step in steps] == [float(t) for t in range(len(steps))]
        assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
        for step in steps:
            assert step.moment.active is not None
            assert step.moment.active.sum() == 2
            assert step.moment.null_attention is not None
            assert step.moment.null_attention.shape == (5,)

    def test_the_same_seed_films_the_same_episode(self) -> None:
        filmed = []
        for _ in range(2):
            policy, env = cartpole()
            filmed.append([(step.moment.value, step.moment.action) for step in play(policy, env, seed=5)])
            env.close()
        assert filmed[0] == filmed[1]

    def test_torch_s_random_state_stays_as_it_was(self) -> None:
        policy, env = cartpole()
        before = torch.get_rng_state()
        list(play(policy, env))
        env.close()
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_core_without_units_shows_none(self) -> None:
        policy, env = cartpole("gru", hidden_size=7)
        step = next(play(policy, env))
        env.close()
        assert step.moment.active is None
        assert step.moment.attention is None

    def test_it_shows_the_newest_frame_that_the_agent_acted_on(self) -> None:
        pong = TrainConfig(env="pong", frame_stack=3, distractor="balls:1")
        names = action_names(pong)
        env, again, clean = (film_env(pong, seed=3, view=view) for view in (View(), View(), View("none")))
        policy = CnnRIMPolicy(
            env.observation_space, env.action_space, lambda _: 0.0,
            core="gru", core_kwargs={"hidden_size": 7}, encoder="nature", encoder_kwargs={"features_dim": 5},
        )  # fmt: skip
        observation, undisturbed = (np.asarray(other.reset()) for other in (again, clean))
        for step, _ in zip(play(policy, env, seed=5, names=names), range(11), strict=False):
            assert step.moment.seen is not None
            np.testing.assert_array_equal(step.moment.seen, observation[0, -1])
            assert (step.moment.seen != undisturbed[0, -1]).any()
            action = np.array([names.index(step.moment.action)])
            observation, undisturbed = (np.asarray(other.step(action)[0]) for other in (again, clean))
        for each in (env, again, clean):
            each.close()

    def test_where_no_frames_are_seen_none_is_shown(self) -> None:
        policy, env = cartpole()
        assert next(play(policy, env)).moment.seen is None
        env.close()

    def test_an_atari_game_shows_its_raw_frame(self) -> None:
        env = film_env(TrainConfig(env="pong"), seed=0)
        env.reset()
        assert picture(env).shape == (210, 160, 3)
        env.close()

    def test_an_atari_game_shows_its_distractors_and_its_variant(self) -> None:
        views = (View(), View("noise:0.5"), View(variant="hidden_enemy"))
        shown = []
        for view in views:
            env = film_env(TrainConfig(env="pong"), seed=0, view=view)
            env.reset()
            for _ in range(30):
                env.step(np.array([0]))
            shown.append(picture(env).tobytes())
            env.close()
        assert len(set(shown)) == len(views)

    def test_cartpole_shows_a_cart_that_moves_with_its_state(self) -> None:
        env = film_env(RUN, seed=0)
        env.reset()
        inner = env.get_attr("unwrapped")[0]
        shown = []
        for position in (-1.0, 1.0):
            inner.state = (position, 0.0, 0.0, 0.0)
            shown.append(picture(env))
        env.close()
        middles = [np.flatnonzero((frame != frame[0, 0]).any(axis=-1)[283]).mean() for frame in shown]
        assert middles[0] < 300 < middles[1]

    def test_actions_are_called_by_their_names_in_the_policy_s_order(self) -> None:
        pong = TrainConfig(env="pong")
        assert action_names(pong) == ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
        assert len(action_names(pong, "machado")) == 18
        assert action_names(RUN) == []
