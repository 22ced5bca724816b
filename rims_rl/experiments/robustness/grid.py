"""The grid: which agents are measured in which conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from rims_rl.errors import ConfigError
from rims_rl.experiments.robustness.conditions import Condition, conditions_for, file_name
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.folder import RobustnessFolder
from rims_rl.experiments.robustness.play import Cell
from rims_rl.experiments.robustness.subjects import RANDOM, Subject

RANDOM_GAMES = 100
"""Games of random play, at least: every retained fraction depends on their mean, and they are short."""


class Grid(NamedTuple):
    """Everything that a report measures; each entry stands for one file."""

    scores: dict[tuple[Subject, Condition], Cell]
    """Every agent in every condition of its environment."""
    random: dict[tuple[str, Condition], Cell]
    """Random play, by world, in every condition with dynamics of its own."""
    mechanism: dict[tuple[Subject, Condition], Cell]
    """Every agent at the onset of each kind of distractor, at one intensity."""

    @property
    def cells(self) -> list[Cell]:
        """All cells, random play first, then run by run."""
        return [*self.random.values(), *self.scores.values(), *self.mechanism.values()]


def make_grid(config: RobustnessConfig, folder: RobustnessFolder, subjects: list[Subject]) -> Grid:
    """Return the grid of a report; raises as `conditions_for` does, and for games that end before the onset."""
    grid = Grid({}, {}, {})
    for subject in subjects:
        for condition in conditions_for(config, subject.env):
            file = folder.cell(subject.key, condition)
            grid.scores[subject, condition] = Cell(subject.run, subject.path, condition, config, file)
            _add_random(grid, subject, condition.dynamics, folder, config)
    grid.mechanism.update(_onsets(grid, folder, config))
    most = config.max_episode_steps
    if grid.mechanism and most is not None and most <= config.onset:
        raise ConfigError(f"games of {most} steps end before --onset {config.onset}: choose an earlier one, or "
                          "--no-mechanism")  # fmt: skip
    return grid


def _add_random(
    grid: Grid, subject: Subject, dynamics: Condition, folder: RobustnessFolder, config: RobustnessConfig
) -> None:
    """Add random play in a world, once for all agents in it."""
    name = f"{RANDOM}-{file_name(subject.world)}"
    often = replace(config, episodes=max(config.episodes, RANDOM_GAMES))
    cell = Cell(subject.run, None, dynamics, often, folder.cell(name, dynamics))
    grid.random.setdefault((subject.world, dynamics), cell)


def _onsets(grid: Grid, folder: RobustnessFolder, config: RobustnessConfig) -> dict[tuple[Subject, Condition], Cell]:
    """Return the cells in which memories are watched: each agent at the onset of each kind, at one intensity.

    That is the middle one, or the one at which the folder's memories were watched before others were added. What was
    measured stays, whatever else is measured now.
    """
    cells = {
        (subject, condition): cell._replace(
            file=folder.cell(subject.key, condition, "mechanism"), watches_mechanism=True
        )
        for (subject, condition), cell in grid.scores.items()
        if condition.kind is not None
    }
    there = {key for key, cell in cells.items() if cell.file.exists()}
    wanted = {condition.intensity for _, condition in there} or _middle(condition for _, condition in cells)
    new = {key for key in cells if config.mechanism and key[1].intensity in wanted}
    return {key: cell for key, cell in cells.items() if key in there | new}


def _middle(conditions: Iterable[Condition]) -> set[float]:
    """Return the middle one of the intensities, none where there is none."""
    intensities = sorted({condition.intensity for condition in conditions})
    return {intensities[len(intensities) // 2]} if intensities else set()
