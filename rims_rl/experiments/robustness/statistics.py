"""Interquartile means with bootstrap intervals, retained fractions and paired differences.

After Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (NeurIPS 2021): runs are
drawn anew within each game (stratified), and intervals are percentiles. Axis legend: R runs of one game.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
DRAWS = 2_000
"""How often runs are drawn anew."""
LEVEL = 0.95
"""Share of the draws that an interval holds."""
FEW = 5
"""Runs below which an interval says little, and a report must say so."""
SURE = 2.0
"""By how many standard errors an agent must exceed random play before a share of its advantage is told."""
_ROUNDING = 1e-12  # of a mean, relative to the largest score


class Estimate(NamedTuple):
    """A number with its interval."""

    value: float
    """The number."""
    low: float | None = None
    """Lower end of the interval; None where there are not two runs of any game."""
    high: float | None = None
    """Upper end."""
    runs: int = 0
    """Runs of the game that has fewest."""


def interquartile_mean(values: Sequence[float] | Scores) -> float:
    """Return the mean of the middle half: a quarter of the values, rounded down, is cut off at each end."""
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def estimate(
    games: Sequence[Sequence[float]], statistic: Callable[[Scores], float] = interquartile_mean, seed: int = 0
) -> Estimate:
    """Return a statistic over the runs of all games, with its stratified bootstrap interval.

    Args:
        games: for each game, a number per run, at least one.
        statistic: of all numbers together.
        seed: of the draws.
    """
    arrays = [np.asarray(runs, np.float64) for runs in games]
    value, fewest = statistic(np.concatenate(arrays)), min(map(len, arrays))
    if max(map(len, arrays)) < 2:
        return Estimate(value, runs=fewest)
    generator = np.random.default_rng(seed)
    drawn = [statistic(np.concatenate([generator.choice(runs, len(runs)) for runs in arrays])) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), fewest)


def advantage(clean: Scores, random: Scores) -> float | None:
    """Return by how much an agent's mean score exceeds that of random play; None where that is not clear.

    Clear is more than `SURE` standard errors of the difference, sqrt(var(clean) / games + var(random) / games), and
    more than the rounding of the means. One game alone has no known spread, so nothing is clear from it.

    Args:
        clean: the agent's scores in the world of the training, one per game.
        random: those of random play there.
    """
    if min(len(clean), len(random)) < 2:
        return None
    difference = float(clean.mean() - random.mean())
    error = math.sqrt(clean.var(ddof=1) / len(clean) + random.var(ddof=1) / len(random))
    rounding = _ROUNDING * max(np.abs(clean).max(), np.abs(random).max())
    return difference if difference > SURE * error + rounding else None


def retained(score: float, clean: Scores, random: Scores, random_changed: float | None = None) -> float | None:
    """Return the share of an agent's `advantage` over random play that is left; None for one without a clear one.

    Args:
        score: mean score in the changed world.
        clean: scores in the world of the training, one per game.
        random: scores of random play there.
        random_changed: mean score of random play in the changed world, where its dynamics are others.
    """
    whole = advantage(clean, random)
    if whole is None:
        return None
    return (score - (float(random.mean()) if random_changed is None else random_changed)) / whole


class Pairs(NamedTuple):
    """Two groups of agents compared run by run: same environment, same seed."""

    difference: Estimate
    """Interquartile mean of first minus second over the pairs."""
    better: float
    """Share of the pairs in which the first is better; ties count half."""
    number: int
    """How many pairs there are."""


def paired(first: dict[tuple[str, int], float], second: dict[tuple[str, int], float]) -> Pairs | None:
    """Compare numbers by environment and seed; None when no pair is there."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    games: dict[str, list[float]] = {}
    for env, seed in shared:
        games.setdefault(env, []).append(first[env, seed] - second[env, seed])
    differences = np.concatenate([np.asarray(values) for values in games.values()])
    better = float((differences > 0).mean() + (differences == 0).mean() / 2)
    return Pairs(estimate(list(games.values())), better, len(shared))
