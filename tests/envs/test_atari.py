"""`make_atari_env` on both routes: seeds, protocols, evaluation, bad arguments."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from rims_rl.envs import atari, make_atari_env
from rims_rl.envs.variants import VariantAtariEnv
from rims_rl.envs.watched import Patience, WatchedVecEnv
from rims_rl.errors import ConfigError, UnknownNameError, shortened
from tests.envs.single_game import SingleGame, losing_breakout_actions

ROUTES = ["vector", "gym"]


def _frames(env, length=13, same=False):
    """Return every observation of a rollout (length + 1, n, stack, 84, 84); `same`: every copy acts alike."""
    actions = np.random.default_rng(17).integers(env.action_space.n, size=(length, 1 if same else env.num_envs))
    actions = np.broadcast_to(actions, (length, env.num_envs))
    return np.stack([env.reset(), *(env.step(action)[0] for action in actions)])


class LosingPlayer:
    """A model for `evaluate_policy` that serves every fifth step and never moves."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        step = 0 if state is None else state
        return np.full(len(observation), 1 if step % 5 == 0 else 0), step + 1


@pytest.mark.parametrize("route", ROUTES)
class TestSeeds:
    @pytest.mark.parametrize("protocol", ["nature", "machado"])
    def test_the_same_seed_gives_the_same_frames(self, route, protocol):
        one, other = (make_atari_env("pong", 1, seed=5, route=route, protocol=protocol) for _ in range(2))
        np.testing.assert_array_equal(_frames(one), _frames(other))

    def test_copy_i_is_seeded_with_seed_plus_i(self, route):
        shifted, env = (make_atari_env("breakout", 2, seed=s, route=route) for s in (8, 7))
        np.testing.assert_array_equal(_frames(shifted, same=True)[:, 0], _frames(env, same=True)[:, 1])

    def test_copies_and_seeds_differ(self, route):
        first, other = (_frames(make_atari_env("breakout", 2, seed=s, route=route), same=True)[-1] for s in (7, 50))
        assert not np.array_equal(first[0], first[1])
        assert not np.array_equal(first, other)

    def test_a_second_reset_goes_on_with_the_random_stream(self, route):
        env = make_atari_env("breakout", 2, seed=7, route=route)
        assert not np.array_equal(_frames(env, same=True)[-1], _frames(env, same=True)[-1])

    def test_seeding_again_repeats_the_stream(self, route):
        env = make_atari_env("pong", 1, seed=5, route=route, protocol="machado")
        first = _frames(env)
        env.seed(5)
        np.testing.assert_array_equal(_frames(env), first)

    def test_the_largest_seed_that_stable_baselines_draws_is_taken(self, route):
        assert make_atari_env("pong", 1, seed=2**32 - 1, route=route).reset().shape == (1, 4, 84, 84)

    def test_no_seed_is_allowed(self, route):
        assert make_atari_env("pong", 1, seed=None, route=route).reset().shape == (1, 4, 84, 84)


@pytest.mark.parametrize("route", ROUTES)
class TestProtocols:
    def test_nature_without_a_random_start_does_not_depend_on_the_seed(self, route):
        one, other = (make_atari_env("pong", 1, seed=seed, route=route, noop_max=1) for seed in (5, 50))
        np.testing.assert_array_equal(_frames(one), _frames(other))

    def test_machado_has_all_actions_and_sticks(self, route):
        one, other = (
            make_atari_env("pong", 1, seed=seed, route=route, noop_max=1, protocol="machado") for seed in (5, 50)
        )
        assert one.action_space.n == 18
        assert not np.array_equal(_frames(one, 31), _frames(other, 31))

    def test_machado_gives_no_life_signal_in_training(self, route):
        env = make_atari_env("breakout", 1, seed=5, route=route, protocol="machado")
        env.reset()
        lives, dones = [], []
        for action in losing_breakout_actions(100):
            _, _, done, (info,) = env.step(np.array([action]))
            lives.append(info["lives"])
            dones.append(done[0])
        assert min(lives) < 5
        assert not any(dones)

    def test_a_score_is_raw_while_rewards_are_signs(self, route):
        env = make_atari_env("ms_pacman", 1, route=route, noop_max=1, max_frames=400)
        single = SingleGame("ms_pacman")
        env.reset(), single.reset()
        raw = [single.step(3)[1] for _ in range(100)]
        rewards, infos = zip(
            *((step[1][0], step[3][0]) for step in (env.step(np.array([3])) for _ in raw)), strict=True
        )
        assert list(rewards) == np.sign(raw).tolist()
        assert infos[-1]["episode"]["r"] == sum(raw) > sum(rewards) > 0

    def test_rewards_are_raw_in_evaluation(self, route):
        env = make_atari_env("ms_pacman", 1, route=route, noop_max=1, max_frames=400, training=False)
        env.reset()
        steps = [env.step(np.array([3])) for _ in range(100)]
        assert steps[-1][3][0]["episode"]["r"] == sum(step[1][0] for step in steps) > 50
        assert steps[-1][1].dtype == np.float32


@pytest.mark.parametrize("route", ROUTES)
class TestWithStableBaselines:
    def test_evaluate_policy_counts_full_games_although_lives_are_done(self, route):
        single = SingleGame("breakout")
        single.reset()
        for length, action in enumerate(losing_breakout_actions(300), start=1):  # noqa: B007 - compared below
            if single.step(action)[2]:
                break
        env = make_atari_env("breakout", 1, route=route, noop_max=1, training=True)
        scores, lengths = evaluate_policy(LosingPlayer(), env, n_eval_episodes=1, return_episode_rewards=True)
        assert (scores, lengths) == ([0.0], [length])

    def test_it_counts_as_monitored(self, route):
        env = make_atari_env("pong", 2, route=route)
        assert env.env_is_wrapped(Monitor) == [True, True]
        assert env.env_is_wrapped(VecTransposeImage) == [False, False]

    def test_the_route_and_the_protocol_can_be_asked_for(self, route):
        env = make_atari_env("pong", 2, route=route, protocol="machado")
        assert env.get_attr("route") == [route, route]
        assert env.get_attr("protocol") == ["machado", "machado"]


class TestTheGymRoute:
    def test_snapshots_go_through_the_vec_env(self):
        env, fresh = (make_atari_env("pong", 2, seed=s, route="gym", protocol="machado") for s in (5, 50))
        assert env.has_attr("snapshot")
        _frames(env)
        fresh.reset()
        for index, snapshot in enumerate(env.env_method("snapshot")):
            fresh.env_method("restore", snapshot, indices=[index])
        for action in np.random.default_rng(19).integers(18, size=(29, 2)):
            (seen, *rest), (other_seen, *other_rest) = env.step(action), fresh.step(action)
            np.testing.assert_array_equal(seen, other_seen)
            np.testing.assert_array_equal(rest[:2], other_rest[:2])

    def test_lives_belong_to_the_returned_observation(self):
        env = make_atari_env("breakout", 1, route="gym", noop_max=1)
        env.reset()
        infos = [env.step(np.array([action]))[3][0] for action in losing_breakout_actions(200)]
        assert next(info["lives"] for info in infos if "episode" in info) == 5

    @pytest.mark.slow
    def test_subprocesses_play_the_same_game_with_the_same_doors(self):
        here = make_atari_env("breakout", 2, seed=5, route="gym", protocol="machado")
        there = make_atari_env("breakout", 2, seed=5, route="gym", protocol="machado", subprocess=True)
        try:
            assert (isinstance(here, DummyVecEnv), isinstance(there, WatchedVecEnv)) == (True, True)
            np.testing.assert_array_equal(_frames(here), _frames(there))
            assert there.env_is_wrapped(Monitor) == [True, True]
            assert there.has_attr("snapshot")
            for index, snapshot in enumerate(here.env_method("snapshot")):
                there.env_method("restore", snapshot, indices=[index])
            actions = np.array([2, 3])
            np.testing.assert_array_equal(here.step(actions)[0], there.step(actions)[0])
            for worker in there.processes:  # a terminal's Ctrl-C reaches them too
                os.kill(worker.pid, signal.SIGINT)
            np.testing.assert_array_equal(here.step(actions)[0], there.step(actions)[0])
        finally:
            there.close()

    @pytest.mark.faults
    def test_a_game_that_is_lost_with_its_process_is_a_new_game_with_its_lives(self):
        env = make_atari_env("breakout", 2, seed=5, route="gym", subprocess=True, step_timeout=30.0, env_restarts=1)
        try:
            env.reset()
            actions = np.array([1, 1])
            last = env.step(actions)[0]
            os.kill(env.processes[1].pid, signal.SIGKILL)
            _, rewards, dones, infos = env.step(actions)
            assert (dones.tolist(), rewards[1], infos[1]["lives"]) == ([False, True], 0, 5)
            np.testing.assert_array_equal(infos[1]["terminal_observation"], last[1])
            assert not infos[1].keys() & {"episode", "life_lost"}
            assert env.restarts == [0, 1]
            assert env.patience == Patience(30.0, 1)
        finally:
            env.close()


class TestVariants:
    def test_the_game_is_the_variant_s_in_every_copy(self):
        env = make_atari_env("pong", 2, 5, route="gym", variant="mode:1+lazy_enemy", training=False, noop_max=7)
        singles = [
            VariantAtariEnv("pong", variant="mode:1+lazy_enemy", training=False, noop_max=7)
            for _ in range(env.num_envs)
        ]
        first = env.reset()
        for copy, single in enumerate(singles):
            np.testing.assert_array_equal(first[copy], single.reset(seed=5 + copy)[0])
        for action in np.random.default_rng(19).integers(6, size=(41, 2)):
            observations, rewards, *_ = env.step(action)
            for copy, single in enumerate(singles):
                expected, reward, *_ = single.step(action[copy])
                np.testing.assert_array_equal(observations[copy], expected)
                assert rewards[copy] == reward

    def test_what_a_variation_changes_is_seen(self):
        plain, varied = (make_atari_env("pong", 1, 5, route="gym", variant=name) for name in (None, "hidden_enemy"))
        frames, varied_frames = _frames(plain, 31), _frames(varied, 31)
        assert (frames[-1] != varied_frames[-1]).any()

    def test_a_mode_may_stand_beside_a_variation(self):
        beside, inside = (
            make_atari_env("pong", 1, 5, route="gym", **changes)
            for changes in ({"mode": 1, "variant": "lazy_enemy"}, {"variant": "mode:1+lazy_enemy"})
        )
        assert beside.get_attr("variant") != inside.get_attr("variant")  # the mode is in one of them alone
        np.testing.assert_array_equal(_frames(beside, 41), _frames(inside, 41))

    def test_distractors_lie_over_the_variant_and_leave_its_game_alone(self):
        plain, distracted = (
            make_atari_env("freeway", 1, 5, route="gym", variant="strobo_mode", distractor=name)
            for name in (None, "balls:1")
        )
        actions = np.random.default_rng(23).integers(3, size=(29, 1))
        plain.reset(), distracted.reset()
        altered = False
        for action in actions:
            (seen, *rest), (other_seen, *other_rest) = plain.step(action), distracted.step(action)
            altered = altered or bool((seen != other_seen).any())
            np.testing.assert_array_equal(rest[:2], other_rest[:2])
        assert altered
        states = [env.env_method("snapshot")[0]["emulator"] for env in (plain, distracted)]
        np.testing.assert_array_equal(*states)

    @pytest.mark.slow
    def test_subprocesses_play_the_same_variant(self):
        here, there = (
            make_atari_env("pong", 2, 5, route="gym", variant="mode:1+lazy_enemy", distractor="balls", subprocess=apart)
            for apart in (False, True)
        )
        try:
            assert isinstance(there, WatchedVecEnv)
            np.testing.assert_array_equal(_frames(here, 31), _frames(there, 31))
        finally:
            there.close()


class TestBadArguments:
    @pytest.fixture(autouse=True)
    def _no_emulator_is_built(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("an environment was built before the arguments were checked")

        for name in ("AtariVecEnv", "AtariDummyVecEnv", "AtariWatchedVecEnv"):
            monkeypatch.setattr(atari, name, refuse)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n_envs": 0}, "n_envs must be a whole number of at least 1, got 0"),
            ({"frame_stack": 0}, "frame_stack must be a whole number of at least 1, got 0"),
            ({"frame_stack": 85}, "frame_stack must be at most 84, got 85"),
            ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
            ({"noop_max": -1}, "noop_max must be a whole number of at least 0, got -1"),
            ({"noop_max": 1_001}, "noop_max must be at most 1000, got 1001"),
            ({"max_frames": 0}, "max_frames must be a whole number of at least 1, got 0"),
            ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
            ({"route": "gym", "mode": 1.0}, "pong has no mode 1.0; available: 0, 1"),
            (
                {"route": "gym", "variant": f"mode:{'9' * 5000}"},
                f"{shortened(f'mode:{chr(57) * 5000}')} must have a whole number after its colon",
            ),
            ({"protocol": "natur"}, "unknown protocol 'natur'; did you mean 'nature'?"),
            ({"route": "vectro"}, "unknown route 'vectro'; did you mean 'vector'?"),
            ({"game": "pnog"}, "unknown Atari game 'pnog'; did you mean 'pong'?"),
            ({"mode": 1}, "mode: not available on route 'vector', use route='gym'"),
            ({"difficulty": 0, "mode": 0}, "mode and difficulty: not available on route 'vector', use route='gym'"),
            ({"subprocess": True}, "subprocess: not available on route 'vector', use route='gym'"),
            (
                {"step_timeout": 5.0},
                "step_timeout: only for environments in processes of their own, use subprocess=True",
            ),
            (
                {"route": "gym", "env_restarts": 0, "step_timeout": None},
                "step_timeout and env_restarts: only for environments in processes of their own, use subprocess=True",
            ),
            (
                {"route": "gym", "subprocess": True, "step_timeout": 0},
                "seconds (step_timeout) must be a number above 0, or None to wait for ever, got 0",
            ),
            ({"route": "gym", "mode": 7}, "pong has no mode 7; available: 0, 1"),
            ({"variant": "lazy_enemy"}, "variant: not available on route 'vector', use route='gym'"),
            (
                {"mode": 1, "variant": "lazy_enemy"},
                "mode and variant: not available on route 'vector', use route='gym'",
            ),
            *[
                ({"route": "gym", "subprocess": apart, **arguments}, message)
                for apart in (False, True)
                for arguments, message in (
                    ({"variant": "lazy_enemi"}, "unknown variant of pong 'lazy_enemi'; did you mean 'lazy_enemy'?"),
                    ({"variant": "mode:7"}, "pong has no mode 7; available: 0, 1"),
                    ({"variant": "mode:one"}, "'mode:one' must have a whole number after its colon"),
                    (
                        {"variant": "mode:0+lazy_enemy", "mode": 1},
                        "mode is given twice: 1 as a setting and 0 in the variant 'mode:0+lazy_enemy'",
                    ),
                    (
                        {"variant": "difficulty:0", "difficulty": 0},
                        "difficulty is given twice: 0 as a setting and 0 in the variant 'difficulty:0'",
                    ),
                    ({"variant": "lazy_enemy", "mode": 7}, "pong has no mode 7; available: 0, 1"),
                )
            ],
            (
                {"distractor": "ballz:0.5"},
                "unknown kind of distractor 'ballz'; did you mean 'balls'?",
            ),
        ],
    )
    def test_one_line_says_what_is_wrong(self, arguments, message):
        with pytest.raises(ConfigError) as caught:
            make_atari_env(**{"game": "pong", **arguments})
        assert str(caught.value) == message

    def test_unknown_names_have_their_own_error(self):
        with pytest.raises(UnknownNameError):
            make_atari_env("pong", route="gim")
