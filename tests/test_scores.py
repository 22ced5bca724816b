"""The scores of random play and of a human tester."""

from __future__ import annotations

import pytest

from rims_rl.envs import game_names
from rims_rl.scores import REFERENCES, human_normalised


def test_random_play_is_zero_and_the_human_is_one() -> None:
    for game, reference in REFERENCES.items():
        assert human_normalised(game, reference.random) == 0.0
        assert human_normalised(game, reference.human) == 1.0


def test_the_published_examples_are_there() -> None:
    assert REFERENCES["pong"] == (-20.7, 14.6)
    assert REFERENCES["breakout"] == (1.7, 30.5)
    assert REFERENCES["beam_rider"] == (363.9, 16926.5)
    assert REFERENCES["zaxxon"] == (32.5, 9173.3)


def test_half_way_is_a_half_also_below_zero() -> None:
    assert human_normalised("pong", -3.05) == pytest.approx(0.5)
    assert human_normalised("pong", -21.0) == pytest.approx(-0.3 / 35.3)


def test_all_57_games_are_known_under_their_rom_names() -> None:
    assert len(REFERENCES) == 57
    assert set(REFERENCES) <= set(game_names())


def test_a_game_without_numbers_has_no_relative_score() -> None:
    assert human_normalised("tetris", 100.0) is None
