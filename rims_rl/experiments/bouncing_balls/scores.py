"""How good predicted pictures are, step by step, and what one gets without a model.

Axes: T time, B batch, H rows, C columns, L steps of a roll-out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_SUREST = 1e-4  # a baseline's probabilities stay this far from 0 and 1


class Tally(NamedTuple):
    """Sums over the sequences and pixels of each step, all (T,); tallies of several batches add up."""

    pictures: Tensor
    """How many pictures there were."""
    cross_entropy: Tensor
    """Binary cross entropy, nats."""
    squared_error: Tensor
    """Squared difference of probability and pixel."""
    hits: Tensor
    """White pixels with a probability above a half."""
    false_alarms: Tensor
    """Black pixels with a probability above a half."""
    misses: Tensor
    """White pixels with a probability of at most a half."""
    rejections: Tensor
    """Black pixels with a probability of at most a half."""

    def plus(self, other: Tally | None) -> Tally:
        """Return the tally of both."""
        return self if other is None else Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def over(self, steps: int | None = None) -> Tally:
        """Return the tally of the first steps together, or of all, each (1,)."""
        return Tally(*(sums[:steps].sum(dim=0, keepdim=True) for sums in self))


def tally(logits: Tensor, pictures: Tensor) -> Tally:
    """Compare predictions with what came.

    Args:
        logits: (T, B, H, C).
        pictures: what came, 0 or 1, (T, B, H, C).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, pictures, reduction="none")
    error = (logits.sigmoid() - pictures) ** 2
    guess, truth = logits > 0, pictures > 0.5
    cases = (guess & truth, guess & ~truth, ~guess & truth, ~guess & ~truth)
    sums = [part.flatten(1).sum(dim=1, dtype=torch.float64).cpu() for part in (entropy, error, *cases)]
    return Tally(torch.full_like(sums[0], pictures.shape[1]), *sums)


def scores(of: Tally) -> dict[str, Tensor]:
    """Return figures per step, each (T,).

    `cross_entropy` and `squared_error` are sums over a picture's pixels, means over pictures. `f1` and
    `balanced_accuracy`, in percent, are of white pixels when a probability above a half counts as white.
    """
    recall = of.hits / (of.hits + of.misses).clamp(min=1)
    specificity = of.rejections / (of.rejections + of.false_alarms).clamp(min=1)
    return {
        "cross_entropy": of.cross_entropy / of.pictures,
        "squared_error": of.squared_error / of.pictures,
        "f1": 100 * 2 * of.hits / (2 * of.hits + of.false_alarms + of.misses).clamp(min=1),
        "balanced_accuracy": 50 * (recall + specificity),
    }


class Baselines(NamedTuple):
    """Predictions that need no model, as good as the training data can make them."""

    copy: Tensor
    """Logits of a white pixel 1 to L steps after a black and after a white one, (L, 2)."""
    mean: Tensor
    """Logits of the mean picture (H, C)."""

    def copied(self, last: Tensor, steps: int) -> Tensor:
        """Predict the steps (L, B, H, C) after the last seen picture (B, H, C) from it alone, pixel by pixel."""
        black, white = self.copy[:steps].to(last.device).view(steps, 2, 1, 1, 1).unbind(dim=1)
        return torch.where(last > 0.5, white, black)

    def constant(self, pictures: Tensor) -> Tensor:
        """Predict the mean picture for pictures (T, B, H, C), whatever was seen."""
        return self.mean.to(pictures.device).expand_as(pictures)


def fit_baselines(pictures: Tensor, context: int, steps: int) -> Baselines:
    """Fit the baselines.

    Args:
        pictures: training sequences (T, B, H, C).
        context: how many pictures are seen.
        steps: for how many steps beyond them (L).
    """
    last = pictures[context - 1]
    later = pictures[context : context + steps]
    turned_white = (later * (1 - last)).flatten(1).sum(dim=1) / (1 - last).sum().clamp(min=1)
    stayed_white = (later * last).flatten(1).sum(dim=1) / last.sum().clamp(min=1)
    chances = torch.stack([turned_white, stayed_white], dim=1)
    return Baselines(_logit(chances), _logit(pictures.mean(dim=(0, 1))))


def _logit(probability: Tensor) -> Tensor:
    return torch.logit(probability.clamp(_SUREST, 1 - _SUREST))
