"""The copying task: remember ten symbols over a silence that is longer in the test than in training.

Goyal et al. 2021, section 4.1 and appendix D.1: ten symbols of 1 to 8, blanks (0), a marker (9), ten more blanks, over
which the ten symbols must be given back. The metric is that of the last ten steps alone: averaged over all steps,
guessing the symbols already looks good, since the many blanks are easy. Every sequence starts from the core's initial
state.

Axes: L length of a sequence, B batch, V number of tokens.
"""

from __future__ import annotations

import math
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

SYMBOLS = 10
"""How many symbols are to be remembered."""
TOKENS = 10
"""Blank, eight symbols, and the marker."""
MARKER = 9
CHANCE = math.log(8)
"""Cross entropy of a guess among the eight symbols, in nats."""

_PAPER_50 = {"rim": "0.00", "lstm": "0.00", "ntm": "0.00", "rmc": "0.00", "transformer": "0.00"}
_PAPER_200 = {"rim": "0.00", "lstm": "3.56", "ntm": "2.54", "rmc": "0.13", "transformer": "0.54"}


@dataclass(frozen=True, kw_only=True)
class CopyingConfig(ExperimentConfig):
    """Train on sequences with few blanks, test on sequences with many."""

    train_blanks: Int = 50
    """Blanks between the symbols and the marker in training."""
    test_blanks: Counts = (50, 200)
    """Numbers of blanks to test with."""
    embedding_size: Int = 64
    """Size of the vectors that stand for the tokens."""
    dropout: float = 0.0
    """Probability by which the core's inputs and outputs are dropped in training."""
    last_steps_only: bool = False
    """Train on the ten steps of the answer alone; otherwise on all steps, as in the paper."""
    test_sequences: Int = 1_000
    """Sequences per test; validation has as many."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work."""
        super().check()
        self.require_at_least(1, "train_blanks", "embedding_size", "test_sequences")
        if not self.test_blanks or min(self.test_blanks) < 1:
            raise ConfigError(f"test_blanks must be numbers of at least 1, got {self.test_blanks}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")


def copying_batch(batch: int, blanks: int) -> tuple[Tensor, Tensor]:
    """Draw sequences and what is to be said at each step, both (L, B) of tokens with L = blanks + 20.

    The marker is the last of the `blanks` steps between symbols and answer, as in the authors' code.
    """
    symbols = torch.randint(1, 9, (SYMBOLS, batch))
    inputs = torch.zeros(blanks + 2 * SYMBOLS, batch, dtype=torch.long)
    targets = torch.zeros_like(inputs)
    inputs[:SYMBOLS] = symbols
    inputs[blanks + SYMBOLS - 1] = MARKER
    targets[-SYMBOLS:] = symbols
    return inputs, targets


def answer_figures(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return cross entropy in nats and accuracy in percent over the last ten steps.

    Args:
        logits: (L, B, V).
        targets: (L, B) of tokens.
    """
    answer, wanted = logits[-SYMBOLS:].flatten(0, 1), targets[-SYMBOLS:].flatten()
    right = (answer.argmax(dim=1) == wanted).float().mean()
    return float(F.cross_entropy(answer, wanted)), 100.0 * float(right)


class CopyingTrial(Trial):
    """One model that learns to copy."""

    watched = "cross_entropy"

    def __init__(self, config: CopyingConfig, variant: Variant) -> None:
        self.config = config
        self.device = torch.device(config.device)
        embedding = nn.Embedding(TOKENS, config.embedding_size)
        core = build_core(variant, config.embedding_size, config)
        self.model = SequenceModel(embedding, core, TOKENS, config.dropout).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        super().__init__({"model": self.model}, {"adam": self.optimizer})

    def update(self, step: int) -> dict[str, float]:
        """Learn from fresh sequences; the loss is the cross entropy over all steps, as in the paper."""
        inputs, targets = self._batch(self.config.batch_size, self.config.train_blanks)
        logits = self.model(inputs)
        begin = -SYMBOLS if self.config.last_steps_only else 0
        loss = F.cross_entropy(logits[begin:].flatten(0, 1), targets[begin:].flatten())
        return {"loss": descend(loss, self.optimizer, self.config.max_grad_norm)}

    def validate(self) -> dict[str, float]:
        """Return the figures at the training length, on sequences drawn for that; other lengths are never looked at."""
        cross_entropy, accuracy = self._figures(self.config.train_blanks)
        return {"cross_entropy": cross_entropy, "accuracy": accuracy}

    def test(self) -> Findings:
        """Return the figures at every test length, and which units were active in one sequence of each."""
        figures, arrays = {}, {}
        for blanks in self.config.test_blanks:
            figures[f"cross_entropy_{blanks}"], figures[f"accuracy_{blanks}"] = self._figures(blanks)
            activity = self.model.activity(self._batch(1, blanks)[0])
            if activity is not None:
                arrays[f"activity_{blanks}"] = activity[:, 0].cpu()
        return Findings(figures, arrays)

    def _figures(self, blanks: int) -> tuple[float, float]:
        """Return cross entropy and accuracy over the test's number of sequences, a batch at a time."""
        sizes, figures = batch_sizes(self.config.test_sequences, self.config.batch_size), []
        for size in sizes:
            inputs, targets = self._batch(size, blanks)
            figures.append(answer_figures(self.model(inputs), targets))
        cross_entropy, accuracy = np.average(figures, axis=0, weights=sizes)
        return float(cross_entropy), float(accuracy)

    def _batch(self, batch: int, blanks: int) -> tuple[Tensor, Tensor]:
        inputs, targets = copying_batch(batch, blanks)
        return inputs.to(self.device), targets.to(self.device)


class Copying(Experiment[CopyingConfig]):
    """The copying task."""

    name = "copying"
    config_class = CopyingConfig
    trial_class = CopyingTrial

    @property
    def input_size(self) -> int:
        """Size of the tokens' vectors."""
        return self.config.embedding_size

    def trial(self, variant: Variant, seed: int) -> CopyingTrial:
        """Return a fresh trial."""
        return CopyingTrial(self.config, variant)

    @property
    def is_papers(self) -> bool:
        """Whether the task and the models' size are those of the paper's table 1."""
        return self.config.train_blanks == 50 and self.config.has_papers_size

    @property
    def columns(self) -> Sequence[Column]:
        """Cross entropy and accuracy per test length."""
        paper = {50: _PAPER_50, 200: _PAPER_200} if self.is_papers else {}
        columns = []
        for blanks in self.config.test_blanks:
            columns.append(Column(f"cross_entropy_{blanks}", f"CE, {blanks} blanks", 3, paper=paper.get(blanks, {})))
            columns.append(Column(f"accuracy_{blanks}", f"right %, {blanks} blanks", 1, higher_is_better=True))
        return columns

    @property
    def caption(self) -> str:
        """What the table shows."""
        return (
            f"Trained with {self.config.train_blanks} blanks. Cross entropy (nats, lower is better) and share of right "
            f"symbols over the last {SYMBOLS} steps."
            + (" The paper's column: table 1 (RIM 6/4 600, LSTM 600)." if self.is_papers else "")
        )

    def references(self, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
        """Return what guessing among the eight symbols achieves."""
        guess = {"cross_entropy": CHANCE, "accuracy": 100 / 8}
        return {"(guessing)": {f"{what}_{n}": value for what, value in guess.items() for n in self.config.test_blanks}}

    def draw(self, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
        """Draw which units were active over a sequence, as in the paper's figure 2."""
        drawn = []
        for blanks in self.config.test_blanks:
            marks = {0: "symbols", SYMBOLS: "blanks", SYMBOLS + blanks - 1: "marker, then answer"}
            drawn += draw_activity(outcomes, f"activity_{blanks}", folder / f"activity_{blanks}.png", marks)
        return drawn
