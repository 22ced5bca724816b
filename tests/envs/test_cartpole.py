"""CartPole without velocities."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import rims_rl.envs  # noqa: F401  # registers our ids
from rims_rl.envs.cartpole import CartPoleNovelEnv


class TestItIsCartPoleWithoutVelocities:
    def test_position_and_angle_are_cartpoles_own(self):
        full, hidden = gym.make("CartPole-v1"), gym.make("rims_rl/CartPoleNovel-v0")
        seen, expected = hidden.reset(seed=5)[0], full.reset(seed=5)[0]
        for step in range(200):
            np.testing.assert_array_equal(seen, expected[[0, 2]])
            assert hidden.observation_space.contains(seen)
            expected, *others, _ = full.step(step // 3 % 2)
            seen, *rest, _ = hidden.step(step // 3 % 2)
            assert rest == others
            if rest[1]:
                break
        assert rest[1]

    def test_two_states_that_differ_in_velocity_look_the_same(self):
        env = CartPoleNovelEnv()
        env.reset(seed=5)
        snapshot = env.snapshot()
        moving = snapshot | {"state": snapshot["state"] + [0.0, 1.0, 0.0, 1.0]}
        observations = []
        for state in (snapshot, moving):
            env.restore(state)
            observations.append(np.array(env.state, np.float32)[[0, 2]])
        np.testing.assert_array_equal(*observations)

    def test_it_lasts_five_hundred_steps(self):
        assert gym.spec("rims_rl/CartPoleNovel-v0").max_episode_steps == 500


class TestSnapshots:
    def test_a_restored_episode_goes_on_bit_for_bit_into_the_next_ones(self):
        env, fresh = CartPoleNovelEnv(), CartPoleNovelEnv()
        env.reset(seed=5)
        env.step(1)
        fresh.restore(env.snapshot())
        for step in range(101):
            action = step * step % 3 % 2
            seen, other = env.step(action), fresh.step(action)
            np.testing.assert_array_equal(seen[0], other[0])
            assert seen[1:] == other[1:]
            if seen[2]:
                np.testing.assert_array_equal(env.reset()[0], fresh.reset()[0])

    def test_one_from_before_the_first_reset_can_be_restored(self):
        env, other = CartPoleNovelEnv(), CartPoleNovelEnv()
        other.reset(seed=5)
        other.restore(env.snapshot())
        assert other.state is None
        np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
