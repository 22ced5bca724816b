"""The adding task: the sum of two marked numbers of a sequence that is longer in the test than in training.

Goyal et al. 2021, appendix D.2 (after Hochreiter and Schmidhuber 1997): at each step comes a number in [0, 1] and two
marks; the first mark is set once in the first half, the second once in the second half. After the last step the sum of
the two marked numbers is to be said. The paper calls its metric cross entropy; its code computes the squared error.

Axes: L length of a sequence, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.config import Counts, Int
from rims_rl.errors import ConfigError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Column, Experiment, Outcome
from rims_rl.experiments.figures import draw_activity
from rims_rl.experiments.sequence_model import SequenceModel
from rims_rl.experiments.trial import Findings, Trial, batch_sizes, descend
from rims_rl.experiments.variants import Variant, build_core

INPUTS = 3
"""The number and its two marks."""
CHANCE = 1 / 6
"""Squared error of always saying 1, the sum's mean."""

_PAPER = {(50, 200), (500, 1000)}


@dataclass(frozen=True, kw_only=True)
class AddingConfig(ExperimentConfig):
    """Train on short sequences, test on long ones."""

    train_length: Int = 50
    """Steps of a sequence in training."""
    test_lengths: Counts = (50, 200)
    """Steps of a sequence in the tests."""
    embedding_size: Int = 64
    """Size of the vectors that the core reads, a linear map of the three inputs."""
    test_sequences: Int = 2_000
    """Sequences per test; validation has as many."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work."""
        super().check()
        self.require_at_least(1, "embedding_size", "test_sequences")
        if min(self.train_length, *self.test_lengths, 2) < 2 or not self.test_lengths:
            raise ConfigError(f"lengths must be at least 2, got {self.train_length} and {self.test_lengths}")


def adding_batch(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Draw sequences (L, B, 3) of a number and two marks, and their sums (B,)."""
    inputs = torch.zeros(length, batch, INPUTS)
    inputs[:, :, 0] = torch.rand(length, batch)
    half, row = length // 2, torch.arange(batch)
    first, second = torch.randint(0, half, (batch,)), torch.randint(half, length, (batch,))
    inputs[first, row, 1] = 1.0
    inputs[second, row, 2] = 1.0
    return inputs, inputs[first, row, 0] + inputs[second, row, 0]


class AddingTrial(Trial):
    """One model that learns to add."""

    watched = "squared_error"

    def __init__(self, config: AddingConfig, variant: Variant) -> None:
        self.config = config
        self.device = torch.device(config.device)
        core = build_core(variant, config.embedding_size, config)
        self.model = SequenceModel(nn.Linear(INPUTS, config.embedding_size), core, 1).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        super().__init__({"model": self.model}, {"adam": self.optimizer})

    def update(self, step: int) -> dict[str, float]:
        """Learn from fresh sequences."""
        loss = self._squared_error(self.config.batch_size, self.config.train_length)
        return {"loss": descend(loss, self.optimizer, self.config.max_grad_norm)}

    def validate(self) -> dict[str, float]:
        """Return the squared error at the training length."""
        return {"squared_error": self._mean_squared_error(self.config.train_length)}

    def test(self) -> Findings:
        """Return the squared error at every test length, and which units were active in one sequence of each."""
        figures: dict[str, float] = {}
        arrays: dict[str, Tensor] = {}
        for length in self.config.test_lengths:
            figures[f"squared_error_{length}"] = self._mean_squared_error(length)
            inputs, _ = adding_batch(1, length)
            activity = self.model.activity(inputs.to(self.device))
            if activity is not None:
                arrays |= {f"activity_{length}": activity[:, 0].cpu(), f"marks_{length}": inputs[:, 0, 1:].sum(1)}
        return Findings(figures, arrays)

    def _mean_squared_error(self, length: int) -> float:
        sizes = batch_sizes(self.config.test_sequences, self.config.batch_size)
        return float(np.average([float(self._squared_error(size, length)) for size in sizes], weights=sizes))

    def _squared_error(self, batch: int, length: int) -> Tensor:
        inputs, sums = adding_batch(batch, length)
        return F.mse_loss(self.model.last(inputs.to(self.device)).squeeze(1), sums.to(self.device))


class Adding(Experiment[AddingConfig]):
    """The adding task."""

    name = "adding"
    config_class = AddingConfig
    trial_class = AddingTrial

    @property
    def input_size(self) -> int:
        """Size of the vectors that the core reads."""
        return self.config.embedding_size

    def trial(self, variant: Variant, seed: int) -> AddingTrial:
        """Return a fresh trial."""
        return AddingTrial(self.config, variant)

    def _is_papers(self, length: int) -> bool:
        return (self.config.train_length, length) in _PAPER and self.config.has_papers_size

    @property
    def columns(self) -> Sequence[Column]:
        """The squared error per test length."""
        columns = []
        for length in self.config.test_lengths:
            paper = {"rim": "0.0"} if self._is_papers(length) else {}
            columns.append(Column(f"squared_error_{length}", f"MSE, {length} steps", 5, paper=paper))
        return columns

    @property
    def caption(self) -> str:
        """What the table shows."""
        lengths = self.config.test_lengths
        return f"Trained on {self.config.train_length} steps. Mean squared error (lower is better)." + (
            " The paper's column: table 5, which has no baselines." if any(map(self._is_papers, lengths)) else ""
        )

    def references(self, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
        """Return what always saying the mean achieves."""
        return {"(the mean)": {f"squared_error_{length}": CHANCE for length in self.config.test_lengths}}

    def draw(self, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
        """Draw which units were active over a sequence, and where its two marks were."""
        drawn = []
        for length in self.config.test_lengths:
            marks = self._marks(outcomes, length)
            drawn += draw_activity(outcomes, f"activity_{length}", folder / f"activity_{length}.png", marks)
        return drawn

    def _marks(self, outcomes: Sequence[Outcome], length: int) -> dict[int, str]:
        """Return the marked steps; all trials are shown the same sequence."""
        marked = next((outcome.arrays.get(f"marks_{length}") for outcome in outcomes if outcome.arrays), None)
        return {} if marked is None else {int(step): "mark" for step in marked.nonzero()}
