"""What may be asked of patience, and how its time is counted."""

from __future__ import annotations

import math

import pytest

from rims_rl.envs.watched import Patience, asked_patience, patience
from rims_rl.envs.watched.patience import Clock
from rims_rl.errors import ConfigError


class FakeTime:
    """A clock that only goes on when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr(patience, "time", fake)
    return fake


class TestPatience:
    def test_is_a_minute_and_three_restarts_where_nothing_is_said(self):
        assert (Patience().seconds, Patience().restarts) == (60.0, 3)

    @pytest.mark.parametrize("seconds", [0, -1.0, math.inf, math.nan, "60", True])
    def test_needs_a_time(self, seconds):
        with pytest.raises(ConfigError) as caught:
            Patience(seconds)
        expected = "seconds (step_timeout) must be a number above 0, or None to wait for ever"
        assert str(caught.value) == f"{expected}, got {seconds!r}"

    @pytest.mark.parametrize("restarts", [-1, 1.5, True, None])
    def test_needs_a_count(self, restarts):
        with pytest.raises(ConfigError) as caught:
            Patience(restarts=restarts)
        assert str(caught.value) == f"restarts (env_restarts) must be a whole number of at least 0, got {restarts!r}"

    def test_gives_a_start_more_time_than_a_step(self):
        assert [Patience(seconds).seconds_to_start for seconds in (2.0, 1000.0, None)] == [120.0, 1000.0, None]

    @pytest.mark.parametrize(
        ("timeout", "restarts", "names"),
        [
            (5.0, 3, "step_timeout"),
            (None, 3, "step_timeout"),
            (60, 0, "env_restarts"),
            (7, 1, "step_timeout and env_restarts"),
        ],
    )
    def test_is_for_processes_of_their_own(self, timeout, restarts, names):
        assert asked_patience(True, timeout, restarts) == Patience(timeout, restarts)
        with pytest.raises(ConfigError) as caught:
            asked_patience(False, timeout, restarts)
        assert str(caught.value) == f"{names}: only for environments in processes of their own, use subprocess=True"

    def test_may_be_given_as_it_is_anyway(self):
        assert asked_patience(False, 60.0, 3) == Patience()


class TestClock:
    def test_counts_what_was_waited(self, time):
        clock = Clock(2.5)
        for passed in (0.125, 0.25):
            assert clock.count(lambda seconds, passed=passed: self._wait(time, passed, seconds)) == 0.25
        assert clock.left == 2.125

    def test_tells_how_long_may_be_waited_at_most(self, time):
        clock = Clock(10.5)
        waits = [clock.count(lambda seconds: self._wait(time, seconds, seconds)) for _ in range(11)]
        assert waits == [1.0] * 10 + [0.5]
        assert clock.left == 0.0

    def test_hardly_counts_the_time_in_which_the_program_was_stopped(self, time):
        clock = Clock(60.0)
        clock.count(lambda seconds: self._wait(time, 3600.0, seconds))
        assert clock.left == 59.0

    def test_hardly_counts_it_where_the_limit_is_short(self, time):
        clock = Clock(0.5)
        clock.count(lambda seconds: self._wait(time, 3600.0, seconds))
        assert clock.left == 0.45

    def test_never_ends_without_a_limit(self, time):
        clock = Clock(None)
        clock.count(lambda seconds: self._wait(time, 3600.0, seconds))
        assert clock.left == math.inf

    def _wait(self, time: FakeTime, passed: float, seconds: float) -> float:
        time.now += passed
        return seconds
