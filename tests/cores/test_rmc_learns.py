"""A relational memory learns to compare what it holds: the n-th farthest task (Santoro et al. 2018, section 4.1).

Vectors come in, each with a label; then come questions: which vector is the n-th farthest from the vector with label m?
The paper shows 8 vectors of size 16; here there are 4 of size 2. As learning to compare takes long to begin, training
asks at first mostly for the farthest and in the end for every rank alike; what is tested asks for every rank alike.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rims_rl.cores import matched_settings, parameter_count
from tests.cores.classifier import NOT_ASKED, Classifier, share_right, train

pytestmark = pytest.mark.slow

VECTORS, SIZE, QUESTIONS, UPDATES = 4, 2, 8, 1500
RANKS = VECTORS - 1
"""Ranks 0, the farthest, to 2, the nearest but for the vector itself."""
INPUT_SIZE = SIZE + VECTORS + RANKS + VECTORS
CHANCE = 1 / RANKS
"""What is right by chance when the vector itself is never answered."""
RMC = {"num_slots": 4, "slot_size": 32, "heads": 2}


def farthest(batch: int, favour: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return vectors, then questions, (T, B, I), and the answers to these.

    Args:
        batch: B.
        favour: the farthest is asked for with probability (1 / RANKS) ** (1 / favour); 1 asks for all ranks alike.
    """
    by_label = 2.0 * torch.rand(batch, VECTORS, SIZE) - 1.0
    labels = torch.rand(VECTORS, batch).argsort(dim=0)  # in their order of coming
    vectors = by_label[torch.arange(batch), labels]  # (VECTORS, B, SIZE)
    ranks = (torch.rand(QUESTIONS, batch) ** favour * RANKS).long()
    origins = torch.randint(VECTORS, (QUESTIONS, batch))
    order = torch.cdist(by_label, by_label).argsort(dim=2, descending=True)  # (B, origin, rank)
    answers = order[torch.arange(batch), origins, ranks]
    inputs = torch.zeros(VECTORS + QUESTIONS, batch, INPUT_SIZE)
    inputs[:VECTORS, :, : SIZE + VECTORS] = torch.cat([vectors, F.one_hot(labels, VECTORS)], dim=2)
    inputs[VECTORS:, :, SIZE + VECTORS :] = torch.cat([F.one_hot(ranks, RANKS), F.one_hot(origins, VECTORS)], dim=2)
    return inputs, torch.cat([torch.full((VECTORS, batch), NOT_ASKED), answers])


def lesson(batch: int, update: int) -> tuple[Tensor, Tensor]:
    return farthest(batch, favour=max(1.0, 8.0 * (1.0 - 1.5 * update / UPDATES)))


def share_answered(core: str, seed: int = 0) -> float:
    """Train a core of the RMC's number of parameters; return its share of right answers."""
    settings = RMC if core == "rmc" else matched_settings(core, INPUT_SIZE, parameter_count("rmc", INPUT_SIZE, **RMC))
    torch.manual_seed(seed)
    learner = Classifier(core, INPUT_SIZE, VECTORS, **settings)
    train(learner, lesson, UPDATES, batch=64, learning_rate=3e-3)
    return share_right(learner, *farthest(2000))


class TestTheTask:
    def test_answers_what_sorting_the_distances_answers(self) -> None:
        inputs, answers = farthest(50)
        vectors, labels = inputs[:VECTORS, :, :SIZE], inputs[:VECTORS, :, SIZE : SIZE + VECTORS].argmax(dim=2)
        rank, origin = inputs[VECTORS:, :, SIZE + VECTORS :].split([RANKS, VECTORS], dim=2)
        for b in range(50):
            at = {int(label): vector for label, vector in zip(labels[:, b], vectors[:, b], strict=True)}
            here = at[int(origin[3, b].argmax())]
            farthest_first = sorted(at, key=lambda label: -float((at[label] - here).norm()))
            assert answers[VECTORS + 3, b] == farthest_first[int(rank[3, b].argmax())]


class TestNthFarthest:
    def test_is_answered_far_above_chance(self) -> None:
        assert share_answered("rmc") > CHANCE + 0.15

    def test_is_not_answered_by_an_lstm_of_equal_size(self) -> None:
        assert share_answered("lstm") < CHANCE + 0.05
