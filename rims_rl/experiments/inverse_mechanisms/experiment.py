"""Learning of inverse mechanisms (Parascandolo et al. 2018): experts that compete learn to undo one change each.

One half of the digits stays as it is and shows what is canonical. Each digit of the other half has gone through one of
ten transformations; which one, and which digit it was, nobody is told. Ten experts and a discriminator play the game of
`competition.py`. Where it works, the assignment matrix (which share of each transformation's images each expert wins)
becomes a permutation, a classifier that knows clean digits alone names the winners' outputs well, and the experts undo
the same changes of letters, which they have never seen.

Axes: K transformations, E experts, N images, V validations, H rows, W columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from rims_rl.config import Int, OptionalFloat, OptionalInt, OptionalPath
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.experiments.config import ExperimentConfig, Texts
from rims_rl.experiments.experiment import Column, Experiment, Outcome
from rims_rl.experiments.inverse_mechanisms.figures import draw_figures
from rims_rl.experiments.inverse_mechanisms.transformations import TRANSFORMATIONS
from rims_rl.experiments.inverse_mechanisms.trial import Images, InverseMechanismsTrial, split_digits
from rims_rl.experiments.mnist import Digits, load_digits
from rims_rl.experiments.variants import Variant

Names = Annotated[tuple[str, ...], arg(metavar="NAME ...")]

WAYS = ("experts", "no-identity", "one-net", "16-experts")
"""Ways to compete: the paper's; without identity initialisation; one network alone; another number of experts."""

PAPER = {
    "perfect": {"experts": "70"},
    "accuracy_before": {"experts": "about 40"},
    "accuracy_clean": {"experts": "about 99"},
}
"""What is known of the paper's results by figure and way: 7 of 10 runs specialise perfectly, and accuracies."""


@dataclass(frozen=True, kw_only=True)
class InverseMechanismsConfig(ExperimentConfig):
    """Experts that compete learn to undo transformations of digits."""

    models: Texts = ("experts",)
    """Ways to compete: experts (the paper's), no-identity (any start), one-net (no competition), N-experts."""
    data_dir: OptionalPath = None
    """Folder with MNIST's IDX files; by default the Hugging Face hub is asked, which needs rims-rl[data]."""
    digits: OptionalInt = None
    """Digits of the training set that are used, validation's included: the first ones; by default all."""
    validation_digits: Int = 100
    """Last digits of the training set, kept for validation; each goes through all transformations."""
    test_digits: Int = 500
    """Digits of the test set, and letters, that the test has; each goes through all transformations."""
    transformations: Names = tuple(TRANSFORMATIONS)
    """Transformations that the experts have to find."""
    experts: Int = 10
    """Experts that compete."""
    filters: Int = 32
    """Filters per layer of an expert."""
    discriminator_filters: Int = 16
    """Filters of the discriminator's first layers; later ones have two and four times as many."""
    discriminator_hidden: Int = 1024
    """Units of the discriminator's last hidden layer."""
    discriminator_learning_rate: float = 1e-3
    """Adam's step size for the discriminator; learning_rate is the experts', which should not be much less."""
    identity_error: float = 0.002
    """Before the game an expert learns to return what it is given, until its mean squared error is below this."""
    identity_updates: Int = 500
    """Updates at most that an expert gets for that."""
    classifier_updates: Int = 1000
    """Updates of the classifier of clean digits, by which outputs are judged and which nothing learns from."""
    updates: Int = 2000
    """Updates of the game."""
    batch_size: Int = 32
    """Canonical images per update, and as many transformed ones."""
    eval_freq: Int = 100
    """Updates between two validations."""
    max_grad_norm: OptionalFloat = None
    """Gradient norm, of each network, above which gradients are scaled down; none for no limit."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work."""
        super().check()
        self.require_at_least(1, "validation_digits", "test_digits", "experts", "filters", "discriminator_filters",
                              "discriminator_hidden", "identity_updates", "classifier_updates", "digits")  # fmt: skip
        for name in ("discriminator_learning_rate", "identity_error"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in self.transformations:
            if name not in TRANSFORMATIONS:
                raise UnknownNameError("transformation", name, TRANSFORMATIONS)
        if len(set(self.transformations)) < max(1, len(self.transformations)):
            raise ConfigError(f"transformations must be given, each once, got {' '.join(self.transformations)}")


# ---------------------------------------------------------------------- the experiment


def parse_way(text: str, experts: int) -> Variant:
    """Return a way to compete by its name.

    Args:
        text: `experts`, `no-identity`, `one-net`, or a number as in `16-experts`.
        experts: how many there are where the name does not say it.

    Raises:
        UnknownNameError: for another name.
    """
    number = re.fullmatch(r"([1-9]\d{0,2})-experts", text)
    if text not in WAYS and not number:
        raise UnknownNameError("model", text, WAYS)
    count = int(number[1]) if number else 1 if text == "one-net" else experts
    return Variant(text, "", {"experts": count, "identity": text != "no-identity"})


class InverseMechanisms(Experiment[InverseMechanismsConfig]):
    """Experts that undo transformations of digits."""

    name = "inverse-mechanisms"
    config_class = InverseMechanismsConfig
    trial_class = InverseMechanismsTrial

    def check(self) -> None:
        """Raise ConfigError when digits are missing or damaged, or there are fewer than asked for."""
        self._images()
        self._test_digits()

    def variants(self) -> list[Variant]:
        """Return the ways to compete; raises UnknownNameError, and ConfigError for none or one that is named twice."""
        names = self.config.models
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"--models must be one or more of {', '.join(WAYS)}, each once, got {' '.join(names)}")
        return [parse_way(name, self.config.experts) for name in names]

    def trial(self, variant: Variant, seed: int) -> InverseMechanismsTrial:
        """Return a fresh trial."""
        return InverseMechanismsTrial(self.config, variant, self._images(), self._test_digits)

    def _images(self) -> Images:
        return split_digits(load_digits(self.config.data_dir, "train"), self.config)

    def _test_digits(self) -> Digits:
        digits, count = load_digits(self.config.data_dir, "test"), self.config.test_digits
        if count > len(digits):
            raise ConfigError(f"test_digits is {count:,}, but there are only {len(digits):,} of them")
        return Digits(digits.images[:count], digits.labels[:count])

    @property
    def columns(self) -> Sequence[Column]:
        """How far experts specialise, how well digits are restored, and letters."""
        own = f"own expert (of {len(self.config.transformations)})"
        paper = PAPER if self.config.transformations == tuple(TRANSFORMATIONS) else {}
        return [
            Column("perfect", "perfect runs, %", 0, True, paper.get("perfect", {})),
            Column("own_experts", own, 1, True),
            Column("purity", "purity, %", 1, True),
            Column("accuracy_before", "right before, %", 1, True, paper.get("accuracy_before", {})),
            Column("accuracy_after", "right after, %", 1, True),
            Column("accuracy_clean", "right clean, %", 1, True, paper.get("accuracy_clean", {})),
            Column("accuracy_worst_class", "worst class, %", 1, True),
            Column("digits_undone", "digits undone, %", 1, True),
            Column("letters_undone", "letters undone, %", 1, True),
            Column("letters_same_expert", "same expert, %", 1, True),
        ]

    @property
    def caption(self) -> str:
        """What the table shows."""
        config = self.config
        used = "all digits" if config.digits is None else f"{config.digits:,} digits"
        return (
            f"MNIST ({used} of the training set), half of it through {len(config.transformations)} transformations, "
            f"unpaired; tested on {config.test_digits:,} test digits and as many drawn letters, each through all. Own "
            "expert: one that wins most images of this transformation and of no other. Purity: images won by their "
            f"transformation's most frequent winner (chance: {100 / config.experts:.0f}). Right: accuracy, by a "
            "classifier of clean digits, of transformed digits, of the winners' outputs, of clean digits (the bound), "
            "and of the outputs for the worst class. Undone: fall of the squared error. Same expert: letters that the "
            "winner of the transformation's digits wins. The paper's numbers: as the literature has them, not its text."
        )

    def draw(self, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
        """Draw the assignment over training, the accuracy, and what the experts make of digits and letters."""
        return draw_figures(outcomes, self.config.transformations, folder)
