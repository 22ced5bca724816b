"""Turns, medians and ratios; never how long anything takes."""

from __future__ import annotations

import pytest

from rims_rl.bench import measure
from rims_rl.bench.measure import interleaved, median_ratio, medians


class Clock:
    """A clock that works move by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)

    def taking(self, *seconds: float):
        """Return a work that takes these times, one after the other, and the last one from then on."""
        left = list(seconds)

        def work() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class TestTurns:
    def test_works_take_turns_and_every_second_round_goes_backwards(self, clock):
        done = []
        works = [lambda name=name: (done.append(name), clock.taking(1.0)()) for name in "abc"]
        interleaved(works, repeats=3, warm_ups=1)
        assert "".join(done) == "abc" + "abc" + "cba" + "abc"

    def test_rounds_keep_the_order_of_the_works_whichever_way_they_went(self, clock):
        rounds = interleaved([clock.taking(2.0), clock.taking(3.0)], repeats=3)
        assert rounds == [(2.0, 3.0)] * 3

    def test_the_first_rounds_do_not_count(self, clock):
        (rounds,) = zip(*interleaved([clock.taking(70.0, 50.0, 7.0)], repeats=2), strict=True)
        assert rounds == (7.0, 7.0)

    def test_short_works_are_run_until_the_clock_can_tell_and_long_ones_once(self, clock):
        counts = {"short": 0, "long": 0}

        def counted(name: str, seconds: float):
            def work() -> None:
                counts[name] += 1
                clock.now += seconds

            return work

        rounds = interleaved([counted("short", 0.005), counted("long", 3.0)], repeats=1, warm_ups=1, grain=0.02)
        assert counts == {"short": 1 + 4, "long": 1 + 1}
        assert rounds == [(pytest.approx(0.005), pytest.approx(3.0))]

    def test_what_is_said_before_a_turn_is_not_timed(self, clock):
        said = []

        def slow_terminal(text: str) -> None:
            said.append(text)
            clock.now += 100.0

        assert interleaved([clock.taking(1.0)], repeats=2, warm_ups=1, before=slow_terminal) == [(1.0,), (1.0,)]
        assert said == ["round 1 of 2", "round 2 of 2"]


class TestNumbers:
    ROUNDS = [(2.0, 1.0), (30.0, 10.0), (5.0, 5.0)]  # noqa: RUF012

    def test_medians_are_those_of_each_contender(self):
        assert medians(self.ROUNDS) == [5.0, 5.0]

    def test_the_ratio_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians(self):
        assert median_ratio(self.ROUNDS, 0, 1) == 2.0  # of 2, 3 and 1
        assert median_ratio(self.ROUNDS, 1, 0) == 0.5
