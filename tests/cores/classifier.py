"""What the learning tests share: a core with a linear head that learns to name the right class at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.cores import make_core

NOT_ASKED = -100
"""The target of a step at which nothing is asked."""

Lessons = Callable[[int, int], tuple[Tensor, Tensor]]
"""Maps a batch size and the number of the update to inputs (T, B, I) and targets (T, B), the classes' numbers."""


class Classifier(nn.Module):
    """A core with one logit per class."""

    def __init__(self, core: str, input_size: int, classes: int, **settings: Any) -> None:
        super().__init__()
        self.core = make_core(core, input_size, **settings)
        self.head = nn.Linear(self.core.output_size, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (T, B, classes) of inputs (T, B, I)."""
        outputs, _ = self.core(inputs, self.core.initial_state(inputs.shape[1]))
        logits: Tensor = self.head(outputs)
        return logits


def train(classifier: Classifier, lessons: Lessons, updates: int, batch: int, learning_rate: float) -> None:
    """Train by Adam on the cross entropy of the steps at which something is asked."""
    learned = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=learning_rate)
    for update in range(updates):
        inputs, targets = lessons(batch, update)
        logits = classifier(inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_ASKED)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()


def share_right(classifier: Classifier, inputs: Tensor, targets: Tensor) -> float:
    """Return the share of questions that get the right answer."""
    asked = targets != NOT_ASKED
    with torch.no_grad():
        return float((classifier(inputs).argmax(dim=-1) == targets)[asked].float().mean())
