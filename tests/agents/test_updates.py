"""Updates that go wrong: numbers that are not finite are left out, and little memory is made do with."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rims_rl.agents import RIMPPO
from rims_rl.agents.updates import is_out_of_memory, pieces_of
from rims_rl.errors import ConfigError, NonFiniteError, OutOfMemory
from tests.agents.small_runs import ROLLOUT, same_weights, weights
from tests.agents.small_worlds import IMAGE, MIXED, N_ENVS, N_STEPS, VECTOR, ShortEpisodes, agent, worlds

pytestmark = pytest.mark.faults
CHUNKED: dict[str, Any] = {"bptt_length": N_STEPS // 2, "batch_size": ROLLOUT, "n_epochs": 1}


def poison(model: RIMPPO, *at: int, number: float = np.nan) -> list[dict[str, Tensor]]:
    """Spoil the gradients of these minibatches, counted from 0; return a list that the weights before each go to."""
    seen: list[dict[str, Tensor]] = []

    def spoil(gradient: Tensor) -> Tensor:
        seen.append(weights(model))
        return torch.full_like(gradient, number) if len(seen) - 1 in at else gradient

    model.policy.core.value.register_hook(spoil)
    return seen


class TestNumbersThatAreNotFinite:
    def test_one_minibatch_is_left_out_said_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        model = agent(n_epochs=1)
        seen = poison(model, 1)
        with caplog.at_level(logging.WARNING):
            model.learn(ROLLOUT)
        assert len(seen) == ROLLOUT // N_STEPS == 3
        assert not same_weights(seen[0], seen[1])
        assert same_weights(seen[1], seen[2])
        assert not same_weights(seen[2], weights(model))
        assert model.steps.skipped == 1
        assert [record.message for record in caplog.records] == [
            "a minibatch was left out: the gradient of core.value is not finite"
        ]

    def test_the_count_is_logged_and_the_means_are_of_what_was_taken(self) -> None:
        model = agent(n_epochs=1)
        poison(model, 0)
        model.learn(ROLLOUT)
        assert model.logger.name_to_value["train/skipped_minibatches"] == 1
        assert np.isfinite(model.logger.name_to_value["train/loss"])

    def test_a_good_one_in_between_begins_the_count_anew(self) -> None:
        model = agent(n_epochs=2, most_skipped=2)
        poison(model, 0, 1, 3, 4)
        model.learn(ROLLOUT)
        assert (model.steps.skipped, model.steps.in_a_row) == (4, 0)

    def test_too_many_in_a_row_end_training_with_the_last_of_them_as_evidence(self) -> None:
        model = agent(n_epochs=2, most_skipped=2)
        seen = poison(model, 1, 2, 3)
        with pytest.raises(NonFiniteError) as caught:
            model.learn(ROLLOUT)
        assert str(caught.value) == (
            "the gradient of core.value is not finite for 3 minibatches in a row; the weights were left as they were"
        )
        assert same_weights(weights(model), seen[1])
        assert caught.value.evidence["observations"].shape == (N_STEPS, 3)
        assert caught.value.evidence["states"].shape == (1, model.policy.core.state_size)

    def test_a_dictionary_of_observations_is_evidence_too(self) -> None:
        model = agent(worlds(space=MIXED), "MultiInputRIMPolicy", most_skipped=0)
        poison(model, 0)
        with pytest.raises(NonFiniteError) as caught:
            model.learn(ROLLOUT)
        assert {"observations/image", "observations/vector", "observations/number"} < set(caught.value.evidence)

    def test_the_momentum_of_the_optimizer_is_kept_clean(self) -> None:
        model = agent(n_epochs=1)
        poison(model, 1, number=np.inf)
        model.learn(ROLLOUT)
        moments = [value for kept in model.policy.optimizer.state.values() for value in kept.values()]
        assert all(bool(torch.isfinite(moment).all()) for moment in moments)

    def test_fewer_than_none_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="most_skipped must be at least 0, got -1"):
            agent(most_skipped=-1)


class TestPieces:
    @pytest.mark.parametrize(
        ("policy", "space"), [("MlpRIMPolicy", VECTOR), ("CnnRIMPolicy", IMAGE), ("MultiInputRIMPolicy", MIXED)]
    )
    @pytest.mark.parametrize("count", [2, 4, 6])
    def test_they_add_up_to_the_gradient_of_the_whole(self, policy: str, space: Any, count: int) -> None:
        model = agent(worlds(space=space), policy, **CHUNKED)
        model.learn(ROLLOUT)
        batch = next(model.buffer.minibatches(ROLLOUT))
        found = []
        for model.pieces in (1, count):
            terms = model._gradients(batch)
            found.append((terms, [p.grad.clone() for p in model.policy.parameters() if p.grad is not None]))
        assert found[1][0] == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
        for one, other in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)

    def test_every_chunk_is_in_one_piece_and_shares_add_up(self) -> None:
        model = agent(**CHUNKED)
        model.learn(ROLLOUT)
        batch = next(model.buffer.minibatches(ROLLOUT))
        pieces = list(pieces_of(batch, 4))
        assert sum(share for _, share in pieces) == pytest.approx(1)
        for name in ("actions", "starts", "returns"):
            joined = torch.cat([getattr(piece, name) for piece, _ in pieces], 1)
            assert torch.equal(joined, getattr(batch, name))
        assert torch.equal(torch.cat([piece.states for piece, _ in pieces]), batch.states)


def short_of_memory(model: RIMPPO, most_chunks: int, error: Exception) -> list[int]:
    """Let an update fail that looks at more chunks at once; return a list that the tried numbers go to."""
    tried: list[int] = []
    evaluate = model.policy.evaluate_sequence

    def limited(observations: Any, actions: Tensor, states: Tensor, starts: Tensor) -> Any:
        tried.append(len(states))
        if len(states) > most_chunks:
            raise error
        return evaluate(observations, actions, states, starts)

    model.policy.evaluate_sequence = limited  # type: ignore[method-assign]
    return tried


ON_A_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")
IN_THE_MACHINE = RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory")


class TestTooLittleMemory:
    @pytest.mark.parametrize("error", [ON_A_GPU, IN_THE_MACHINE, MemoryError()], ids=["gpu", "cpu", "numpy"])
    def test_one_line_says_what_to_turn_down(self, error: Exception) -> None:
        model = agent(**CHUNKED)
        short_of_memory(model, 2, error)
        with pytest.raises(OutOfMemory) as caught:
            model.learn(ROLLOUT)
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith("out of memory while updating (")
        sizes = f"batch_size (now {ROLLOUT}), bptt_length (now 10) or n_envs (now {N_ENVS})"
        assert line.endswith(f": turn down {sizes}, or turn on halve_on_oom")
        assert caught.value.__cause__ is error

    def test_halving_goes_on_with_smaller_pieces_and_the_same_gradient(self, caplog: pytest.LogCaptureFixture) -> None:
        plain, short = agent(**CHUNKED), agent(**CHUNKED, halve_on_oom=True)
        tried = short_of_memory(short, 2, ON_A_GPU)
        with caplog.at_level(logging.WARNING):
            for model in (plain, short):
                model.learn(ROLLOUT)
        assert tried == [6, 3, 2, 2, 2]
        assert short.pieces == 4
        assert [record.message.split(": ")[1] for record in caplog.records] == [
            f"minibatches are worked through in {count} pieces from now on" for count in (2, 4)
        ]
        for name in ("train/loss", "train/value_loss", "train/entropy_loss"):
            assert short.logger.name_to_value[name] == pytest.approx(plain.logger.name_to_value[name], rel=1e-4)

    def test_one_chunk_cannot_be_halved(self) -> None:
        model = agent(**CHUNKED, halve_on_oom=True)
        tried = short_of_memory(model, 0, ON_A_GPU)
        with pytest.raises(OutOfMemory, match="turn down batch_size") as caught:
            model.learn(ROLLOUT)
        assert "halve_on_oom" not in str(caught.value)
        assert tried[-1] == 1

    def test_an_environment_that_takes_it_all_is_told_by_the_rollouts_sizes(self) -> None:
        class Greedy(ShortEpisodes):
            def step(self, action: Any) -> Any:
                raise MemoryError("Unable to allocate 9.31 TiB for an array")

        with pytest.raises(OutOfMemory, match=rf"while playing .*: turn down n_envs \(now {N_ENVS}\) or n_steps"):
            agent(worlds(make=Greedy)).learn(ROLLOUT)

    def test_other_errors_pass(self) -> None:
        model = agent(**CHUNKED, halve_on_oom=True)
        short_of_memory(model, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            model.learn(ROLLOUT)
        assert not is_out_of_memory(ValueError("out of memory"))
