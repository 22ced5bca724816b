"""Checks of what a trial left in its folder, which a stranger may have written: results, and how far it had come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rims_rl.errors import shortened

if TYPE_CHECKING:
    from rims_rl.experiments.experiment import Outcome
    from rims_rl.experiments.loop import Course

NOT_AS_EXPECTED = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError,
)  # fmt: skip
"""What reading damaged content raises, these checks included."""
MOST_RESULT_BYTES = 64 * 2**20
_TEXTS_OF_AN_OUTCOME = ("ended", "measured_on")
_COUNTS_OF_AN_OUTCOME = ("parameters", "updates", "best_update", "skipped")
_COUNTS_OF_A_COURSE = ("update", "best_update", "since_best", "skipped", "skipped_in_a_row")


def check_outcome(outcome: Outcome, variant: str, seed: int) -> None:
    """Raise one of `NOT_AS_EXPECTED` for a result of another trial, or one whose entries are of the wrong kind."""
    if (outcome.variant, outcome.seed) != (variant, seed):
        named = f"{shortened(outcome.variant)[1:-1]} seed {shortened(outcome.seed)}"
        raise ValueError(f"it is {named}, expected {variant} seed {seed}")
    _require_numbers(outcome.figures, "figure ")
    if not outcome.figures:
        raise ValueError("it has no figures")
    _require_counts(outcome, _COUNTS_OF_AN_OUTCOME)
    _require_texts({name: getattr(outcome, name) for name in _TEXTS_OF_AN_OUTCOME} | outcome.versions)
    _require_numbers({"seconds": outcome.seconds})
    _require_rows(outcome.rows)


def check_course(course: Course) -> None:
    """Raise one of `NOT_AS_EXPECTED` unless a trial can have come as far as this."""
    _require_counts(course, _COUNTS_OF_A_COURSE)
    _require_numbers({**course.sums, "seconds": course.seconds, "best": 0 if course.best is None else course.best})
    _require_rows(course.rows)


def _require_rows(rows: Any) -> None:
    if not isinstance(rows, list):
        raise ValueError("its rows are no list")
    for row in rows:
        _require_numbers(row)
        if not 0 <= row["update"] < math.inf:
            raise ValueError(f"it has a row of update {row['update']}")


def _require_counts(holder: object, names: tuple[str, ...]) -> None:
    for name in names:
        count = getattr(holder, name)
        if type(count) is not int or not 0 <= count < 2**62:
            raise ValueError(f"its {name} is {shortened(count)}, expected a whole number")


def _require_numbers(figures: Mapping[str, Any], kind: str = "") -> None:
    for name, figure in figures.items():
        if isinstance(figure, bool) or not isinstance(figure, int | float):
            raise ValueError(f"its {kind}{shortened(name)[1:-1]} is {shortened(figure)}, expected a number")
        float(figure)  # a whole number may have too many digits for one


def _require_texts(texts: Mapping[str, Any]) -> None:
    for name, text in texts.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"its {shortened(name)} is {shortened(text)}, expected a text")
