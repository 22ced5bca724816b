"""Every spelling of every game, and the names that are refused."""

from __future__ import annotations

import ale_py
import gymnasium as gym
import pytest

from rims_rl.envs import game_names, is_atari, resolve_game
from rims_rl.errors import ConfigError, UnknownNameError

gym.register_envs(ale_py)


def _pascal(rom):
    return rom.title().replace("_", "")


class TestEverySpellingMeansItsGame:
    @pytest.mark.parametrize(
        ("spelling", "rom"),
        [
            ("pong", "pong"),
            ("Pong", "pong"),
            ("PONG", "pong"),
            ("Pong-v4", "pong"),
            ("Pong-v5", "pong"),
            ("ALE/Pong-v5", "pong"),
            ("ale/pong", "pong"),
            ("PongNoFrameskip-v4", "pong"),
            ("PongDeterministic-v4", "pong"),
            ("MsPacman", "ms_pacman"),
            ("ms_pacman", "ms_pacman"),
            ("ms-pacman", "ms_pacman"),
            ("Ms Pacman", "ms_pacman"),
            ("ALE/MsPacman-v5", "ms_pacman"),
            ("MsPacmanNoFrameskip-v0", "ms_pacman"),
            ("  breakout ", "breakout"),
            ("ALE/TicTacToe3D-v5", "tic_tac_toe_3d"),
            ("Atlantis2", "atlantis2"),
        ],
    )
    def test_a_spelling_resolves_to_its_rom(self, spelling, rom):
        assert resolve_game(spelling) == rom
        assert is_atari(spelling)

    def test_every_id_that_ale_py_registers_resolves_to_its_own_rom(self):
        specs = {name: spec for name, spec in gym.registry.items() if spec.entry_point == "ale_py.env:AtariEnv"}
        assert len(specs) > 300
        assert {name: resolve_game(name) for name in specs} == {
            name: spec.kwargs["game"] for name, spec in specs.items()
        }

    @pytest.mark.parametrize("form", ["{}", "ALE/{}-v5", "{}NoFrameskip-v4", "{}Deterministic-v0"])
    def test_every_game_resolves_in_every_form(self, form):
        assert len(game_names()) == 104
        assert [resolve_game(form.format(_pascal(rom))) for rom in game_names()] == list(game_names())

    def test_hyphens_do_for_underscores(self):
        assert [resolve_game(rom.replace("_", "-")) for rom in game_names()] == list(game_names())


class TestOtherNamesAreRefusedInOneLine:
    @pytest.mark.parametrize(
        ("name", "near"), [("pnog", "'pong'"), ("ALE/Brekout-v5", "'breakout'"), ("SpaceInvader", "'space_invaders'")]
    )
    def test_an_unknown_game_gets_the_nearest_names(self, name, near):
        with pytest.raises(UnknownNameError, match=f"did you mean .*{near}"):
            resolve_game(name)

    @pytest.mark.parametrize("name", ["ALE/MsPacman-ram", "Pong-ram-v5", "Pong-ramNoFrameskip-v4", "pong-RAM"])
    def test_ram_observations_are_refused(self, name):
        assert is_atari(name)
        with pytest.raises(ConfigError, match="asks for RAM observations, which are not offered; use"):
            resolve_game(name)

    @pytest.mark.parametrize("name", ["combat", "Joust", "ALE/MazeCraze-v5", "warlords"])
    def test_games_for_two_players_are_refused_because_ale_would_abort(self, name):
        with pytest.raises(ConfigError, match="no single-player version"):
            resolve_game(name)

    @pytest.mark.parametrize("name", ["", "/", "pong/../../x", "pong-v3", "🎮", "v5"])
    def test_a_garbled_name_is_unknown(self, name):
        assert not is_atari(name)
        with pytest.raises(UnknownNameError, match="unknown Atari game"):
            resolve_game(name)


class TestGymnasiumNamesAreNotAtari:
    @pytest.mark.parametrize("name", ["CartPole-v1", "cartpole-novel", "Blackjack-v1", "rims_rl/CartPoleNovel-v0"])
    def test_a_gymnasium_id_is_not_a_game(self, name):
        assert not is_atari(name)

    def test_a_bare_word_that_both_know_is_the_atari_game(self):
        assert is_atari("blackjack")

    def test_anything_under_ale_means_atari_even_when_no_game_has_that_name(self):
        assert is_atari("ALE/Pnog-v5")
