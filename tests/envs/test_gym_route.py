"""The Python route: single games, lives, sticky actions, snapshots, the frame hook."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rims_rl.envs.gym_route import AtariGymEnv
from rims_rl.errors import ConfigError, UnknownNameError
from tests.envs.single_game import SingleGame, losing_breakout_actions


def _play(env, actions):
    """Step through the actions, resetting where a game or life ends; return all that was seen, without wall time."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        info.get("episode", {}).pop("t", None)
        after = env.reset()[0] if terminated or truncated else observation
        seen.append((observation, after, (reward, terminated, truncated, info)))
    return seen


def _assert_equal(seen, other):
    for (observation, after, rest), (other_observation, other_after, other_rest) in zip(seen, other, strict=True):
        np.testing.assert_array_equal(observation, other_observation)
        np.testing.assert_array_equal(after, other_after)
        assert rest == other_rest


class TestAgainstASingleGame:
    def test_a_whole_game_agrees_in_frames_rewards_lives_score_and_length(self):
        env, single = AtariGymEnv("breakout", training=False, noop_max=1), SingleGame("breakout")
        np.testing.assert_array_equal(env.reset(seed=5)[0], single.reset())
        rng, score, over = np.random.default_rng(7), 0.0, False
        for length in range(1, 900):  # noqa: B007 - the length is compared below
            action = int(rng.integers(4))
            seen, reward, over, _, lives = single.step(action)
            observation, own_reward, terminated, truncated, info = env.step(action)
            score += reward
            np.testing.assert_array_equal(observation, seen)
            assert (own_reward, terminated, truncated, info["lives"]) == (reward, over, False, lives)
            if over:
                break
        assert over
        assert (info["episode"]["r"], info["episode"]["l"]) == (score, length)


class TestALostLife:
    def test_ends_the_return_and_reset_goes_on_with_the_game(self):
        env = AtariGymEnv("breakout")
        env.reset(seed=5)
        observation, info = self._until_a_life_is_lost(env)
        assert info["lives"] == 4
        again, reset_info = env.reset()
        np.testing.assert_array_equal(again, observation)
        assert reset_info == {"lives": 4}

    @pytest.mark.parametrize("resets", [[{"seed": 5}], [{}, {}]])
    def test_a_seed_or_a_second_reset_starts_a_new_game(self, resets):
        env = AtariGymEnv("breakout")
        env.reset(seed=5)
        self._until_a_life_is_lost(env)
        for arguments in resets:
            observation, info = env.reset(**arguments)
        assert info == {"lives": 5}
        assert not observation[:3].any()

    @staticmethod
    def _until_a_life_is_lost(env):
        for action in losing_breakout_actions(100):
            observation, _, terminated, _, info = env.step(action)
            if terminated:
                assert info["life_lost"]
                return observation, info
        raise AssertionError("no life was lost")


class TestASeededReset:
    @pytest.mark.parametrize("game", ["beam_rider", "surround"])
    def test_keeps_no_trace_of_the_game_before(self, game):
        env = AtariGymEnv(game, noop_max=1)
        actions = np.random.default_rng(13).integers(env.action_space.n, size=41)
        env.reset(seed=5)
        first = _play(env, actions)
        env.reset(seed=5)
        _assert_equal(_play(env, actions), first)


class TestStickyActions:
    @pytest.mark.parametrize(("protocol", "low", "high"), [("nature", 0.0, 0.0), ("machado", 0.24, 0.26)])
    def test_the_previous_action_is_repeated_as_often_as_the_protocol_says(self, protocol, low, high, monkeypatch):
        env = AtariGymEnv("pong", protocol=protocol)
        env.reset(seed=5)
        played = []
        monkeypatch.setattr(env, "_ale", type("Recorder", (), {"act": lambda _, action: played.append(action) or 0})())
        frames = 20_011
        for frame in range(frames):
            env._act(1_000 + frame)
        assert low <= sum(action != 1_000 + frame for frame, action in enumerate(played)) / frames <= high

    def test_what_is_repeated_is_the_action_that_was_really_played(self, monkeypatch):
        env = AtariGymEnv("pong", protocol="machado")
        env.reset(seed=5)
        played = []
        monkeypatch.setattr(env, "_ale", type("Recorder", (), {"act": lambda _, action: played.append(action) or 0})())
        for frame in range(307):
            env._act(frame)
        for frame in range(1, 307):
            assert played[frame] in (frame, played[frame - 1])

    def test_machado_offers_all_eighteen_actions(self):
        assert AtariGymEnv("pong", protocol="machado").action_space.n == 18
        assert AtariGymEnv("pong", protocol="nature").action_space.n == 6


@pytest.mark.faults
class TestSnapshots:
    @pytest.mark.parametrize("protocol", ["nature", "machado"])
    @pytest.mark.parametrize("game", ["breakout", "qbert", "pong"])
    def test_a_restored_game_goes_on_bit_for_bit_here_and_in_a_fresh_environment(self, game, protocol):
        env = AtariGymEnv(game, protocol=protocol, max_frames=900)
        env.reset(seed=5)
        rng = np.random.default_rng(13)
        _play(env, rng.integers(env.action_space.n, size=61))
        snapshot = env.snapshot()
        actions = rng.integers(env.action_space.n, size=227)
        expected = _play(env, actions)
        fresh = AtariGymEnv(game, protocol=protocol, max_frames=900)
        for other in (env, fresh):
            other.restore(snapshot)
            _assert_equal(_play(other, actions), expected)
        assert any("episode" in info for *_, (*_, info) in expected)

    def test_the_action_that_may_have_to_be_repeated_is_in_the_snapshot(self):
        env, other = AtariGymEnv("pong", protocol="machado"), AtariGymEnv("pong", protocol="machado")
        for seed in range(23):
            env.reset(seed=seed), other.reset(seed=1_000 + seed)
            _play(env, [2] * 7), _play(other, [3] * 7)
            other.restore(env.snapshot())
            assert other._last_action == env._last_action
            _assert_equal(_play(other, [0, 0, 3]), _play(env, [0, 0, 3]))

    @pytest.mark.parametrize("game", ["qbert", "trondead", "ms_pacman"])
    def test_a_snapshot_right_after_a_reset_goes_on_the_same_in_a_used_environment(self, game):
        env, used = AtariGymEnv(game, noop_max=1), AtariGymEnv(game, noop_max=1)
        env.reset(seed=5), used.reset(seed=9)
        actions = np.random.default_rng(13).integers(env.action_space.n, size=43)
        _play(used, actions)
        used.restore(env.snapshot())
        _assert_equal(_play(used, actions), _play(env, actions))

    @pytest.mark.parametrize("game", ["qbert", "trondead", "ms_pacman"])
    @pytest.mark.parametrize("steps_before", [0, 17])
    def test_taking_one_changes_nothing_in_the_game(self, game, steps_before):
        env, undisturbed = AtariGymEnv(game, noop_max=1), AtariGymEnv(game, noop_max=1)
        actions = np.random.default_rng(13).integers(env.action_space.n, size=steps_before + 43)
        for each in (env, undisturbed):
            each.reset(seed=5)
            _play(each, actions[:steps_before])
        env.snapshot()
        _assert_equal(_play(env, actions[steps_before:]), _play(undisturbed, actions[steps_before:]))

    def test_one_between_a_lost_life_and_its_reset_goes_on_with_that_game(self):
        env, fresh = AtariGymEnv("breakout"), AtariGymEnv("breakout")
        env.reset(seed=5)
        while not env.step(0)[2]:
            pass
        fresh.restore(env.snapshot())
        assert fresh.reset()[1] == env.reset()[1] == {"lives": 4}

    def test_a_mode_and_a_difficulty_survive(self):
        env, fresh = (AtariGymEnv("pong", mode=1, difficulty=2) for _ in range(2))
        env.reset(seed=5)
        actions = np.random.default_rng(13).integers(6, size=67)
        fresh.restore(env.snapshot())
        _assert_equal(_play(fresh, actions), _play(env, actions))

    def test_it_holds_only_arrays_and_what_json_can_hold(self):
        env = AtariGymEnv("breakout", protocol="machado")
        env.reset(seed=5)
        _play(env, [1, 2, 3])
        assert json.loads(json.dumps(_without_arrays(env.snapshot())))["game"] == "breakout"

    def test_it_does_not_change_when_the_game_goes_on(self):
        env = AtariGymEnv("breakout")
        env.reset(seed=5)
        snapshot = env.snapshot()
        before = json.dumps(_without_arrays(snapshot)), snapshot["screen"]["stack"].copy(), snapshot["emulator"].copy()
        _play(env, losing_breakout_actions(40))
        assert json.dumps(_without_arrays(snapshot)) == before[0]
        np.testing.assert_array_equal(snapshot["screen"]["stack"], before[1])
        np.testing.assert_array_equal(snapshot["emulator"], before[2])

    def test_the_unused_lines_of_a_screen_are_the_same_after_it(self):
        env, other = (AtariGymEnv("tic_tac_toe_3d", protocol="machado") for _ in range(2))
        env.reset(seed=5), other.reset(seed=77)
        rng = np.random.default_rng(1)
        for _ in range(43):
            other.restore(env.snapshot())
            actions = rng.integers(env.action_space.n, size=3)
            _assert_equal(_play(other, actions), _play(env, actions))

    def test_one_of_another_game_is_refused(self):
        env, other = AtariGymEnv("pong"), AtariGymEnv("breakout")
        env.reset(seed=5)
        with pytest.raises(ConfigError, match="this snapshot is of 'pong', but the environment plays 'breakout'"):
            other.restore(env.snapshot())


class TestTheFrameHook:
    def test_sees_each_raw_frame_that_an_observation_is_made_of(self):
        env, shapes = AtariGymEnv("pong", noop_max=1), []
        env.frame_hook = lambda frame: shapes.append(frame.shape) or frame
        env.reset(seed=5)
        for _ in range(7):
            env.step(0)
        assert shapes == [(210, 160, 3)] * (1 + 2 * 7)

    def test_that_changes_nothing_leaves_every_observation_as_it_is(self):
        plain, hooked = AtariGymEnv("ms_pacman"), AtariGymEnv("ms_pacman")
        hooked.frame_hook = lambda frame: frame
        np.testing.assert_array_equal(plain.reset(seed=5)[0], hooked.reset(seed=5)[0])
        actions = np.random.default_rng(13).integers(9, size=47)
        _assert_equal(_play(plain, actions), _play(hooked, actions))

    def test_alters_the_observation_only_where_it_paints(self):
        def paint(frame):
            frame[:105] = 255
            return frame

        plain, hooked = AtariGymEnv("pong"), AtariGymEnv("pong")
        hooked.frame_hook = paint
        plain.reset(seed=5), hooked.reset(seed=5)
        expected, seen = plain.step(0)[0], hooked.step(0)[0]
        assert (seen[-1, :42] == 255).all()
        np.testing.assert_array_equal(seen[-1, 42:], expected[-1, 42:])


class TestSettings:
    def test_a_mode_changes_the_game(self):
        frames = []
        for mode in (0, 12):
            env = AtariGymEnv("breakout", mode=mode, noop_max=1)
            env.reset(seed=5)
            frames.append(_play(env, losing_breakout_actions(20))[-1][0])
        assert not np.array_equal(*frames)

    def test_a_mode_stays_after_a_seeded_reset(self):
        env = AtariGymEnv("breakout", mode=12)
        env.reset(seed=5)
        first = _play(env, losing_breakout_actions(20))
        env.reset(seed=5)
        _assert_equal(_play(env, losing_breakout_actions(20)), first)

    @pytest.mark.parametrize(
        ("variant", "message"),
        [
            ({"mode": 3}, "pong has no mode 3; available: 0, 1"),
            ({"mode": True}, "pong has no mode True; available: 0, 1"),
            ({"difficulty": 4}, "pong has no difficulty 4; available: 0, 1, 2, 3"),
        ],
    )
    def test_a_variant_that_the_game_lacks_is_refused_with_those_it_has(self, variant, message):
        with pytest.raises(ConfigError, match=f"^{message}$"):
            AtariGymEnv("pong", **variant)

    def test_an_unknown_game_gets_the_nearest_name(self):
        with pytest.raises(UnknownNameError, match="did you mean 'pong'"):
            AtariGymEnv("pnog")

    @pytest.mark.parametrize("action", [-1, 6, 1.5, np.array([1]), float("nan"), None, "1"])
    def test_an_action_out_of_range_is_refused(self, action):
        env = AtariGymEnv("pong")
        env.reset(seed=5)
        with pytest.raises(ConfigError, match="is out of range: this game has actions 0 to 5"):
            env.step(action)

    @pytest.mark.parametrize("action", [3, 3.0, np.int32(3), np.array(3), torch.tensor(3)])
    def test_an_action_may_be_a_number_of_any_kind(self, action):
        env, other = AtariGymEnv("pong"), AtariGymEnv("pong")
        env.reset(seed=5), other.reset(seed=5)
        np.testing.assert_array_equal(env.step(action)[0], other.step(np.int64(3))[0])

    def test_render_gives_the_raw_screen(self):
        env = AtariGymEnv("pong")
        env.reset(seed=5)
        assert env.render().shape == (210, 160, 3)


def _without_arrays(tree):
    """Return the tree without its arrays; whatever else JSON can't hold stays in and makes `json.dumps` fail."""
    return {
        key: _without_arrays(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if isinstance(key, str) and not isinstance(value, np.ndarray)
    }
