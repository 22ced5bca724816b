"""Sequential MNIST at new resolutions (Goyal et al. 2021, appendix D.3).

A digit is read as a sequence of black and white pixels, row by row, and named after the last one. A model learns this
at 14x14 pixels and is tested, besides, at 16x16, 19x19 and 24x24: what is to be named is the same, but sequences are
longer, and the pixel below another one comes later.

Two things that public code does are not done here: models are chosen on validation digits at the resolution they are
trained on, never at the tested ones; and a black pixel, a token with an embedding of its own, is not the null input.

Axes: N digits, T pixels of a digit, B digits of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rims_rl.config import Counts, Int, OptionalInt, OptionalPath
from rims_rl.errors import ConfigError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Column, Experiment, Outcome
from rims_rl.experiments.mnist import CLASSES, SIDE, Digits, load_digits
from rims_rl.experiments.sequence_model import SequenceModel
from rims_rl.experiments.sequential_mnist.data import LabelledPixels, at_most, labelled_pixels, shuffled, split
from rims_rl.experiments.sequential_mnist.figures import draw_figures
from rims_rl.experiments.trial import Findings, Trial, descend
from rims_rl.experiments.variants import Variant, build_core

TOKENS = 2
"""Black and white."""
PAPER = {
    16: {"rim": "90.0", "lstm": "84.5", "entnet": "89.2", "rmc": "89.58", "dnc": "87.2", "transformer": "91.2"},
    19: {"rim": "73.4", "lstm": "52.2", "entnet": "52.4", "rmc": "54.23", "dnc": "44.1", "transformer": "51.6"},
    24: {"rim": "38.1", "lstm": "21.9", "entnet": "23.5", "rmc": "27.75", "dnc": "19.8", "transformer": "22.9"},
}
"""The paper's accuracy in percent by resolution and model (RIMs 6/4 of 600, LSTM 600), trained at 14x14."""

_PAPER_TRAIN_SIZE = 14
_PIXELS_AT_ONCE = 2**14


@dataclass(frozen=True, kw_only=True)
class SequentialMnistConfig(ExperimentConfig):
    """Name a digit that is read pixel by pixel; train at one resolution, test at others too."""

    data_dir: OptionalPath = None
    """Folder with MNIST's IDX files; by default the Hugging Face hub is asked, which needs rims-rl[data]."""
    train_size: Int = 14
    """Rows and columns of a digit in training and validation."""
    test_sizes: Counts = (16, 19, 24)
    """Further resolutions that the test has."""
    digits: OptionalInt = None
    """Digits of the training set that are used, validation's included, drawn at random once; by default all."""
    test_digits: OptionalInt = None
    """Digits of the test set that are used, drawn at random once; by default all."""
    validation_share: float = 0.2
    """Share of the used training digits that is kept for validation."""
    embedding_size: Int = 600
    """Size of the vector that stands for a black or a white pixel."""
    dropout: float = 0.0
    """Probability by which inputs and outputs of the core are dropped in training."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work."""
        super().check()
        if min(self.sizes) < 2 or len(set(self.sizes)) < len(self.sizes):
            raise ConfigError(f"train_size and test_sizes must differ and be at least 2, got {self.sizes}")
        self.require_at_least(1, "digits", "test_digits", "embedding_size")
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"validation_share must lie between 0 and 1, got {self.validation_share}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every resolution that is tested, the trained one first."""
        return (self.train_size, *self.test_sizes)


# ---------------------------------------------------------------------- measures


@torch.no_grad()
def class_scores(model: SequenceModel, pixels: Tensor) -> Tensor:
    """Return the scores (N, 10) that a model gives after the last pixel of sequences (T, N).

    Long sequences go in smaller batches, so that memory stays bounded; nothing is kept for gradients.
    """
    at_once = max(1, _PIXELS_AT_ONCE // len(pixels))
    return torch.cat([model.last(some.long()) for some in torch.split(pixels, at_once, dim=1)])


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return how many of the digits (N,) have their highest score (N, 10) at their own class, in percent."""
    return 100.0 * float((scores.argmax(dim=1) == labels).double().mean())


# ---------------------------------------------------------------------- the trial


class SequentialMnistTrial(Trial):
    """A sequence model that names digits."""

    watched = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        model: SequenceModel,
        config: SequentialMnistConfig,
        seed: int,
        training: LabelledPixels,
        validation: LabelledPixels,
        load_test: Callable[[], Digits],
    ) -> None:
        """Put the trial together.

        Args:
            model: what learns, on the device where the digits are, too.
            config: the settings.
            seed: decides the order of the training digits.
            training: digits at the training resolution that are learned from.
            validation: digits at the training resolution that choose the best weights.
            load_test: returns the test digits; called by `test` alone.
        """
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        super().__init__({"model": model}, {"adam": optimizer})
        self.model, self.config, self.seed = model, config, seed
        self.training, self.validation, self.load_test = training, validation, load_test

    def update(self, step: int) -> dict[str, float]:
        """Learn from the batch of this step: each epoch goes once through the digits, in an order of its own."""
        batch = self.training.chosen(self._batch(step))
        scores = self.model.last(batch.pixels.long())
        loss = F.cross_entropy(scores, batch.labels)
        right = accuracy(scores.detach(), batch.labels)
        return {
            "loss": descend(loss, self.optimizers["adam"], self.config.max_grad_norm),
            "training_accuracy": right,
        }

    def _batch(self, step: int) -> Tensor:
        """Return the numbers (B,) of a batch's digits; the last batch of an epoch is left out where it is not full."""
        count = len(self.training.labels)
        size = min(self.config.batch_size, count)
        epoch, place = divmod(step, count // size)
        order = shuffled(count, f"order {self.seed} {epoch}")
        return order[place * size : (place + 1) * size].to(self.training.labels.device)

    def validate(self) -> dict[str, float]:
        """Return loss and accuracy on the validation digits, at the training resolution."""
        scores = class_scores(self.model, self.validation.pixels)
        loss = F.cross_entropy(scores, self.validation.labels)
        return {"accuracy": accuracy(scores, self.validation.labels), "validation_loss": float(loss)}

    def test(self) -> Findings:
        """Return loss and accuracy on the test digits at each resolution, and who was active while ten were read."""
        digits = self.load_test()
        figures: dict[str, float] = {}
        for size in self.config.sizes:
            test = labelled_pixels(digits, size, self.validation.labels.device)
            scores = class_scores(self.model, test.pixels)
            figures[f"accuracy_{size}"] = accuracy(scores, test.labels)
            figures[f"loss_{size}"] = float(F.cross_entropy(scores, test.labels))
        return Findings(figures, self._shown(digits))

    def _shown(self, digits: Digits) -> dict[str, Tensor]:
        """Return one digit of each class at the training resolution, what it was taken for, and which units worked."""
        everything = labelled_pixels(digits, self.config.train_size, self.validation.labels.device)
        shown = everything.chosen(torch.from_numpy(np.unique(digits.labels, return_index=True)[1]))
        taken_for = class_scores(self.model, shown.pixels).argmax(dim=1)
        arrays = {"shown_pixels": shown.pixels, "shown_labels": shown.labels, "shown_taken_for": taken_for}
        active = self.model.activity(shown.pixels.long())
        if active is not None:
            arrays["shown_active"] = active
        return {name: array.cpu() for name, array in arrays.items()}


# ---------------------------------------------------------------------- the experiment


class SequentialMnist(Experiment[SequentialMnistConfig]):
    """Digits, pixel by pixel, at resolutions that were not trained."""

    name = "sequential-mnist"
    config_class = SequentialMnistConfig
    trial_class = SequentialMnistTrial

    @property
    def input_size(self) -> int:
        """Size of the pixels' vectors."""
        return self.config.embedding_size

    def check(self) -> None:
        """Raise ConfigError when digits are missing or damaged, or there are fewer than asked for."""
        split(len(load_digits(self.config.data_dir, "train")), self.config.digits, self.config.validation_share)
        self._test_digits()

    def trial(self, variant: Variant, seed: int) -> SequentialMnistTrial:
        """Return a model of a variant with its training and validation digits."""
        config, device = self.config, torch.device(self.config.device)
        core = build_core(variant, config.embedding_size, config)
        model = SequenceModel(nn.Embedding(TOKENS, config.embedding_size), core, CLASSES, config.dropout).to(device)
        digits = load_digits(config.data_dir, "train")
        training, validation = split(len(digits), config.digits, config.validation_share)
        pixels = labelled_pixels(digits, config.train_size, device)
        return SequentialMnistTrial(
            model, config, seed, pixels.chosen(training), pixels.chosen(validation), self._test_digits
        )

    def _test_digits(self) -> Digits:
        """Return the test digits that are used."""
        digits = load_digits(self.config.data_dir, "test")
        used = shuffled(len(digits), "mnist test")[: at_most(self.config.test_digits, len(digits), "test_digits")]
        return Digits(digits.images[used.numpy()], digits.labels[used.numpy()])

    @property
    def columns(self) -> Sequence[Column]:
        """Accuracy in percent at each resolution; the paper's numbers hold for training at 14x14 alone."""
        paper = self._paper
        return [Column(f"accuracy_{n}", f"{n}x{n}, %", 1, True, paper.get(n, {})) for n in self.config.sizes]

    @property
    def _paper(self) -> dict[int, dict[str, str]]:
        return PAPER if self.config.train_size == _PAPER_TRAIN_SIZE and self.config.has_papers_size else {}

    @property
    def caption(self) -> str:
        """What was trained and tested on."""
        size = self.config.train_size
        used = "all digits" if self.config.digits is None else f"{self.config.digits:,} digits"
        return (
            f"MNIST read pixel by pixel, trained at {size}x{size} ({used} of the training set, "
            f"{100 * self.config.validation_share:g} % of them for validation at {size}x{size}); test accuracy in "
            f"percent by resolution; pixels are rounded, images of {SIDE}x{SIDE} resized to the nearest pixel. "
            "Naming the most frequent digit always gives about 11 %."
        )

    def draw(self, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
        """Draw accuracy against resolution, and the activity of the units over digits."""
        return draw_figures(outcomes, self.config.sizes, self._paper, folder)
