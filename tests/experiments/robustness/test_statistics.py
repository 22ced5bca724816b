"""Interquartile means, stratified intervals, retained fractions and pairs, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.experiments.robustness.statistics import (
    Estimate,
    advantage,
    estimate,
    interquartile_mean,
    paired,
    retained,
)


class TestInterquartileMean:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([7.0], 7.0),
            ([1.0, 2.0, 6.0], 3.0),  # a quarter of three is none
            ([100.0, 2.0, 4.0, -50.0], 3.0),
            ([1.0, 2.0, 3.0, 4.0, 1000.0], 3.0),
            ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 5.0),
            ([-9.0, 0.0, 1.0, 1.0, 2.0, 3.0, 80.0, 90.0], 1.75),
        ],
    )
    def test_is_the_mean_of_the_middle_half(self, values: list[float], expected: float) -> None:
        assert interquartile_mean(values) == pytest.approx(expected)

    def test_does_not_depend_on_the_order_and_moves_with_all(self) -> None:
        values = np.random.default_rng(3).normal(size=23)
        assert interquartile_mean(values) == interquartile_mean(values[::-1])
        assert interquartile_mean(5 * values + 2) == pytest.approx(5 * interquartile_mean(values) + 2)


class TestEstimate:
    def test_of_equal_numbers_is_that_number_and_so_is_its_interval(self) -> None:
        assert estimate([[0.7, 0.7, 0.7], [0.7, 0.7]]) == pytest.approx(Estimate(0.7, 0.7, 0.7, 2))

    def test_without_two_runs_of_any_game_there_is_no_interval(self) -> None:
        assert estimate([[3.0], [5.0]]) == Estimate(4.0, None, None, 1)

    def test_draws_never_mix_games(self) -> None:
        """Runs of a game are equal, so each draw is the data themselves, but only if it stays within the games."""
        games = [[0.0] * 3, [100.0] * 3]
        assert estimate(games, lambda values: float(values.mean())) == Estimate(50.0, 50.0, 50.0, 3)
        assert estimate(games) == Estimate(50.0, 50.0, 50.0, 3)

    def test_every_game_keeps_its_number_of_runs_in_every_draw(self) -> None:
        counts = set()

        def count(values: np.ndarray) -> float:
            counts.add(((values < 10).sum(), (values >= 10).sum()))
            return 0.0

        assert estimate([[1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 13.0, 14.0]], count).runs == 3
        assert counts == {(3, 5)}

    def test_the_interval_holds_the_middle_95_percent_of_the_draws(self) -> None:
        """Of two runs, 0 and 1, a draw's mean is 0, 0.5 or 1, with chances of a quarter, a half and a quarter."""
        found = estimate([[0.0, 1.0]])
        assert found == Estimate(0.5, 0.0, 1.0, 2)
        many = estimate([[0.0, 1.0] * 50], lambda values: float(values.mean()))
        assert many.low == pytest.approx(0.4, abs=0.02)  # 1.96 standard deviations of 0.5 / 10
        assert many.high == pytest.approx(0.6, abs=0.02)

    def test_the_same_seed_draws_the_same(self) -> None:
        values = [np.random.default_rng(5).normal(size=7).tolist()]
        assert estimate(values, seed=2) == estimate(values, seed=2) != estimate(values, seed=3)


CLEAN, RANDOM = np.array([29.0, 31.0]), np.array([1.0, 3.0])


class TestAdvantage:
    def test_is_what_the_mean_exceeds_random_play_by(self) -> None:
        assert advantage(CLEAN, RANDOM) == pytest.approx(28.0)

    @pytest.mark.parametrize(("ahead", "is_clear"), [(2.9, True), (2.7, False), (0.0, False), (-5.0, False)])
    def test_counts_from_two_standard_errors_on(self, ahead: float, is_clear: bool) -> None:
        """Two games with a variance of 2 on both sides: the standard error is sqrt(2), twice that is 2.83."""
        assert (advantage(RANDOM + ahead, RANDOM) is not None) == is_clear

    def test_more_games_make_the_same_difference_clear(self) -> None:
        few, many = (np.tile([0.0, 2.0], games) for games in (5, 50))
        assert advantage(few + 0.5, few) is None
        assert advantage(many + 0.5, many) == pytest.approx(0.5)

    def test_one_game_has_no_spread_to_judge_by(self) -> None:
        assert advantage(np.array([30.0]), RANDOM) is None
        assert advantage(CLEAN, np.array([2.0])) is None

    def test_equal_games_on_both_sides_differ_by_no_rounding(self) -> None:
        assert all(advantage(np.full(7, value), np.full(101, value)) is None for value in np.arange(1, 99) / 7)
        assert advantage(np.full(7, 0.2), np.full(101, 0.1)) == pytest.approx(0.1)


class TestRetained:
    @pytest.mark.parametrize(("score", "expected"), [(30.0, 1.0), (16.0, 0.5), (2.0, 0.0), (-12.0, -0.5), (58.0, 2.0)])
    def test_is_the_share_of_the_advantage_over_random_play(self, score: float, expected: float) -> None:
        assert retained(score, CLEAN, RANDOM) == pytest.approx(expected)

    def test_in_a_changed_world_the_random_play_there_counts(self) -> None:
        assert retained(15.0, CLEAN, RANDOM + 8, random_changed=5.0) == pytest.approx(0.5)
        assert retained(15.0, CLEAN, RANDOM + 8, random_changed=0.0) == pytest.approx(0.75)

    @pytest.mark.parametrize("clean", [2.0, 1.0, 2.1])
    def test_one_not_clearly_better_than_random_play_has_nothing_to_retain(self, clean: float) -> None:
        assert retained(5.0, np.array([clean - 1, clean + 1]), RANDOM) is None


class TestPaired:
    def test_differences_are_of_the_same_world_and_seed(self) -> None:
        first = {("pong", 0): 3.0, ("pong", 1): 5.0, ("breakout", 0): 7.0}
        second = {("breakout", 0): 6.0, ("pong", 1): 1.0, ("pong", 0): 3.0}
        found = paired(first, second)
        assert found is not None
        assert found.number == 3
        assert found.difference.value == pytest.approx((0 + 4 + 1) / 3)
        assert found.better == pytest.approx(2.5 / 3)  # two better, one tie

    def test_one_pair_far_from_the_others_does_not_decide(self) -> None:
        first = {("pong", seed): value for seed, value in enumerate((23.0, -0.05, -0.05, -0.05, -0.05))}
        found = paired(first, dict.fromkeys(first, 0.0))
        assert found is not None
        assert found.difference.value == pytest.approx(-0.05)
        assert found.better == pytest.approx(0.2)

    def test_who_lacks_a_partner_is_left_out(self) -> None:
        found = paired({("pong", 0): 3.0, ("pong", 7): 99.0}, {("pong", 0): 5.0, ("qbert", 7): -99.0})
        assert found is not None
        assert (found.number, found.difference.value, found.better) == (1, -2.0, 0.0)
        assert found.difference.low is None

    def test_without_any_pair_there_is_nothing_to_say(self) -> None:
        assert paired({("pong", 0): 1.0}, {("pong", 1): 1.0}) is None
        assert paired({}, {}) is None

    def test_swapping_the_two_turns_the_difference_around(self) -> None:
        generator = np.random.default_rng(7)
        keys = [(game, seed) for game in ("a", "b") for seed in range(5)]
        one, other = ({key: float(generator.normal()) for key in keys} for _ in range(2))
        forth, back = paired(one, other), paired(other, one)
        assert forth is not None
        assert back is not None
        assert forth.difference.value == pytest.approx(-back.difference.value)
        assert forth.better + back.better == pytest.approx(1.0)

    def test_draws_of_pairs_stay_within_their_world(self) -> None:
        first = {(world, seed): value for world, value in (("a", 0.0), ("b", 8.0)) for seed in range(3)}
        found = paired(first, dict.fromkeys(first, 0.0))
        assert found is not None
        assert found.difference == Estimate(4.0, 4.0, 4.0, 3)
