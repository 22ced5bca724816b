"""The sequence buffer: identifiable data goes in, and it is said which comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.testing import assert_close

from rims_rl.agents.losses import generalised_advantage
from rims_rl.agents.rollouts import SequenceBatch, SequenceBuffer

STEPS, ENVS, STATE = 12, 5, 3
CPU = torch.device("cpu")
VECTOR = spaces.Box(-np.inf, np.inf, (2,))
EVERY_LENGTH = pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 12])
SOME_LENGTHS = pytest.mark.parametrize("length", [1, 4, 12])


def mark(t: int) -> np.ndarray:
    """Return what step t leaves in every environment: 1000 t + b, (B,)."""
    return 1000 * t + np.arange(ENVS)


def all_marks() -> Tensor:
    return torch.stack([torch.as_tensor(mark(t)) for t in range(STEPS)])


def observation(space: spaces.Space[Any], t: int) -> Any:
    """Return observations (B, ...) that are full of their marks."""
    if isinstance(space, spaces.Dict):
        return {key: observation(part, t) for key, part in space.items()}
    values = mark(t).reshape(ENVS, *[1] * len(space.shape))
    values = (ENVS * t + np.arange(ENVS)).reshape(values.shape) if space.dtype == np.uint8 else values
    return np.broadcast_to(values, (ENVS, *space.shape)).astype(space.dtype)


def filled(
    length: int,
    space: spaces.Space[Any] = VECTOR,
    actions: spaces.Space[Any] | None = None,
    fill: int = STEPS,
    channels_last: bool = False,
) -> SequenceBuffer:
    """Return a buffer in which every quantity of step t and environment b can be told from every other."""
    actions = actions or spaces.Discrete(STEPS * 1000)
    buffer = SequenceBuffer(STEPS, ENVS, length, space, actions, STATE, CPU, channels_last)
    for t in range(fill):
        marks = torch.as_tensor(mark(t), dtype=torch.float32)
        buffer.put_observation(observation(space, t))
        buffer.put_start(marks.unsqueeze(1) + torch.tensor([0.25, 0.5, 0.75]), torch.as_tensor(mark(t) % 7 == 0))
        act = marks.long() if isinstance(actions, spaces.Discrete) else marks.view(ENVS, 1).expand(ENVS, 2)
        buffer.put_outcome(act, marks + 0.1, -marks, mark(t) + 0.2, mark(t) % 5 == 0)
    return buffer


def finished(length: int, **settings: Any) -> SequenceBuffer:
    buffer = filled(length, **settings)
    buffer.finish(torch.arange(ENVS).float(), gamma=0.9, gae_lambda=0.8)
    return buffer


def marks_of(batch: SequenceBatch) -> Tensor:
    """Return which steps of which environments are in a batch, (L, M)."""
    return batch.actions


class TestMinibatches:
    @EVERY_LENGTH
    def test_hold_every_step_exactly_once_per_pass(self, length: int) -> None:
        buffer = finished(length)
        for _ in range(2):
            found = torch.cat([marks_of(batch).flatten() for batch in buffer.minibatches(12)])
            assert_close(found.sort().values, all_marks().flatten().sort().values)

    @EVERY_LENGTH
    def test_are_of_the_asked_size_in_chunks_that_run_through_time(self, length: int) -> None:
        for batch in finished(length).minibatches(12):
            marks = marks_of(batch)
            assert marks.shape == (length, 12 // length)
            assert (marks[0] // 1000 % length == 0).all()
            assert_close(marks - marks[0], 1000 * torch.arange(length).unsqueeze(1).expand_as(marks))

    @EVERY_LENGTH
    def test_keep_all_that_belongs_to_a_step_together(self, length: int) -> None:
        buffer = finished(length)
        for batch in buffer.minibatches(24):
            marks = marks_of(batch)
            assert isinstance(batch.observations, Tensor)
            assert_close(batch.observations, marks.flatten().float().unsqueeze(1).expand(-1, 2))
            assert_close(batch.old_values, marks + 0.1)
            assert_close(batch.old_log_prob, -marks.float())
            assert_close(batch.starts, marks % 7 == 0)
            t, env = marks // 1000, marks % 1000
            assert_close(batch.advantages, buffer.advantages[t, env])
            assert_close(batch.returns, torch.as_tensor(buffer.returns)[t, env])

    @EVERY_LENGTH
    def test_bring_the_state_before_each_chunks_first_step(self, length: int) -> None:
        for batch in finished(length).minibatches(12):
            first = marks_of(batch)[0].float().unsqueeze(1)
            assert_close(batch.states, first + torch.tensor([0.25, 0.5, 0.75]))

    def test_are_drawn_anew_in_every_pass(self) -> None:
        torch.manual_seed(0)
        buffer = finished(4)
        passes = [torch.cat([marks_of(batch)[0] for batch in buffer.minibatches(12)]) for _ in range(2)]
        assert not torch.equal(*passes)

    def test_hold_only_the_last_rollout(self) -> None:
        buffer = filled(4)
        assert buffer.full
        buffer.reset()
        assert not buffer.full
        for t in range(STEPS):
            buffer.put_observation(observation(VECTOR, t))
            buffer.put_start(torch.zeros(ENVS, STATE), torch.zeros(ENVS, dtype=torch.bool))
            nothing = torch.zeros(ENVS)
            buffer.put_outcome(nothing.long() + 7, nothing, nothing, np.zeros(ENVS), np.zeros(ENVS, dtype=bool))
        buffer.finish(torch.zeros(ENVS), 0.9, 0.8)
        for batch in buffer.minibatches(12):
            assert (marks_of(batch) == 7).all()
            assert not batch.states.any()
            assert not batch.advantages.any()


class TestMemory:
    @SOME_LENGTHS
    def test_frames_stay_bytes(self, length: int) -> None:
        space = spaces.Box(0, 255, (4, 6, 7), np.uint8)
        for batch in finished(length, space=space).minibatches(12):
            assert isinstance(batch.observations, Tensor)
            assert batch.observations.dtype == torch.uint8
            assert batch.observations.shape == (12, 4, 6, 7)
            t, env = marks_of(batch).flatten() // 1000, marks_of(batch).flatten() % 1000
            assert_close(batch.observations[:, 3, 5, 6].long(), ENVS * t + env)

    @SOME_LENGTHS
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_a_minibatch_is_gathered_once_and_not_copied_again(
        self, length: int, channels_last: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        buffer = finished(length, space=spaces.Box(0, 255, (4, 6, 7), np.uint8), channels_last=channels_last)
        gathered: list[int] = []
        plain = Tensor.__getitem__

        def watched(tensor: Tensor, index: Any) -> Tensor:
            found = plain(tensor, index)
            gathered.append(found.data_ptr())
            return found

        monkeypatch.setattr(Tensor, "__getitem__", watched)
        batch = next(buffer.minibatches(12))
        assert isinstance(batch.observations, Tensor)
        order = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.observations.is_contiguous(memory_format=order)
        assert batch.observations.data_ptr() in gathered

    def test_an_observation_is_handed_to_the_policy_where_it_lies(self) -> None:
        buffer = SequenceBuffer(STEPS, ENVS, 4, VECTOR, spaces.Discrete(2), STATE, CPU)
        obs = buffer.put_observation(observation(VECTOR, 3))
        assert isinstance(obs, Tensor)
        assert isinstance(buffer.observations, Tensor)
        assert obs.data_ptr() == buffer.observations[0].data_ptr()
        assert_close(obs[:, 0], torch.as_tensor(mark(3), dtype=torch.float32))

    def test_what_the_environment_does_to_its_array_later_changes_nothing(self) -> None:
        buffer = SequenceBuffer(STEPS, ENVS, 4, VECTOR, spaces.Discrete(2), STATE, CPU)
        mine = observation(VECTOR, 3).copy()
        obs = buffer.put_observation(mine)
        mine[:] = -1
        assert isinstance(obs, Tensor)
        assert_close(obs[:, 0], torch.as_tensor(mark(3), dtype=torch.float32))


class TestSpaces:
    @SOME_LENGTHS
    def test_dictionaries_are_cut_entry_by_entry_each_in_its_own_type(self, length: int) -> None:
        space = spaces.Dict(
            {"image": spaces.Box(0, 255, (1, 6, 7), np.uint8), "vector": VECTOR, "number": spaces.Discrete(12_000)}
        )
        for batch in finished(length, space=space).minibatches(24):
            assert isinstance(batch.observations, dict)
            marks = marks_of(batch).flatten()
            assert_close(batch.observations["vector"], marks.float().unsqueeze(1).expand(-1, 2))
            assert_close(batch.observations["number"], marks.unsqueeze(1))
            assert batch.observations["image"].dtype == torch.uint8
            assert_close(batch.observations["image"][:, 0, 2, 3].long(), marks // 1000 * ENVS + marks % 1000)

    def test_continuous_actions_are_kept_as_vectors_of_floats(self) -> None:
        buffer = finished(4, actions=spaces.Box(-1, 1, (2,)))
        batch = next(buffer.minibatches(12))
        assert batch.actions.shape == (4, 3, 2)
        assert_close(batch.actions[..., 1], -batch.old_log_prob)

    @pytest.mark.parametrize(
        ("space", "kind"),
        [(spaces.MultiDiscrete([12_000, 12_000]), torch.int64), (spaces.MultiBinary(2), torch.float32)],
    )
    def test_several_actions_are_kept_as_their_distribution_takes_them(
        self, space: spaces.Space[Any], kind: torch.dtype
    ) -> None:
        batch = next(finished(4, actions=space).minibatches(12))
        assert batch.actions.shape == (4, 3, 2)
        assert batch.actions.dtype == kind
        assert_close(batch.actions[..., 1].float(), -batch.old_log_prob)


class TestFinish:
    def test_takes_advantages_from_the_losses_and_adds_the_values(self) -> None:
        buffer = finished(4)
        marks = all_marks().float()
        last = torch.arange(ENVS).float()
        wanted = generalised_advantage(marks + 0.2, marks + 0.1, last, all_marks() % 5 == 0, 0.9, 0.8)
        assert_close(buffer.advantages, wanted)
        assert_close(torch.as_tensor(buffer.returns), wanted + marks + 0.1)
        assert_close(torch.as_tensor(buffer.values), marks + 0.1)


class TestSequence:
    @SOME_LENGTHS
    def test_is_the_first_environments_whole_rollout(self, length: int) -> None:
        batch = finished(length).sequence(2)
        assert_close(marks_of(batch), all_marks()[:, :2])
        assert isinstance(batch.observations, Tensor)
        assert_close(batch.observations[:, 0], all_marks()[:, :2].flatten().float())
        assert_close(batch.states[:, 0], torch.tensor([0.25, 1.25]))
