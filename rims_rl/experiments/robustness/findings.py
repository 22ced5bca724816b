"""What the cells of a grid say: scores, and what of an agent's advantage over random play is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rims_rl.evaluation import ATARI_STEPS
from rims_rl.experiments.robustness.cells import read_cell
from rims_rl.experiments.robustness.conditions import CLEAN, Condition
from rims_rl.experiments.robustness.grid import Grid
from rims_rl.experiments.robustness.play import Cell
from rims_rl.experiments.robustness.statistics import Estimate, Pairs, advantage, estimate, paired, retained
from rims_rl.experiments.robustness.subjects import Subject
from rims_rl.scores import human_normalised

FAMILIES = ("train", "held-out", "variant", "task")
"""Families of conditions in the order of the tables."""
K = TypeVar("K")
Number = Callable[[Subject, Condition], float | None]


class Findings(NamedTuple):
    """All results that are there."""

    scores: dict[tuple[Subject, Condition], np.ndarray]
    """Raw scores of the games (episodes,)."""
    random: dict[tuple[str, Condition], np.ndarray]
    """Raw scores of random play, by world."""
    mechanism: dict[tuple[Subject, Condition], dict[str, Any]]
    """What `watch_onset` found."""
    is_cut: bool = False
    """Whether games were cut earlier than an evaluation's."""
    missing: int = 0
    """Cells without a result."""

    # Who and what

    @property
    def subjects(self) -> list[Subject]:
        """The agents with a result."""
        return list(dict.fromkeys(subject for subject, _ in self.scores))

    @property
    def labels(self) -> list[str]:
        """What agents are compared as."""
        return list(dict.fromkeys(subject.label for subject in self.subjects))

    @property
    def worlds(self) -> list[str]:
        """What is played."""
        return list(dict.fromkeys(subject.world for subject in self.subjects))

    @property
    def conditions(self) -> list[Condition]:
        """The conditions with a result."""
        return list(dict.fromkeys(condition for _, condition in self.scores))

    @property
    def families(self) -> list[str]:
        """The families of changed conditions."""
        there = {condition.family for condition in self.conditions}
        return [family for family in FAMILIES if family in there]

    def seeds(self, label: str, world: str | None = None) -> int:
        """Return how many seeds a label has in a world, or over all: two runs of one seed are one."""
        return len({(one.world, one.run.seed) for one in self.group(label, world)})

    def group(self, label: str, world: str | None = None) -> list[Subject]:
        """Return the agents of a label, all or those in one world."""
        return [one for one in self.subjects if one.label == label and world in (None, one.world)]

    # Numbers of one agent in one condition

    def mean(self, subject: Subject, condition: Condition) -> float | None:
        """Return the mean score; None where nothing was measured."""
        found = self.scores.get((subject, condition))
        return None if found is None else float(found.mean())

    def random_mean(self, world: str, condition: Condition = CLEAN) -> float | None:
        """Return the mean score of random play under a condition's dynamics."""
        found = self.random.get((world, condition.dynamics))
        return None if found is None else float(found.mean())

    def retained(self, subject: Subject, condition: Condition) -> float | None:
        """Return what is left of the agent's advantage over random play, 1 for all of it; None where unknown."""
        score, clean = self.mean(subject, condition), self.scores.get((subject, CLEAN))
        random, changed = self.random.get((subject.world, CLEAN)), self.random_mean(subject.world, condition)
        if score is None or clean is None or random is None or changed is None:
            return None
        return retained(score, clean, random, changed)

    def is_weak(self, subject: Subject) -> bool:
        """Return whether an agent is not clearly better than random play where it was trained."""
        clean, random = self.scores.get((subject, CLEAN)), self.random.get((subject.world, CLEAN))
        return clean is not None and random is not None and advantage(clean, random) is None

    def human(self, subject: Subject, condition: Condition) -> float | None:
        """Return the human-normalised score; None for changed or cut games, and where there are no such numbers."""
        score, is_itself = self.mean(subject, condition), condition.dynamics.is_clean and subject.plays_the_game_itself
        if score is None or self.is_cut or not is_itself:
            return None
        return human_normalised(subject.env, score)

    # Numbers of several

    def by_run(self, number: Number, label: str, conditions: Iterable[Condition]) -> dict[tuple[str, int], float]:
        """Return for every world and seed of a label the mean of a number over the conditions that have it."""
        return {key: _mean(values.values()) for key, values in self._known(number, label, conditions).items()}

    def over_runs(
        self, number: Number, label: str, conditions: Iterable[Condition], world: str | None = None
    ) -> Estimate | None:
        """Return the interquartile mean over a label's runs, with its interval; None where there is no number.

        Over all worlds there is none unless all labels have a number in each: means over different worlds would be
        compared otherwise.
        """
        conditions = list(conditions)
        if world is None and not self.is_whole(number, conditions):
            return None
        games: dict[str, list[float]] = {}
        for (played, _), value in self.by_run(number, label, conditions).items():
            if world in (None, played):
                games.setdefault(played, []).append(value)
        return estimate(list(games.values())) if games else None

    def is_whole(self, number: Number, conditions: Iterable[Condition]) -> bool:
        """Return whether every label has a number in every world in which the conditions were measured."""
        conditions = list(conditions)
        worlds = set(self.worlds_of(conditions))
        return all({world for world, _ in self.by_run(number, label, conditions)} == worlds for label in self.labels)

    def behind(
        self, number: Number, label: str, conditions: Iterable[Condition], world: str | None = None
    ) -> tuple[int, int]:
        """Return how many of a label's seeds have a number, and how many there are where the conditions are."""
        conditions = list(conditions)
        have = sum(world in (None, played) for played, _ in self.by_run(number, label, conditions))
        return have, sum(self.seeds(label, one) for one in self.worlds_of(conditions) if world in (None, one))

    def compared(self, number: Number, first: str, second: str, conditions: Iterable[Condition]) -> Pairs | None:
        """Compare two labels run by run, each pair over the conditions that both have; None without any pair."""
        conditions = list(conditions)
        one, other = self._known(number, first, conditions), self._known(number, second, conditions)
        shared = {key: one[key].keys() & other[key].keys() for key in one.keys() & other.keys()}
        means = [
            {key: _mean(known[key][condition] for condition in both) for key, both in shared.items() if both}
            for known in (one, other)
        ]
        return paired(*means)

    def partners(self, first: str, second: str, conditions: Iterable[Condition]) -> int:
        """Return how many pairs of one world and seed two labels have where the conditions were measured."""
        worlds = self.worlds_of(conditions)
        seeds = ({(one.world, one.run.seed) for one in self.group(label)} for label in (first, second))
        return sum(world in worlds for world, _ in set.intersection(*seeds))

    def worlds_of(self, conditions: Iterable[Condition]) -> list[str]:
        """Return the worlds in which some agent was measured in any of the conditions."""
        wanted = set(conditions)
        return list(dict.fromkeys(subject.world for subject, condition in self.scores if condition in wanted))

    def _known(
        self, number: Number, label: str, conditions: Iterable[Condition]
    ) -> dict[tuple[str, int], dict[Condition, float]]:
        """Return a number for every world and seed of a label that has some, by condition, the mean of equal seeds."""
        conditions, found = list(conditions), dict[tuple[str, int], dict[Condition, list[float]]]()
        for subject in self.group(label):
            for condition in conditions:
                value = number(subject, condition)
                if value is not None:
                    by_condition = found.setdefault((subject.world, subject.run.seed), {})
                    by_condition.setdefault(condition, []).append(value)
        return {key: {one: _mean(values) for one, values in known.items()} for key, known in found.items()}

    def of_family(self, family: str) -> list[Condition]:
        """Return the conditions of a family."""
        return [condition for condition in self.conditions if condition.family == family]


def read_findings(grid: Grid) -> Findings:
    """Return what is measured so far; raises CheckpointError for a damaged file."""
    return Findings(
        {key: _scores(result) for key, result in _measured(grid.scores)},
        {key: _scores(result) for key, result in _measured(grid.random)},
        dict(_measured(grid.mechanism)),
        is_cut=any((cell.config.max_episode_steps or ATARI_STEPS) < ATARI_STEPS for cell in grid.cells),
        missing=sum(not cell.file.exists() for cell in grid.cells),
    )


def _measured(cells: Mapping[K, Cell]) -> Iterator[tuple[K, dict[str, Any]]]:
    """Yield the results that are there."""
    for key, cell in cells.items():
        result = read_cell(cell)
        if result is not None:
            yield key, result


def _mean(values: Iterable[float]) -> float:
    """Return the mean, the same in whatever order the values come."""
    values = list(values)
    return math.fsum(values) / len(values)


def _scores(result: dict[str, Any]) -> np.ndarray:
    return np.array(result["scores"], np.float64)
