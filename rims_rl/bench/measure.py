"""Turns, medians and ratios.

Wall-clock times on a shared machine swing by tens of percent from one minute to the next. What is compared is therefore
measured turn by turn, and what is reported is the median of the ratios of neighbouring turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

Work = Callable[[], object]
"""One turn of something that is built."""
Rounds = list[tuple[float, ...]]
"""Seconds of every contender, round by round."""
Say = Callable[[str], None]
"""Tells the terminal what is going on, outside what is timed."""
GRAIN = 0.02
"""Seconds below which a turn is made of several runs, so that the clock's grain does not matter."""


class Recipe(Hashable, Protocol):
    """How to build what is measured: a frozen dataclass, so that another process can be told."""

    def __call__(self) -> Work:
        """Build it, and return one turn of it."""


@dataclass(frozen=True)
class Contender:
    """Something that is measured."""

    name: str
    """As the tables call it."""
    recipe: Recipe
    """How to build it."""


def interleaved(
    works: Sequence[Work], repeats: int, warm_ups: int = 2, grain: float = GRAIN, before: Say | None = None
) -> Rounds:
    """Return the seconds of every work in every round, after rounds that do not count.

    Every second round goes backwards, so that a machine that grows slower or faster favours nobody.

    Args:
        works: what takes turns.
        repeats: rounds that count.
        warm_ups: rounds that do not; the last one tells how long a run takes.
        grain: seconds that a turn takes at least.
        before: is told the round's number before each turn.
    """
    runs = [1] * len(works)
    for _ in range(warm_ups):
        runs = [max(1, round(grain / max(1e-6, seconds_of(work)))) for work in works]
    rounds = []
    for turn in range(repeats):
        found = [0.0] * len(works)
        for index in range(len(works)) if turn % 2 == 0 else reversed(range(len(works))):
            if before is not None:
                before(f"round {turn + 1} of {repeats}")
            found[index] = seconds_of(works[index], runs[index])
        rounds.append(tuple(found))
    return rounds


def seconds_of(work: Work, runs: int = 1) -> float:
    """Return the seconds of one run, as the mean of several."""
    began = time.perf_counter()
    for _ in range(runs):
        work()
    return (time.perf_counter() - began) / runs


def medians(rounds: Rounds) -> list[float]:
    """Return every contender's median seconds."""
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]


def median_ratio(rounds: Rounds, above: int, below: int) -> float:
    """Return the median over the rounds of one contender's seconds divided by another's."""
    return statistics.median(seconds[above] / seconds[below] for seconds in rounds)
