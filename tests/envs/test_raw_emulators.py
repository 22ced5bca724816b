"""Raw frames preprocessed here against the plain vector route, in every game."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs import game_names, make_atari_env, raw_emulators
from rims_rl.envs.protocols import AtariSettings
from rims_rl.envs.raw_emulators import RawEmulators
from rims_rl.envs.screen import FOREIGN_GREYS
from rims_rl.envs.vector_route import AtariVecEnv
from rims_rl.errors import ConfigError

GREYS_THAT_DIFFER = {"air_raid": 143, "laser_gates": 1}
"""Games whose grey in ALE is not that of its RGB, and by how many levels a pixel of an observation may differ.

Air Raid's rom is for PAL, of which ALE's grey levels belong to other colours; in Laser Gates one colour is a level off.
"""


def _rollout(game, length, *, raw):
    """Return the first observations and all steps, on the plain route or from raw frames without distractors."""
    env = AtariVecEnv(AtariSettings(game, max_frames=150), 2)
    if raw:
        env._emulators.close()
        env._emulators = RawEmulators(env.settings, 2, ())
    actions = np.random.default_rng(11).integers(env.action_space.n, size=(length, 2))
    env.seed(5)
    steps = [(env.reset(), np.zeros(2), np.zeros(2, bool), env.reset_infos), *map(env.step, actions)]
    env.close()
    return steps


def _assert_same_game(one, other):
    for (_, rewards, dones, infos), (_, other_rewards, other_dones, other_infos) in zip(one, other, strict=True):
        np.testing.assert_array_equal(rewards, other_rewards)
        np.testing.assert_array_equal(dones, other_dones)
        assert [info["lives"] for info in infos] == [info["lives"] for info in other_infos]


def _greatest_difference(one, other):
    return max(int(np.abs(a[0].astype(int) - b[0].astype(int)).max()) for a, b in zip(one, other, strict=True))


class TestEveryGame:
    @pytest.mark.slow
    @pytest.mark.parametrize("game", game_names())
    def test_is_seen_and_goes_on_as_on_the_plain_route(self, game, monkeypatch):
        plain = _rollout(game, 61, raw=False)
        assert any(dones.any() for _, _, dones, _ in plain)
        for is_grey in (True, False):
            monkeypatch.setattr(raw_emulators, "alter_grey", lambda game, distractors, is_grey=is_grey: is_grey)
            raw = _rollout(game, 61, raw=True)
            _assert_same_game(plain, raw)
            assert _greatest_difference(plain, raw) <= GREYS_THAT_DIFFER.get(game, 0)

    def test_whose_greys_are_not_those_of_its_colours_is_known(self):
        assert {game for game, levels in GREYS_THAT_DIFFER.items() if levels > 1} == FOREIGN_GREYS

    @pytest.mark.parametrize("route", ["gym", "vector"])
    def test_of_those_shows_its_own_grey_under_distractors_or_refuses_them(self, route):
        settings = {"n_envs": 1, "seed": 5, "route": route}
        clean = make_atari_env("air_raid", **settings).reset()
        np.testing.assert_array_equal(make_atari_env("air_raid", distractor="colour:1e-9", **settings).reset(), clean)
        with pytest.raises(ConfigError, match=r"air_raid: ALE's greys do not belong to its colours"):
            make_atari_env("air_raid", distractor="balls+noise", **settings)
