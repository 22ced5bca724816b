"""An entity network learns to track who is where, which it owes to the keys of its slots.

The world has entities that move between places, one move a step, and at every step one entity is asked for: where is
it now? Between its last move and the question lie any number of moves of others.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rims_rl.cores.entnet import EntNet
from tests.cores.classifier import NOT_ASKED, Classifier, share_right, train

pytestmark = pytest.mark.slow

ENTITIES, PLACES, LENGTH = 5, 5, 20


def world(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Return moves and questions (T, B, 2 ENTITIES + PLACES), and where the asked entity is, if it has moved yet."""
    mover, asked = torch.randint(ENTITIES, (2, length, batch))
    place = torch.randint(PLACES, (length, batch))
    where, targets = torch.full((batch, ENTITIES), NOT_ASKED), []
    for t in range(length):
        where = where.scatter(1, mover[t].unsqueeze(1), place[t].unsqueeze(1))
        targets.append(where.gather(1, asked[t].unsqueeze(1)).squeeze(1))
    hot = [F.one_hot(mover, ENTITIES), F.one_hot(place, PLACES), F.one_hot(asked, ENTITIES)]
    return torch.cat(hot, dim=2).float(), torch.stack(targets)


def tracker(seed: int = 0, keys: bool = True) -> Classifier:
    """Return an entity network that has learned the world; without keys, its slots cannot be told apart."""
    torch.manual_seed(seed)
    learner = Classifier("entnet", 2 * ENTITIES + PLACES, PLACES, num_slots=20, slot_size=20)
    assert isinstance(learner.core, EntNet)
    if not keys:
        learner.core.keys.requires_grad_(False).zero_()
    train(learner, lambda batch, _: world(batch, LENGTH), updates=1000, batch=32, learning_rate=1e-2)
    return learner


@pytest.fixture(scope="module")
def learned() -> Classifier:
    return tracker()


class TestTracking:
    def test_answers_nearly_every_question_also_in_stories_three_times_as_long(self, learned: Classifier) -> None:
        assert share_right(learned, *world(500, LENGTH)) > 0.95
        assert share_right(learned, *world(200, 3 * LENGTH)) > 0.95

    def test_no_two_entities_write_to_the_same_slots(self, learned: Classifier) -> None:
        inputs, _ = world(500, LENGTH)
        _, _, found = learned.core.diagnose(inputs, learned.core.initial_state(500))
        mover = inputs[:, :, :ENTITIES].argmax(dim=2)
        opened = torch.stack([found["gates"][mover == entity].mean(dim=0) for entity in range(ENTITIES)]) > 0.5
        assert len(opened.unique(dim=0)) == ENTITIES

    def test_falls_far_behind_without_keys(self) -> None:
        assert share_right(tracker(keys=False), *world(500, LENGTH)) < 0.8
