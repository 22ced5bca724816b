"""A trial of the inverse mechanisms: digits in two halves, the game over one of them, and what is measured.

Axes: K transformations, E experts, N images, V validations, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.errors import ConfigError
from rims_rl.experiments.inverse_mechanisms import competition as game
from rims_rl.experiments.inverse_mechanisms.transformations import (
    MARGIN,
    TRANSFORMATIONS,
    draw_letters,
    padded,
    transformed,
)
from rims_rl.experiments.mnist import CLASSES, SIDE, Digits
from rims_rl.experiments.trial import Findings, Trial, descend, numpy_generator
from rims_rl.experiments.variants import Variant

if TYPE_CHECKING:
    from rims_rl.experiments.inverse_mechanisms.experiment import InverseMechanismsConfig

SHOWN = 6
"""Images per transformation that pictures show."""

_IMAGE = SIDE + 2 * MARGIN
_IDENTITY_LEARNING_RATE = 3e-3  # with 1e-3 it takes twice as long


# ---------------------------------------------------------------------- data


class Images(NamedTuple):
    """What a trial sees."""

    canonical: Tensor
    """Digits (N, 1, H, W) that stay as they are."""
    others: Tensor
    """Other digits (N, 1, H, W); number i goes through transformation i modulo K."""
    validation: Tensor
    """Digits (N, 1, H, W) held out from both."""
    validation_labels: Tensor
    """Their classes (N,)."""
    labels: Tensor
    """Classes of the canonical and then the other digits, which the classifier alone is told."""


def split_digits(digits: Digits, config: InverseMechanismsConfig) -> Images:
    """Cut training digits in three: a half that is canonical, a half to transform, and the last ones for validation.

    Raises:
        ConfigError: when there are too few.
    """
    used = len(digits) if config.digits is None else config.digits
    half = (used - config.validation_digits) // 2
    if used > len(digits) or half < len(config.transformations):
        raise ConfigError(
            f"{len(digits):,} digits are too few for digits={config.digits}, {config.validation_digits} of them for "
            f"validation and one per transformation; there must be more, or the settings less"
        )
    images = padded(digits.images[:used]).to(config.device)
    labels = torch.from_numpy(digits.labels[:used]).to(config.device)
    held_out = used - config.validation_digits
    return Images(
        images[:half], images[half : 2 * half], images[held_out:], labels[held_out:], labels[: 2 * half]
    )  # fmt: skip


def every_transformation(images: Tensor, names: Sequence[str]) -> Tensor:
    """Put all images (N, 1, H, W) through all transformations: (K, N, 1, H, W)."""
    return torch.stack([TRANSFORMATIONS[name](images) for name in names])


# ---------------------------------------------------------------------- the trial


class Judged(NamedTuple):
    """What the experts made of the same images after every transformation."""

    changed: Tensor
    """The images (K, N, 1, H, W) that they were given."""
    undone: Tensor
    """The winners' outputs (K, N, 1, H, W)."""
    winners: Tensor
    """Who won (K, N)."""
    scores: Tensor
    """The scores (E, K * N) of all experts."""


class InverseMechanismsTrial(Trial):
    """Experts and a discriminator.

    In the paper the last weights count. Here those count with which the discriminator tells most experts apart
    (`competition.told_apart`): like everything in training, the figure knows neither labels, nor pairs, nor which
    transformation an image has gone through, and it spares a trial that the adversaries' oscillation ends in a trough.
    """

    watched = "told_apart"
    higher_is_better = True

    def __init__(
        self, config: InverseMechanismsConfig, variant: Variant, images: Images, test: Callable[[], Digits]
    ) -> None:
        """Put the trial together.

        Args:
            config: the settings.
            variant: its settings are `experts`, their number, and `identity`, whether they start as the identity.
            images: on the device of the trial.
            test: returns the test digits; called by `test` alone.
        """
        self.config, self.variant, self.images, self.load_test = config, variant, images, test
        self.device = torch.device(config.device)
        experts = [game.make_expert(config.filters).to(self.device) for _ in range(variant.settings["experts"])]
        self.experts = nn.ModuleList(experts)
        self.discriminator = game.make_discriminator(
            config.discriminator_filters, config.discriminator_hidden, _IMAGE
        ).to(self.device)
        optimizers = {f"expert_{n}": self._adam(expert, config.learning_rate) for n, expert in enumerate(experts)}
        optimizers["discriminator"] = self._adam(self.discriminator, config.discriminator_learning_rate)
        super().__init__({"experts": self.experts, "discriminator": self.discriminator}, optimizers)
        self.remembered = {"updates": 0, "validated": [], "assignments": []}
        self.identity_error = self._learn_identities() if variant.settings["identity"] else float("nan")
        self.classifier = self._classifier()

    @staticmethod
    def _adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=learning_rate)

    # Before the game

    def _learn_identities(self) -> float:
        """Teach every expert to return what it is given (approximate identity initialisation); return the worst error.

        It is part of a trial's construction, so that the first validation already sees the game's start. The steps are
        made by optimizers of their own, of which nothing stays.
        """
        return max(self._learn_identity(expert) for expert in self.experts)

    def _learn_identity(self, expert: nn.Module) -> float:
        adam, error = self._adam(expert, _IDENTITY_LEARNING_RATE), float("inf")
        for _ in range(self.config.identity_updates):
            images = self._changed()
            error = descend(F.mse_loss(expert(images), images), adam)
            if error < self.config.identity_error:
                break
        return error

    def _classifier(self) -> nn.Module:
        """Train the judge on clean digits, the same for all trials; what is drawn after it does not depend on it."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.manual_seed(0)
            classifier = game.make_classifier(CLASSES, _IMAGE).to(self.device)
            clean = torch.cat([self.images.canonical, self.images.others])
            game.train_classifier(classifier, clean, self.images.labels, self.config.classifier_updates)
        return classifier.eval()

    # Training

    def update(self, step: int) -> dict[str, float]:
        """Let the discriminator learn from all attempts, then each expert from the images that it wins."""
        canonical, changed = self._canonical(), self._changed()
        outputs = game.attempts(self.experts, changed)
        made = torch.stack(outputs).detach()
        scores = game.scores_of(self.discriminator, made)
        loss = game.discriminator_loss(self.discriminator(canonical), scores)
        figures = {"discriminator_loss": self._descend(loss, "discriminator")}
        figures["winner_loss"] = self._teach_winners(outputs, self._winners(made))
        self.remembered["updates"] = step + 1
        return figures

    @torch.no_grad()
    def _winners(self, made: Tensor) -> Tensor:
        """Return who made the best (B,) of attempts (E, B, 1, H, W), in the eyes of the discriminator as it is now.

        It has just learned from these attempts: whom it has seen through loses the lead, and others get their chance.
        """
        return game.scores_of(self.discriminator, made).argmax(dim=0)

    def _teach_winners(self, outputs: list[Tensor], winners: Tensor) -> float:
        """Improve every winner on its own images alone; experts that win nothing keep their weights.

        Batch norm sees the whole batch in every expert, winner or not: so an expert is the same function when it is
        scored, when it learns, and, by the running means, when it is tested.

        Args:
            outputs: each expert's attempts (B, 1, H, W), with their graphs.
            winners: (B,) of numbers of experts.

        Returns:
            The winners' loss, averaged over images.
        """
        total = 0.0
        for number in sorted(set(winners.tolist())):
            won = outputs[number][winners == number]
            loss = game.winner_loss(self.discriminator(won))
            total += len(won) * self._descend(loss, f"expert_{number}")
        return total / len(winners)

    def _canonical(self) -> Tensor:
        chosen = torch.randint(len(self.images.canonical), (self.config.batch_size,))
        return self.images.canonical[chosen.to(self.device)]

    def _changed(self) -> Tensor:
        """Draw transformed images, of each transformation as many on average."""
        chosen = torch.randint(len(self.images.others), (self.config.batch_size,)).to(self.device)
        return transformed(self.images.others[chosen], chosen % len(self.names), self.names)

    def _descend(self, loss: Tensor, optimizer: str) -> float:
        return descend(loss, self.optimizers[optimizer], self.config.max_grad_norm)

    @property
    def names(self) -> tuple[str, ...]:
        """The transformations."""
        return self.config.transformations

    def recall(self, memory: dict[str, Any]) -> None:
        """Take back what was remembered; raises ValueError when it is no course of assignment matrices."""
        shape = (len(self.names), len(self.experts))
        for updates, assignment in zip(memory["validated"], memory["assignments"], strict=True):
            if type(updates) is not int or not isinstance(assignment, Tensor) or assignment.shape != shape:
                raise ValueError(f"it remembers something else than assignments of shape {shape}")
        if type(memory["updates"]) is not int:
            raise ValueError("it does not remember how many updates were made")
        super().recall(memory)

    # Measuring

    def validate(self) -> dict[str, float]:
        """Return figures on held-out digits of the training set, and remember the assignment matrix."""
        clean, labels = self.images.validation, self.images.validation_labels
        judged = self._judge(clean)
        assignment = game.assignment_matrix(judged.winners, len(self.experts)).cpu()
        self.remembered["validated"].append(self.remembered["updates"])
        self.remembered["assignments"].append(assignment)
        before, after = (game.errors(images, clean) for images in (judged.changed, judged.undone))
        return {
            "told_apart": game.told_apart(judged.scores),
            "own_experts": float(game.own_experts(assignment)),
            "purity": game.purity(assignment),
            "accuracy_before": self._accuracy(judged.changed, labels),
            "accuracy_after": self._accuracy(judged.undone, labels),
            "accuracy_clean": self._accuracy(clean[None], labels),
            "digits_undone": game.improvement(before, after),
        }

    def test(self) -> Findings:
        """Return figures on the test digits and on letters, the assignment over training, and what pictures show."""
        digits = self.load_test()
        clean = padded(digits.images).to(self.device)
        labels = torch.from_numpy(digits.labels).to(self.device)
        judged = self._judge(clean)
        letters = padded(draw_letters(self.config.test_digits, numpy_generator())).to(self.device)
        foreign = self._judge(letters)
        assignment = game.assignment_matrix(judged.winners, len(self.experts)).cpu()
        figures = self._digit_figures(judged, clean, labels, assignment) | self._letter_figures(
            foreign, letters, judged
        )
        arrays = self._course() | {"assignment": assignment}
        arrays |= {"confusion": self._confusion(judged, labels)}
        return Findings(figures, arrays | _shown("digit", judged, clean) | _shown("letter", foreign, letters))

    def _judge(self, clean: Tensor) -> Judged:
        """Let the experts undo all transformations of images (N, 1, H, W)."""
        changed = every_transformation(clean, self.names)
        scores, undone = game.winning(list(self.experts), self.discriminator, changed.flatten(0, 1))
        winners = scores.argmax(dim=0).view(len(changed), len(clean))
        return Judged(changed, undone.view(changed.shape), winners, scores)

    def _named(self, images: Tensor) -> Tensor:
        """Return the classes (K * N,) that the classifier gives to images (K, N, 1, H, W)."""
        return game.names_in_batches(self.classifier, images.flatten(0, 1))

    def _accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return how many of the images (K, N, 1, H, W) are named with their labels (N,), in percent."""
        return 100.0 * float((self._named(images) == labels.repeat(len(images))).double().mean())

    def _confusion(self, judged: Judged, labels: Tensor) -> Tensor:
        return game.confusion(self._named(judged.undone), labels.repeat(len(judged.undone)), CLASSES).cpu()

    def _digit_figures(self, judged: Judged, clean: Tensor, labels: Tensor, assignment: Tensor) -> dict[str, float]:
        before, after = game.errors(judged.changed, clean), game.errors(judged.undone, clean)
        own = game.own_experts(assignment)
        return {
            "own_experts": float(own),
            "perfect": 100.0 * (own == len(self.names)),
            "purity": game.purity(assignment),
            "told_apart": game.told_apart(judged.scores),
            "accuracy_clean": self._accuracy(clean[None], labels),
            "accuracy_before": self._accuracy(judged.changed, labels),
            "accuracy_after": self._accuracy(judged.undone, labels),
            "accuracy_worst_class": game.worst_class(self._confusion(judged, labels)),
            "digits_error_before": float(before.mean()),
            "digits_error": float(after.mean()),
            "digits_undone": game.improvement(before, after),
            "identity_error": self.identity_error,
        }

    def _letter_figures(self, foreign: Judged, letters: Tensor, judged: Judged) -> dict[str, float]:
        """Return how well letters are restored, and how often by the expert that wins this transformation's digits."""
        before, after = game.errors(foreign.changed, letters), game.errors(foreign.undone, letters)
        usual = judged.winners.mode(dim=1).values[:, None]
        return {
            "letters_error_before": float(before.mean()),
            "letters_error": float(after.mean()),
            "letters_undone": game.improvement(before, after),
            "letters_same_expert": 100.0 * float((foreign.winners == usual).double().mean()),
        }

    def _course(self) -> dict[str, Tensor]:
        """Return the assignment matrices of training (V, K, E), and after how many updates each was found."""
        validated = torch.tensor(self.remembered["validated"])
        return {"validated": validated, "assignments": torch.stack(self.remembered["assignments"])}


def _shown(name: str, judged: Judged, clean: Tensor) -> dict[str, Tensor]:
    """Return the first few images: clean (n, H, W), and of each transformation changed and undone (K, n, H, W)."""
    return {
        f"{name}_clean": clean[:SHOWN, 0].cpu(),
        f"{name}_changed": judged.changed[:, :SHOWN, 0].cpu(),
        f"{name}_undone": judged.undone[:, :SHOWN, 0].cpu(),
        f"{name}_winners": judged.winners[:, :SHOWN].cpu(),
    }
