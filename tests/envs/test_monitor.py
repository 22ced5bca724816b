"""Snapshots through SB3's Monitor."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rims_rl.envs import make_env


def _play(env, actions):
    """Return the steps without wall time and the observations (length, n, 2)."""
    rest, seen = [], []
    for action in actions:
        observations, rewards, dones, infos = env.step(action)
        for info in infos:
            info.get("episode", {}).pop("t", None)
            if "terminal_observation" in info:
                info["terminal_observation"] = info["terminal_observation"].tolist()
        rest.append((rewards.tolist(), dones.tolist(), infos))
        seen.append(observations)
    return rest, np.stack(seen)


class TestSnapshotsOfAMonitoredEnvironment:
    @pytest.mark.parametrize("limit", [11, 500])
    def test_statistics_and_time_limit_go_on_where_they_were(self, limit):
        env = make_env("cartpole-novel", 3, 5, max_episode_steps=limit)
        env.reset()
        rng = np.random.default_rng(23)
        _play(env, rng.integers(2, size=(7, 3)))
        snapshots = env.env_method("snapshot")
        actions = rng.integers(2, size=(61, 3))
        expected, frames = _play(env, actions)
        fresh = make_env("cartpole-novel", 3, 50, max_episode_steps=limit)
        for target in (fresh, env):
            for index, snapshot in enumerate(snapshots):
                target.env_method("restore", snapshot, indices=[index])
            rest, seen = _play(target, actions)
            np.testing.assert_array_equal(seen, frames)
            assert rest == expected
        lengths = [info["episode"]["l"] for _, _, infos in expected for info in infos if "episode" in info]
        assert len(lengths) > 5
        assert (max(lengths) == 11) == (limit == 11)

    def test_they_hold_only_arrays_and_what_json_can_hold(self):
        env = make_env("cartpole-novel", 1, 5)
        env.reset()
        env.step(np.array([1]))
        (snapshot,) = env.env_method("snapshot")
        assert isinstance(snapshot.pop("rewards"), np.ndarray)
        assert isinstance(snapshot["env"].pop("state"), np.ndarray)
        assert json.loads(json.dumps(snapshot))["elapsed_steps"] == [1]
