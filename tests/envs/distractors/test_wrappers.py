"""Distractors on any environment with RGB frames."""

from __future__ import annotations

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from rims_rl.envs import Distractor, DistractorWrapper, VecDistractor
from rims_rl.envs.distractors import KINDS
from rims_rl.envs.gym_route import AtariGymEnv
from rims_rl.envs.monitor import SnapshotMonitor, monitored
from rims_rl.errors import ConfigError

gym.register_envs(ale_py)


class Squares(gym.Env):
    """A white square on green, one pixel further with every step; an episode has 5 steps, the reward is the step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, render_mode="rgb_array"):
        self.observation_space, self.action_space = Box(0, 255, (40, 50, 3), np.uint8), Discrete(2)
        self.render_mode = render_mode
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._frame(), {}

    def step(self, action):
        self.steps += 1
        return self._frame(), float(self.steps), self.steps == 5, False, {"steps": self.steps}

    def render(self):
        return None if self.render_mode is None else np.repeat(np.repeat(self._frame(), 3, 0), 3, 1)

    def _frame(self):
        frame = np.full((40, 50, 3), (10, 90, 30), np.uint8)
        frame[20:25, self.steps : self.steps + 5] = 255
        return frame


class Telling(Squares):
    """Squares that can tell and take back their state."""

    def snapshot(self):
        return {"steps": self.steps}


def _episodes(env, count, seed=5):
    seen = []
    for episode in range(count):
        seen.append(env.reset(seed=seed if episode == 0 else None)[0])
        seen += [env.step(0)[0] for _ in range(5)]
    return np.stack(seen)


class TestTheWrapper:
    @pytest.mark.parametrize("kind", KINDS)
    def test_alters_what_is_seen_by_seed_and_episode_and_nothing_else(self, kind):
        env, plain = DistractorWrapper(Squares(), f"{kind}:1"), Squares()
        seen = _episodes(env, 3)
        assert (seen != _episodes(plain, 3)).any()
        np.testing.assert_array_equal(_episodes(DistractorWrapper(Squares(), f"{kind}:1"), 3), seen)
        np.testing.assert_array_equal(_episodes(env, 3), seen)
        env.reset(), plain.reset()
        for _ in range(5):
            assert env.step(0)[1:] == plain.step(0)[1:]

    def test_leaves_everything_at_intensity_zero(self):
        np.testing.assert_array_equal(_episodes(DistractorWrapper(Squares(), "balls:0"), 2), _episodes(Squares(), 2))

    @pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
    @pytest.mark.parametrize("from_render", [False, True])
    def test_passes_gymnasiums_checker(self, from_render):
        check_env(DistractorWrapper(Squares(), "balls:0.5", from_render=from_render), skip_render_check=True)

    def test_makes_rendered_frames_the_observation_where_asked(self):
        env = DistractorWrapper(gym.make("CartPole-v1", render_mode="rgb_array"), "noise:0.5", from_render=True)
        assert env.observation_space.shape == (400, 600, 3)
        observation, _ = env.reset(seed=5)
        np.testing.assert_array_equal(env.render(), observation)
        assert observation in env.observation_space

    def test_renders_frames_of_another_size_in_the_same_place_of_the_episode(self):
        env = DistractorWrapper(Squares(), "colour:1")
        env.reset(seed=5)
        env.step(0)
        observation, frame = env.step(0)[0], env.render()
        assert frame.shape == (120, 150, 3)
        np.testing.assert_array_equal(frame[1::3, 1::3], observation)

    def test_renders_a_background_in_the_colours_that_the_episode_began_with(self):
        env = DistractorWrapper(Squares(), "background:1")
        first, _ = env.reset(seed=5)
        env.unwrapped._frame = lambda: np.full((40, 50, 3), (70, 5, 5), np.uint8)  # colours that are no background
        observation, frame = env.step(0)[0], env.render()
        assert (first != (10, 90, 30)).any()
        assert (observation == (70, 5, 5)).all()
        assert (frame == (70, 5, 5)).all()

    def test_is_not_taken_for_one_that_a_snapshot_tells_all_of(self):
        assert isinstance(monitored(AtariGymEnv("pong")), SnapshotMonitor)
        assert not isinstance(monitored(DistractorWrapper(Telling(), "balls:1")), SnapshotMonitor)

    def test_a_spec_survives_json(self):
        env = DistractorWrapper(
            gym.make("ALE/Pong-v5", frameskip=1),
            [Distractor("balls", 0.75), Distractor("noise", 0.1)],
            "held-out",
            "pong",
        )
        again = gym.make(EnvSpec.from_json(env.spec.to_json()))
        assert again.spec == env.spec
        np.testing.assert_array_equal(again.reset(seed=5)[0], env.reset(seed=5)[0])
        for _ in range(3):
            np.testing.assert_array_equal(again.step(0)[0], env.step(0)[0])

    def test_says_what_it_needs_where_there_are_no_pictures(self):
        with pytest.raises(ConfigError, match=r"need RGB observations \(height, width, 3\).*use from_render=True"):
            DistractorWrapper(gym.make("CartPole-v1"), "balls")
        with pytest.raises(ConfigError, match="from_render needs an environment made with render_mode='rgb_array'"):
            DistractorWrapper(Squares(render_mode=None), "balls", from_render=True)


class TestTheVecWrapper:
    def _vec(self, count, distractor="balls:1+colour:0.5"):
        env = VecDistractor(DummyVecEnv([Squares] * count), distractor)
        env.seed(5)
        return env

    def test_shows_each_copy_what_the_wrapper_shows_a_single_one(self):
        env = self._vec(3)
        single = [DistractorWrapper(Squares(), "balls:1+colour:0.5") for _ in range(3)]
        observations = env.reset()
        for index, one in enumerate(single):
            np.testing.assert_array_equal(observations[index], one.reset(seed=5 + index)[0])
        for _ in range(13):
            observations, rewards, dones, infos = env.step(np.zeros(3, int))
            for index, one in enumerate(single):
                seen, reward, done, _, _ = one.step(0)
                assert (rewards[index], dones[index]) == (reward, done)
                if done:
                    np.testing.assert_array_equal(infos[index]["terminal_observation"], seen)
                    seen = one.reset()[0]
                np.testing.assert_array_equal(observations[index], seen)

    def test_shows_a_copy_the_same_however_many_there_are(self):
        np.testing.assert_array_equal(self._vec(3).reset()[:2], self._vec(2).reset())

    def test_a_reset_without_a_seed_begins_the_next_episode(self):
        env, single = self._vec(1), DistractorWrapper(Squares(), "balls:1+colour:0.5")
        env.reset(), single.reset(seed=5)
        np.testing.assert_array_equal(env.reset()[0], single.reset()[0])

    def test_says_what_it_needs_where_pictures_are_changed_already(self):
        with pytest.raises(ConfigError, match="below whatever changes the pictures"):
            VecDistractor(DummyVecEnv([lambda: gym.make("CartPole-v1")]), "balls")
