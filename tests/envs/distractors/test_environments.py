"""Distractors on Atari by both routes: what is seen changes, and nothing else."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from rims_rl.envs import make_atari_env, make_env
from rims_rl.envs.distractors import KINDS, Distractor
from rims_rl.envs.distractors.looks import grey_of
from rims_rl.envs.gym_route import AtariGymEnv
from rims_rl.envs.protocols import ROUTES
from rims_rl.envs.registration import ATARI_DISTRACTED
from rims_rl.envs.variants.env import VariantAtariEnv
from rims_rl.errors import ConfigError

EVERYTHING = "+".join(f"{kind}:0.5" for kind in KINDS)
IN_GREY = "balls:0.5+blobs:0.5+digits:0.5+colour:0.5+flicker:0.5"
"""Kinds that alter grey frames."""
MIXING = 4
"""How many of them mix pixels, each of which rounds in grey where it would round in colours: a level of 255."""


def _rollout(env, length, seed=11):
    """Return the first observations and all steps, the infos without wall time."""
    actions = np.random.default_rng(seed).integers(env.action_space.n, size=(length, 7))[:, : env.num_envs]
    seen = [env.reset()]
    for chosen in actions:
        step = env.step(chosen)
        for info in step[3]:
            info.get("episode", {}).pop("t", None)
        seen.append(step)
    env.close()
    return seen


def _assert_same(one, other, *, observations=True):
    for (obs, rewards, dones, infos), (other_obs, other_rewards, other_dones, other_infos) in zip(
        one[1:], other[1:], strict=True
    ):
        if observations:
            np.testing.assert_array_equal(obs, other_obs)
        np.testing.assert_array_equal(rewards, other_rewards)
        np.testing.assert_array_equal(dones, other_dones)
        for index, (info, other_info) in enumerate(zip(infos, other_infos, strict=True)):
            last, other_last = info.pop("terminal_observation", None), other_info.pop("terminal_observation", None)
            assert (last is None) == (other_last is None) == (not dones[index])
            if observations and last is not None:
                np.testing.assert_array_equal(last, other_last)
            info.pop("TimeLimit.truncated", None), other_info.pop("TimeLimit.truncated", None)
            assert info == other_info


class TestTheGameItself:
    @pytest.mark.parametrize("kind", KINDS)
    def test_goes_on_as_without_a_distractor_down_to_the_consoles_memory(self, kind):
        plain = AtariGymEnv("breakout", protocol="machado")
        distracted = AtariGymEnv("breakout", protocol="machado", distractor=f"{kind}:1")
        rng, changed = np.random.default_rng(5), False
        one, other = plain.reset(seed=3), distracted.reset(seed=3)
        for _ in range(41):
            assert one[1:] == other[1:]
            np.testing.assert_array_equal(plain._ale.getRAM(), distracted._ale.getRAM())
            changed = changed or bool((one[0] != other[0]).any())
            action = rng.integers(18)
            one, other = plain.step(action), distracted.step(action)
        assert changed

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_has_the_same_rewards_lives_and_ends_on_both_routes(self, route):
        plain = _rollout(make_atari_env("breakout", 3, seed=5, route=route, training=False, max_frames=150), 83)
        distracted = _rollout(
            make_atari_env("breakout", 3, seed=5, route=route, training=False, max_frames=150, distractor="drop"), 83
        )
        _assert_same(plain, distracted, observations=False)
        assert any(dones.any() for _, _, dones, _ in plain[1:])

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_is_seen_as_it_is_at_intensity_zero(self, route):
        plain = _rollout(make_atari_env("breakout", 2, seed=5, route=route), 31)
        other = _rollout(make_atari_env("breakout", 2, seed=5, route=route, distractor="noise:0+balls:0"), 31)
        np.testing.assert_array_equal(plain[0], other[0])
        _assert_same(plain, other)


class TestBothRoutes:
    @pytest.mark.parametrize("distractor", [EVERYTHING, IN_GREY])
    @pytest.mark.parametrize("split", ["train", "held-out"])
    def test_show_the_same_pixels_over_several_games(self, split, distractor):
        settings = {"noop_max": 1, "distractor": distractor, "distractor_split": split, "max_frames": 90}
        one, other = (
            _rollout(make_atari_env("breakout", 2, 5, route=route, **settings), 61) for route in ("gym", "vector")
        )
        np.testing.assert_array_equal(one[0], other[0])
        assert sum("episode" in info for step in one[1:] for info in step[3]) >= 4
        _assert_same(one, other)

    def test_show_the_same_under_the_largest_seeds(self):
        one, other = (make_atari_env("pong", 1, 2**32 - 1, route=r, distractor="balls:1", noop_max=1) for r in ROUTES)
        np.testing.assert_array_equal(one.reset(), other.reset())

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_show_each_copy_the_same_however_many_there_are(self, route):
        settings = {"route": route, "distractor": "balls+digits", "max_frames": 90}
        few, many = (_rollout(make_atari_env("pong", n, seed=5, **settings), 53) for n in (2, 3))
        for (obs, *_), (more, *_) in zip(few[1:], many[1:], strict=True):
            np.testing.assert_array_equal(obs, more[:2])

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_a_game_gets_another_look_than_the_one_before(self, route):
        settings = {"route": route, "noop_max": 1, "max_frames": 8}
        plain = _rollout(make_atari_env("pong", 1, 5, **settings), 5)
        distracted = _rollout(make_atari_env("pong", 1, 5, distractor="balls:1:static", **settings), 5)
        looks = [(step[0][0, -1] != clean[0][0, -1]) for step, clean in zip(distracted[1:], plain[1:], strict=True)]
        assert (looks[1] != looks[3]).any()  # both the first frame of a game: every second step ends one

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_take_every_form_and_any_gymnasium_door(self, route):
        one = _rollout(make_env("pong", 1, 5, route=route, distractor="balls:0.5"), 3)
        other = _rollout(make_env("pong", 1, 5, route=route, distractor=Distractor("balls", 0.5)), 3)
        _assert_same(one, other)

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_refuse_what_cannot_work_before_anything_is_built(self, route):
        with pytest.raises(ConfigError, match=r"intensity must be from 0 to 1, got 2\.0"):
            make_atari_env("pong", 1, route=route, distractor="balls:2")

    @pytest.mark.slow
    def test_worker_processes_show_the_same_as_this_one(self):
        settings = {"route": "gym", "distractor": EVERYTHING}
        one, other = (_rollout(make_atari_env("pong", 2, 5, subprocess=sub, **settings), 17) for sub in (False, True))
        _assert_same(one, other)


class TestSnapshots:
    @pytest.mark.parametrize("distractor", [EVERYTHING, IN_GREY, "background:0.5"])
    def test_a_restored_game_goes_on_bit_for_bit(self, distractor):
        env, other = (AtariGymEnv("breakout", max_frames=120, distractor=distractor) for _ in range(2))
        rng = np.random.default_rng(5)
        env.reset(seed=3)
        for _ in range(17):
            env.step(rng.integers(4))
        other.restore(env.snapshot())
        for action in rng.integers(4, size=61):
            steps = [one.step(action) for one in (env, other)]
            if steps[0][2] or steps[0][3]:
                resets = [one.reset() for one in (env, other)]
                np.testing.assert_array_equal(resets[0][0], resets[1][0])
            np.testing.assert_array_equal(steps[0][0], steps[1][0])
            assert steps[0][1:4] == steps[1][1:4]

    def test_one_without_distractors_is_refused_where_there_are_some(self):
        env, other = AtariGymEnv("pong"), AtariGymEnv("pong", distractor="balls:0.5")
        env.reset(seed=3)
        old = {key: value for key, value in env.snapshot().items() if key != "distraction"}
        for snapshot in (env.snapshot(), old):
            with pytest.raises(ConfigError, match=r"of distractors none, but the environment has balls:0.5"):
                other.restore(snapshot)
        env.restore(old)

    def test_a_lost_life_keeps_the_episodes_look(self):
        env = AtariGymEnv("breakout", distractor="balls:1:static")
        env.reset(seed=3)
        before = env._distraction.snapshot()["episode"]
        for step in range(100):
            observation, _, terminated, _, _ = env.step(1 if step % 5 == 0 else 0)
            if terminated:
                break
        assert terminated
        np.testing.assert_array_equal(env.reset()[0], observation)
        assert env._distraction.snapshot()["episode"] == before


class TestRendering:
    def test_shows_the_raw_screen_under_the_distractor_and_uses_no_frame_up(self):
        env, other = (AtariGymEnv("pong", distractor="balls:1") for _ in range(2))
        env.reset(seed=3), other.reset(seed=3)
        for _ in range(5):
            env.step(0), other.step(0)
            frame = env.render()
        assert (frame != env._ale.getScreenRGB()).any()
        np.testing.assert_array_equal(frame, env.render())
        np.testing.assert_array_equal(env.step(0)[0], other.step(0)[0])

    @pytest.mark.parametrize("distractor", [EVERYTHING, IN_GREY])
    def test_shows_in_colour_what_the_agent_sees_in_grey(self, distractor):
        env, seen = AtariGymEnv("breakout", distractor=distractor, max_frames=24), []
        env._screen.push = lambda: seen.append(env._screen.newest.copy())
        env.reset(seed=3)
        for step in range(13):
            difference = grey_of(env.render()).astype(int) - seen[-1]
            assert np.abs(difference).max() <= (MIXING if distractor == IN_GREY else 0)
            if env.step(step % 4)[3]:
                env.reset()

    @pytest.mark.parametrize("distractor", ["balls:1", "noise:1"])
    def test_before_the_first_game_shows_the_screen_as_it_is(self, distractor):
        env, other = (AtariGymEnv("pong", distractor=distractor) for _ in range(2))
        np.testing.assert_array_equal(env.render(), AtariGymEnv("pong").render())
        other.restore(env.snapshot())
        assert other.render().shape == (210, 160, 3)
        np.testing.assert_array_equal(other.reset(seed=3)[0], env.reset(seed=3)[0])

    def test_right_after_a_restore_shows_the_frame_from_before(self):
        env, other = (AtariGymEnv("breakout", distractor=IN_GREY) for _ in range(2))
        env.reset(seed=3)
        for _ in range(5):
            env.step(0)
        other.restore(env.snapshot())
        np.testing.assert_array_equal(env.render(), other.render())


class TestAFrameHook:
    def test_has_the_distractors_draw_in_colour_where_they_would_have_been(self):
        env, hooked = (AtariGymEnv("breakout", distractor=IN_GREY, max_frames=24) for _ in range(2))
        env.reset(seed=3), hooked.reset(seed=3)
        for step in range(25):
            hooked.frame_hook = (lambda frame: frame) if step % 3 else None
            (one, _, _, cut, _), (other, *_) = env.step(step % 4), hooked.step(step % 4)
            assert np.abs(one[-1].astype(int) - other[-1]).max() <= MIXING
            if cut:
                env.reset(), hooked.reset()
        assert env._distraction.snapshot() == hooked._distraction.snapshot()


class TestVariants:
    """Variants paint frames, change the RAM, or both: distractors come after them."""

    @pytest.mark.parametrize("split", ["train", "held-out"])
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("variant", ["", "lazy_enemy", "hidden_enemy"])
    def test_are_seen_through_every_kind(self, kind, split, variant):
        plain = VariantAtariEnv("pong", variant=variant)
        distracted = VariantAtariEnv("pong", variant=variant, distractor=f"{kind}:1", distractor_split=split)
        one, other = plain.reset(seed=3)[0], distracted.reset(seed=3)[0]
        changed = (one != other).any()
        for _ in range(20):
            one, other = plain.step(0)[0], distracted.step(0)[0]
            changed |= (one != other).any()
        assert changed

    @pytest.mark.parametrize("distractor", ["balls:1", "noise:1", "balls:1+noise:1"])
    @pytest.mark.parametrize("variant", ["lazy_enemy", "hidden_enemy"])
    def test_a_hook_sees_frames_before_the_distractors(self, variant, distractor):
        env, hooked = (VariantAtariEnv("pong", variant=variant, distractor=distractor) for _ in range(2))
        seen = []
        hooked.frame_hook = lambda frame: seen.append(frame) or frame
        np.testing.assert_array_equal(env.reset(seed=3)[0], hooked.reset(seed=3)[0])
        np.testing.assert_array_equal(env.step(0)[0], hooked.step(0)[0])
        assert len(seen) == 3


class TestRegisteredIds:
    @pytest.mark.parametrize("kind", ["background", "balls"])
    def test_survive_json(self, kind):
        env = gym.make(ATARI_DISTRACTED[kind], game="breakout", distractor_split="held-out")
        again = gym.make(EnvSpec.from_json(env.spec.to_json()))
        assert again.spec.kwargs == env.spec.kwargs
        np.testing.assert_array_equal(again.reset(seed=5)[0], env.reset(seed=5)[0])
