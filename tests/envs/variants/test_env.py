"""The environment that plays a variant: nothing changes without one, seeds, snapshots, painted frames."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rims_rl.envs import make_env
from rims_rl.envs.gym_route import AtariGymEnv
from rims_rl.envs.variants import VariantAtariEnv, parse_variant
from rims_rl.errors import ConfigError
from tests.envs.single_game import losing_breakout_actions

_GAMES = ("pong", "breakout", "freeway", "space_invaders", "seaquest")


def _play(env, actions):
    """Return what is seen over the actions, resetting at ends: observations, RAM and the rest of each step."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        info.get("episode", {}).pop("t", None)
        ram = env._ale.getRAM().copy()
        if terminated or truncated:
            observation = env.reset()[0]
        seen.append((observation, ram, (reward, terminated, truncated, info)))
    return seen


def _assert_equal(seen, other):
    for (picture, ram, rest), (other_picture, other_ram, other_rest) in zip(seen, other, strict=True):
        np.testing.assert_array_equal(picture, other_picture)
        np.testing.assert_array_equal(ram, other_ram)
        assert rest == other_rest


def _actions(length, n_actions, seed=7):
    return np.random.default_rng(seed).integers(n_actions, size=length).tolist()


class TestWithoutAVariant:
    @pytest.mark.parametrize("game", _GAMES)
    def test_the_game_is_bit_identical_to_the_open_routes(self, game):
        plain, ours = AtariGymEnv(game, protocol="machado"), VariantAtariEnv(game, protocol="machado")
        np.testing.assert_array_equal(plain.reset(seed=5)[0], ours.reset(seed=5)[0])
        actions = _actions(120, 18)
        _assert_equal(_play(plain, actions), _play(ours, actions))

    def test_a_plain_game_is_the_same_beside_a_running_variant(self):
        alone, beside = AtariGymEnv("breakout"), AtariGymEnv("breakout")
        varied = VariantAtariEnv("breakout", variant="gravity:5+color_all_blocks_red")
        for env in (alone, beside, varied):
            env.reset(seed=5)
        expected = _play(alone, _actions(40, 4))
        seen = []
        for action in _actions(40, 4):
            varied.step(action)
            seen += _play(beside, [action])
        _assert_equal(seen, expected)

    def test_a_variant_leaves_the_start_and_sticky_actions_as_they_are(self):
        plain, varied = (
            AtariGymEnv("freeway", protocol="machado"),
            VariantAtariEnv("freeway", protocol="machado", variant="strobo_mode+stop_random_car"),
        )
        plain.reset(seed=5)
        varied.reset(seed=5)
        _play(plain, _actions(53, 18))
        _play(varied, _actions(53, 18))
        assert varied.np_random.bit_generator.state == plain.np_random.bit_generator.state


class TestModesAndDifficulties:
    def test_they_are_the_open_routes_own(self):
        plain = AtariGymEnv("breakout", mode=4, difficulty=1)
        varied = VariantAtariEnv("breakout", variant="mode:4+difficulty:1")
        plain.reset(seed=5)
        varied.reset(seed=5)
        _assert_equal(_play(plain, _actions(53, 4)), _play(varied, _actions(53, 4)))

    def test_one_given_twice_is_refused(self):
        with pytest.raises(ConfigError, match="mode is given twice: 4 as a setting and 8 in the variant 'mode:8'"):
            VariantAtariEnv("breakout", mode=4, variant="mode:8")


class TestSeeds:
    def test_the_same_seed_gives_the_same_game_and_another_one_other_cars(self):
        first, again, other = (VariantAtariEnv("freeway", noop_max=1, variant="strobo_mode") for _ in range(3))
        for env, seed in ((first, 5), (again, 5), (other, 7)):
            env.reset(seed=seed)
        actions = _actions(13, 3)
        expected = _play(first, actions)
        _assert_equal(_play(again, actions), expected)
        assert any((seen[1] != plan[1]).any() for seen, plan in zip(_play(other, actions), expected, strict=True))

    def test_a_second_game_draws_anew(self):
        env = VariantAtariEnv("freeway", noop_max=1, variant="strobo_mode")
        env.reset(seed=5)
        first = [ram for _, ram, _ in _play(env, [0] * 7)]
        env.reset()
        assert (np.stack(first) != np.stack([ram for _, ram, _ in _play(env, [0] * 7)])).any()


class TestSnapshots:
    @pytest.mark.parametrize(
        ("game", "variant"),
        [
            ("pong", "mode:1+lazy_enemy+up_drift+hidden_enemy"),
            ("breakout", "gravity+right_drift:3"),
            ("freeway", "stop_random_car+strobo_mode"),
            ("space_invaders", "curved_shots_medium"),
            ("seaquest", "gravity+random_color_enemies"),
        ],
    )
    def test_a_restored_game_goes_on_bit_for_bit(self, game, variant):
        env, fresh = (VariantAtariEnv(game, protocol="machado", variant=variant) for _ in range(2))
        env.reset(seed=5)
        _play(env, _actions(53, 18))
        fresh.reset(seed=11)
        fresh.restore(env.snapshot())
        actions = _actions(37, 18, seed=3)
        _assert_equal(_play(fresh, actions), _play(env, actions))

    def test_all_but_the_arrays_of_a_snapshot_is_json(self):
        env = VariantAtariEnv("seaquest", variant="random_color_enemies")
        env.reset(seed=5)
        _play(env, [0] * 3)
        snapshot = env.snapshot()
        kept = {name: snapshot[name] for name in ("variant", "console")}
        assert json.loads(json.dumps(kept)) == kept
        assert kept["console"]["memory"]

    def test_one_of_another_variant_is_refused(self):
        env, other = VariantAtariEnv("pong", variant="lazy_enemy"), AtariGymEnv("pong")
        other.reset(seed=5)
        with pytest.raises(ConfigError, match="snapshot is of variant '', but the environment plays 'lazy_enemy'"):
            env.restore(other.snapshot())

    def test_a_damaged_one_leaves_the_game_as_it_was(self):
        env, other = (VariantAtariEnv("pong", variant="lazy_enemy") for _ in range(2))
        env.reset(seed=5), other.reset(seed=6)
        before, damaged = env.snapshot(), other.snapshot()
        damaged["console"]["frame"] = -1
        with pytest.raises(ConfigError, match="damaged"):
            env.restore(damaged)
        np.testing.assert_array_equal(env.snapshot()["emulator"], before["emulator"])
        assert env.snapshot()["console"] == before["console"]


class TestTheId:
    def test_its_spec_survives_json(self):
        env = gym.make("rims_rl/AtariVariant-v0", game="breakout", variant="mode:4+gravity:3")
        again = gym.make(EnvSpec.from_json(env.spec.to_json()))
        assert again.unwrapped.variant == env.unwrapped.variant == parse_variant("breakout", "gravity:3+mode:4")
        np.testing.assert_array_equal(again.reset(seed=5)[0], env.reset(seed=5)[0])

    def test_it_passes_gymnasiums_check(self):
        check_env(VariantAtariEnv("freeway", variant="strobo_mode"), skip_render_check=True)

    def test_a_wrong_variant_is_one_line_through_make_env(self):
        with pytest.raises(ConfigError, match="unknown variant of pong 'lazy_enemi'; did you mean 'lazy_enemy'"):
            make_env("rims_rl/AtariVariant-v0", n_envs=1, variant="lazy_enemi", game="pong")


class TestTheEndOfAGame:
    def test_nothing_is_changed_once_the_game_is_over(self, monkeypatch):
        env = VariantAtariEnv("breakout", training=False, noop_max=1, variant="left_drift:1")
        env.reset(seed=5)
        emulated, changed = [], []
        act, advance = AtariGymEnv._act, env._console.advance
        monkeypatch.setattr(AtariGymEnv, "_act", lambda self, action: emulated.append(1) or act(self, action))
        monkeypatch.setattr(env._console, "advance", lambda changes: changed.append(1) or advance(changes))
        for action in losing_breakout_actions(400):
            if env.step(action)[2]:
                break
        assert env._ale.game_over()
        assert len(changed) == len(emulated) - 1


class TestPaintedFrames:
    def test_a_hook_sees_the_painted_frame_and_renders_show_it(self):
        env = VariantAtariEnv("pong", noop_max=1, variant="hidden_enemy")
        seen = []
        env.frame_hook = lambda frame: seen.append(frame.copy()) or frame
        env.reset(seed=5)
        _play(env, [0] * 60)
        enemy = (213, 130, 74)
        assert (env._ale.getScreenRGB()[34:194, 16:20] == enemy).all(-1).any()
        assert not (seen[-1][34:194, 16:20] == enemy).all(-1).any()
        assert not (env.render()[34:194, 16:20] == enemy).all(-1).any()
