"""The stopwatch: every moment belongs to one phase, also in the backward pass."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from rims_rl.agents import RIMPPO
from rims_rl.agents.profile import PHASES, Stopwatch
from tests.agents.small_worlds import agent


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    """Return a stopwatch whose clock goes on by 1, 2, 4, 8, ... from look to look: every sum tells its parts."""
    readings = itertools.accumulate((2**look for look in itertools.count()), initial=0)
    monkeypatch.setattr(Stopwatch, "_now", staticmethod(lambda: float(next(readings))))
    return Stopwatch()


class TestEveryMomentBelongsToOnePhase:
    def test_a_phase_inside_another_is_not_counted_twice(self, watch: Stopwatch) -> None:
        watch.start()
        with watch.phase("core"), watch.phase("encoder"):
            pass
        assert watch.stop() == {"rest": 1 + 16, "core": 2 + 8, "encoder": 4}

    def test_a_phase_ends_with_an_exception(self, watch: Stopwatch) -> None:
        watch.start()
        with pytest.raises(KeyError), watch.phase("core"):
            raise KeyError
        assert watch.stop() == {"rest": 1 + 4, "core": 2}

    def test_the_backward_pass_is_cut_where_gradients_arrive(self, watch: Stopwatch) -> None:
        watch.start()
        weight = torch.ones(3, requires_grad=True)
        features = 2 * weight
        watch.enter_in_backward(features, "encoder")
        outputs = 3 * features
        watch.enter_in_backward(outputs, "core")
        with watch.phase("heads and loss"):
            outputs.sum().backward()  # type: ignore[no-untyped-call]
        assert watch.stop() == {"rest": 1 + 16, "heads and loss": 2, "core": 4, "encoder": 8}
        assert weight.grad is not None
        assert (weight.grad == 6).all()

    def test_starting_again_begins_at_zero(self, watch: Stopwatch) -> None:
        watch.start()
        with watch.phase("core"):
            pass
        watch.start()
        assert set(watch.stop()) == {"rest"}


class TestUntilItIsStarted:
    def test_it_takes_no_time(self) -> None:
        watch = Stopwatch()
        with watch.phase("core"):
            pass
        assert watch.stop() == {}

    def test_it_hangs_nothing_on_tensors(self) -> None:
        tensor = torch.ones(2, requires_grad=True)
        Stopwatch().enter_in_backward(tensor, "core")
        assert not tensor._backward_hooks


class TestInTraining:
    def test_it_sees_every_phase_and_changes_no_number(self) -> None:
        plain = agent().learn(120)
        watched = agent()
        watched.stopwatch.start()
        seconds = watched.learn(120).stopwatch.stop()
        assert set(seconds) == set(PHASES)
        assert min(seconds.values()) > 0
        pairs = zip(_weights(watched), _weights(plain), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def _weights(model: RIMPPO) -> list[Tensor]:
    return list(model.policy.parameters())
