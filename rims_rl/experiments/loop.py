"""The supervised training loop of all experiments: updates, validations, early stop, checkpoints, resume, test.

An interrupted trial goes on from its checkpoint as if nothing had happened: everything random is drawn from seeds that
depend on the trial's seed and the update's number alone (see `trial.py`), and everything else is in the checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rims_rl.agents.weights import check_weights
from rims_rl.errors import CheckpointError, NonFiniteError, said
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.stored import MOST_RESULT_BYTES, NOT_AS_EXPECTED, check_course, check_outcome
from rims_rl.experiments.trial import Trial, seed_all
from rims_rl.machine import describe_machine
from rims_rl.storage.optimizer_states import checked_optimizer_state
from rims_rl.storage.plain_files import read_json, write_text
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from rims_rl.storage.trees import pack, unpack
from rims_rl.versions import versions

SAVE_SECONDS = 60.0
"""Longest time between two checkpoints."""
Row = dict[str, float]


@dataclass(frozen=True)
class TrialFolder:
    """Where one trial keeps its files."""

    path: Path
    """The trial's folder."""

    @property
    def checkpoint(self) -> Path:
        """Everything that an unfinished trial needs to go on."""
        return self.path / "checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        """The weights that were tested."""
        return self.path / "weights.safetensors"

    @property
    def arrays(self) -> Path:
        """What plots are drawn from."""
        return self.path / "arrays.safetensors"

    @property
    def result(self) -> Path:
        """The outcome; written last, so where it is, the trial is finished."""
        return self.path / "result.json"


@dataclass
class Course:
    """How far a trial has come."""

    update: int = 0
    """Updates that were made."""
    best: float | None = None
    """The best value of the watched figure so far."""
    best_update: int = 0
    """After how many updates it was reached."""
    since_best: int = 0
    """Validations since then."""
    rows: list[Row] = field(default_factory=list)
    """One row per validation."""
    sums: Row = field(default_factory=dict)
    """Sums of the figures of the updates since the last validation."""
    skipped: int = 0
    """Updates that were left out, their loss or gradient not being finite."""
    skipped_in_a_row: int = 0
    """Those since the last one that was not."""
    seconds: float = 0.0
    """Wall time so far."""


def run_trial(
    build: Callable[[], Trial],
    outcome: Outcome,
    config: ExperimentConfig,
    folder: TrialFolder,
    say: Callable[[int, Row], None],
    stopped: Callable[[], bool],
) -> Outcome | None:
    """Train from scratch or from the checkpoint, test, write the result, and return it; None when it was stopped.

    Args:
        build: makes the trial; called with the global generator seeded.
        outcome: the result's head: name and seed; what it says of the rest is replaced.
        config: how long to train and when to validate.
        folder: where the trial's files lie; made when it is missing.
        say: hears of every update, and of every validation's row (empty otherwise).
        stopped: asked before every update; when it says so, the trial saves a checkpoint and ends.

    Raises:
        NonFiniteError: training diverged, more than `most_skipped` updates in a row not being finite, before any
            validation found better weights than the first; later, the trial ends there, its result says so, and the
            best weights are tested.
        CheckpointError: the checkpoint is damaged or belongs to another model.
        OSError: the disk refuses.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    seed_all(outcome.seed, "weights")
    loop = _Loop(build(), outcome.seed, config, folder, say)
    if folder.checkpoint.exists():
        loop.load()
    ended = loop.train(stopped)
    return None if ended is None else loop.finish(outcome, ended)


class _Loop:
    """One trial under way."""

    def __init__(
        self, trial: Trial, seed: int, config: ExperimentConfig, folder: TrialFolder, say: Callable[[int, Row], None]
    ) -> None:
        self.trial = trial
        self.seed = seed
        self.config = config
        self.folder = folder
        self.say = say
        self.course = Course()
        self.best_weights: dict[str, Any] = {}
        self._began = time.monotonic()
        self._saved = time.monotonic()

    # Training

    def train(self, stopped: Callable[[], bool]) -> str | None:
        """Train until there is a reason to end, and return it; None when stopped, with everything saved."""
        if not self.course.rows:
            self._validate()
        while (ended := self._reason_to_end()) is None:
            if stopped():
                self.save()
                return None
            try:
                self._update()
            except NonFiniteError as error:
                return self._diverged(error)
            if self.course.update % self.config.eval_freq == 0 or self.course.update == self.config.updates:
                self._validate()
                self.save()
            elif time.monotonic() - self._saved > SAVE_SECONDS:
                self.save()
        return ended

    def _diverged(self, error: NonFiniteError) -> str:
        """Return that and where training diverged, when a validation before it found better weights than the first."""
        how = f"diverged at update {self.course.update}: {error}"
        if self.course.best_update == 0:
            raise NonFiniteError(f"training {how}")
        return how

    def _reason_to_end(self) -> str | None:
        course, config = self.course, self.config
        if course.update >= config.updates:
            return "finished"
        if config.patience is not None and course.since_best >= config.patience:
            return "patience"
        if config.target is not None and course.best is not None and self._is_better(course.best, config.target, True):
            return "target"
        return None

    def _is_better(self, value: float, other: float, or_equal: bool = False) -> bool:
        return (value > other if self.trial.higher_is_better else value < other) or (or_equal and value == other)

    def _update(self) -> None:
        seed_all(self.seed, "update", self.course.update)
        self._set_training(True)
        try:
            self._add(self.trial.update(self.course.update))
        except NonFiniteError as error:
            self._skip(error)
        self.course.update += 1
        self.say(self.course.update, {})

    def _add(self, figures: Row) -> None:
        course = self.course
        for name, value in {**figures, "updates": 1.0}.items():
            course.sums[name] = course.sums.get(name, 0.0) + value
        course.skipped_in_a_row = 0

    def _skip(self, error: NonFiniteError) -> None:
        """Leave an update out, no weight having changed; raise NonFiniteError when there were too many in a row."""
        course = self.course
        course.skipped_in_a_row += 1
        if course.skipped_in_a_row > self.config.most_skipped:
            after = f" for {course.skipped_in_a_row} updates in a row" if self.config.most_skipped else ""
            raise NonFiniteError(f"{error}{after}")
        course.skipped += 1

    def _validate(self) -> None:
        """Validate, note a row, and keep the weights when they are the best so far."""
        seed_all("validation")
        self._set_training(False)
        with torch.no_grad():
            figures = self.trial.validate()
        course, count = self.course, self.course.sums.pop("updates", 0.0)
        means = {name: total / count for name, total in course.sums.items()}
        course.rows.append({"update": course.update, **means, **figures})
        course.sums = {}
        self._note_best(figures[self.trial.watched])
        self.say(course.update, course.rows[-1])

    def _note_best(self, value: float) -> None:
        course = self.course
        if course.best is None or not math.isfinite(course.best) or self._is_better(value, course.best):
            course.best, course.best_update, course.since_best = value, course.update, 0
            self.best_weights = {name: _copied(module.state_dict()) for name, module in self.trial.modules.items()}
        else:
            course.since_best += 1

    def _set_training(self, training: bool) -> None:
        for module in self.trial.modules.values():
            module.train(training)

    def _seconds(self) -> float:
        return self.course.seconds + time.monotonic() - self._began

    # Checkpoints

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is whole."""
        trial, tensors = self.trial, dict[str, Tensor]()
        content = {
            "course": asdict(replace(self.course, seconds=self._seconds())),
            "best_weights": self.best_weights,
            "modules": {name: module.state_dict() for name, module in trial.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in trial.optimizers.items()},
            "memory": trial.memory(),
        }
        manifest = pack(content, "trial", tensors)
        write_tensors(self.folder.checkpoint, tensors, {"trial": manifest})
        self._saved = time.monotonic()

    def load(self) -> None:
        """Put everything back in the state of the checkpoint.

        Raises:
            CheckpointError: when it is damaged or holds another model.
        """
        tensors, manifest = read_tensors(self.folder.checkpoint)
        try:
            self._restore(unpack(manifest["trial"], tensors))
        except (CheckpointError, *NOT_AS_EXPECTED) as error:
            raise CheckpointError(f"{self.folder.checkpoint} does not fit this trial: {said(error)}") from None

    def _restore(self, content: dict[str, Any]) -> None:
        for name, module in self.trial.modules.items():
            check_weights(module, content["modules"][name], name)
            check_weights(module, content["best_weights"][name], f"best {name}")
        course = Course(**content["course"])
        check_course(course)
        states = {
            name: checked_optimizer_state(optimizer, content["optimizers"][name])
            for name, optimizer in self.trial.optimizers.items()
        }
        for name, module in self.trial.modules.items():
            module.load_state_dict(content["modules"][name])
        for name, optimizer in self.trial.optimizers.items():
            optimizer.load_state_dict(states[name])
        self.trial.recall(content["memory"])
        self.best_weights, self.course = content["best_weights"], course

    # The end

    def finish(self, outcome: Outcome, ended: str) -> Outcome:
        """Test the best weights, write weights, arrays and result, and drop the checkpoint."""
        for name, module in self.trial.modules.items():
            module.load_state_dict(self.best_weights[name])
        seed_all("test")
        self._set_training(False)
        with torch.no_grad():
            findings = self.trial.test()
        course = self.course
        done = replace(
            outcome, parameters=self.trial.parameters(), updates=course.update, best_update=course.best_update,
            ended=ended, skipped=course.skipped, seconds=self._seconds(), measured_on=describe_machine(),
            versions=versions(), figures=findings.figures, rows=course.rows, arrays=findings.arrays,
        )  # fmt: skip
        self._write(done)
        return done

    def _write(self, done: Outcome) -> None:
        modules = self.best_weights.items()
        weights = {f"{name}/{key}": value for name, tensors in modules for key, value in tensors.items()}
        write_tensors(self.folder.weights, weights, {"variant": done.variant, "seed": done.seed})
        write_tensors(self.folder.arrays, done.arrays, {})
        plain = {name: value for name, value in vars(done).items() if name != "arrays"}
        write_text(self.folder.result, json.dumps(plain, indent=1) + "\n")
        self.folder.checkpoint.unlink(missing_ok=True)


def _copied(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def read_outcome(folder: TrialFolder, variant: str, seed: int) -> Outcome:
    """Return the result that a finished trial of a model and a seed has left.

    Raises:
        CheckpointError: when its files are damaged or missing.
    """
    try:
        plain = read_json(folder.result, MOST_RESULT_BYTES)
        arrays, _ = read_tensors(folder.arrays)
        outcome = Outcome(**plain, arrays=arrays)
        check_outcome(outcome, variant, seed)
    except (CheckpointError, *NOT_AS_EXPECTED) as error:
        raise CheckpointError(
            f"{folder.path} holds a damaged result: {said(error)}; remove the folder to redo it"
        ) from None
    return outcome
