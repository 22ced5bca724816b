"""From settings to environments: distractors among them, once and complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rims_rl import building
from rims_rl.building import build_env, env_settings
from rims_rl.config import TrainConfig
from rims_rl.envs import make_env
from rims_rl.errors import ConfigError

PONG = TrainConfig(env="pong", n_envs=2, seed=5)


def rollout(env: Any, length: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Return the observations and the rewards of some random steps."""
    actions = np.random.default_rng(3).integers(env.action_space.n, size=(length, env.num_envs))
    seen = [(env.reset(), np.zeros(env.num_envs)), *(env.step(chosen)[:2] for chosen in actions)]
    env.close()
    return np.stack([frames for frames, _ in seen]), np.stack([rewards for _, rewards in seen])


class TestSettings:
    def test_without_distractors_they_are_the_run_s_own(self) -> None:
        assert env_settings(replace(PONG, env_kwargs={"mode": 1})) == {"mode": 1}

    def test_distractors_and_their_split_stand_beside_the_run_s_own(self) -> None:
        own = {"noop_max": 7}
        config = replace(PONG, distractor="balls:0.5", distractor_split="held-out", env_kwargs=own)
        assert env_settings(config) == {"noop_max": 7, "distractor": "balls:0.5", "distractor_split": "held-out"}
        assert own == {"noop_max": 7}

    def test_distractors_of_env_kwargs_count_and_may_have_their_split_beside(self) -> None:
        config = replace(PONG, env_kwargs={"distractor": "noise:0.2"}, distractor_split="held-out")
        assert env_settings(config) == {"distractor": "noise:0.2", "distractor_split": "held-out"}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"distractor": "balls:0.5", "env_kwargs": {"distractor": "noise"}},
                "distractor is given twice: 'balls:0.5' and 'noise' in env_kwargs",
            ),
            (
                {
                    "distractor_split": "train",
                    "env_kwargs": {"distractor": "noise", "distractor_split": "held-out"},
                },
                "distractor_split is given twice: 'train' and 'held-out' in env_kwargs",
            ),
            (
                {"distractor_split": "held-out"},
                "distractor_split held-out needs a distractor, for example balls:0.5",
            ),
            (
                {"env_kwargs": {"distractor_split": "train"}},
                "distractor_split train needs a distractor, for example balls:0.5",
            ),
            (
                {"route": "gym", "step_timeout": 5.0, "env_restarts": 0},
                "step_timeout and env_restarts: only for environments in processes of their own, use subprocess=True",
            ),
        ],
    )
    def test_what_is_given_twice_or_by_half_is_refused_before_anything_is_built(
        self, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(building, "make_env", lambda *_, **__: pytest.fail("an environment was built"))
        with pytest.raises(ConfigError) as caught:
            build_env(replace(PONG, **settings))
        assert str(caught.value) == message


class TestTrainingEnvironments:
    @pytest.mark.parametrize("route", ["vector", "gym"])
    def test_a_distractor_alters_what_is_seen_and_no_reward(self, route: Any) -> None:
        plain = replace(PONG, route=route, env="asterix")
        clean_frames, clean_rewards = rollout(build_env(plain), 23)
        frames, rewards = rollout(build_env(replace(plain, distractor="balls:1")), 23)
        assert (frames != clean_frames).any(axis=(0, 2, 3, 4)).all()  # in both copies
        np.testing.assert_array_equal(rewards, clean_rewards)
        assert rewards.any()

    def test_the_split_decides_which_looks_are_seen(self) -> None:
        held_out = replace(PONG, n_envs=1, route="gym", distractor="balls:1", distractor_split="held-out")
        frames, _ = rollout(build_env(held_out))
        expected, _ = rollout(make_env("pong", 1, 5, route="gym", distractor="balls:1:held-out"))
        np.testing.assert_array_equal(frames, expected)
        assert (frames != rollout(build_env(replace(held_out, distractor_split=None)))[0]).any()
