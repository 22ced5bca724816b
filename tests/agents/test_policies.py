"""The policies themselves: pairs and flat states, steps and sequences, prediction with and without a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from torch import Tensor
from torch.testing import assert_close

from rims_rl.agents import CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy, RIMPolicy
from tests.agents.small_worlds import CORES, MIXED, SMALL_IMAGE, SMALL_RIM, VECTOR, Sum

LENGTH, BATCH = 7, 3
every_core = pytest.mark.parametrize("core", CORES)


def build(core: Any = "rim", space: spaces.Space[Any] = VECTOR, actions: Any = None, **settings: Any) -> RIMPolicy:
    torch.manual_seed(0)
    kind = MultiInputRIMPolicy if space is MIXED else CnnRIMPolicy if space is SMALL_IMAGE else MlpRIMPolicy
    core_kwargs = settings.pop("core_kwargs", CORES.get(core, {}) if isinstance(core, str) else {})
    return kind(space, actions or spaces.Discrete(5), lambda _: 1e-3, core=core, core_kwargs=core_kwargs, **settings)


def some_observations(length: int = LENGTH, batch: int = BATCH) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(length, batch, 3)


def some_starts() -> Tensor:
    steps, sequences = torch.arange(LENGTH).unsqueeze(1), torch.arange(BATCH)
    return (steps == sequences + 2) | (steps == 5)


class TestPairs:
    @pytest.mark.parametrize("size", [1, 2, 7, 10])
    def test_carry_a_flat_state_of_any_size(self, size: int) -> None:
        space = spaces.Box(-1, 1, (size,))
        policy = build(Sum, space)
        state = torch.arange(1.0, 1 + BATCH * size).view(BATCH, size)
        pair = policy.to_pair(state)
        half = (size + 1) // 2
        assert [part.shape for part in pair] == [(1, BATCH, half)] * 2
        assert policy.lstm_hidden_state_shape == (1, 1, half)
        assert_close(policy.from_pair(pair), state, rtol=0, atol=0)

    def test_carry_nothing_for_a_core_without_a_state(self) -> None:
        policy = build("feedforward")
        pair = policy.to_pair(policy.initial_state(BATCH))
        assert [part.shape for part in pair] == [(1, BATCH, 1)] * 2
        assert policy.from_pair(pair).shape == (BATCH, 0)

    @every_core
    def test_tell_recurrent_ppo_their_size(self, core: str) -> None:
        policy = build(core)
        shape = policy.lstm_actor
        assert (shape.num_layers, 1, shape.hidden_size) == policy.lstm_hidden_state_shape
        assert shape.hidden_size == max(1, (policy.core.state_size + 1) // 2)


class TestNetworks:
    def test_hold_no_layer_that_is_not_used(self) -> None:
        names = {name.split(".")[0] for name, _ in build().named_parameters()}
        assert names == {"core", "mlp_extractor", "action_net", "value_net"}

    def test_are_all_in_the_optimizer_and_nothing_else_is(self) -> None:
        policy = build(space=SMALL_IMAGE)
        held = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
        assert held == {id(parameter) for parameter in policy.parameters()}

    def test_take_the_optimizers_settings(self) -> None:
        policy = build(optimizer_kwargs={"betas": (0.5, 0.7)})
        assert policy.optimizer.param_groups[0]["betas"] == (0.5, 0.7)
        assert policy.optimizer.param_groups[0]["lr"] == 1e-3

    @pytest.mark.parametrize(
        ("space", "encoder", "size"),
        [(VECTOR, None, 3), (SMALL_IMAGE, None, 512), (SMALL_IMAGE, "nature-slots", 64), (MIXED, None, 256 + 3 + 5)],
        ids=str,
    )
    def test_give_the_core_what_the_encoder_makes(self, space: Any, encoder: str | None, size: int) -> None:
        assert build(space=space, encoder=encoder).core.input_size == size

    def test_have_the_layers_that_are_asked_for(self) -> None:
        policy = build(net_arch={"pi": [11], "vf": [13, 17]})
        assert policy.action_net.in_features == 11
        assert policy.value_net.in_features == 17


class TestSequences:
    @every_core
    def test_are_what_single_steps_are(self, core: str) -> None:
        policy, observations, starts = build(core), some_observations(), some_starts()
        actions = torch.arange(LENGTH * BATCH).view(LENGTH, BATCH) % 5
        first = state = policy.initial_state(BATCH)
        found = []
        for t in range(LENGTH):
            distribution, value, state = policy.step(observations[t], state, starts[t])
            found.append((value, distribution.log_prob(actions[t]), distribution.entropy()))
        whole = policy.evaluate_sequence(observations.flatten(0, 1), actions, first, starts)
        for mine, one_by_one in zip(whole, zip(*found, strict=True), strict=True):
            assert_close(mine, torch.stack(one_by_one))

    def test_of_recurrent_ppo_are_the_same_but_sequence_after_sequence(self) -> None:
        policy, observations, starts = build(), some_observations(), some_starts()
        actions = torch.arange(LENGTH * BATCH).view(LENGTH, BATCH) % 5
        state = torch.randn(BATCH, policy.core.state_size)
        mine = policy.evaluate_sequence(observations.flatten(0, 1), actions, state, starts)
        pair = policy.to_pair(state)
        values, log_prob, entropy = policy.evaluate_actions(
            observations.transpose(0, 1).flatten(0, 1), actions.t().flatten(), RNNStates(pair, pair),
            starts.t().flatten().float(),
        )  # fmt: skip
        assert entropy is not None
        for theirs, own in ((values, mine.values), (log_prob, mine.log_prob), (entropy, mine.entropy)):
            assert_close(theirs.view(BATCH, LENGTH).t(), own)

    def test_estimate_the_entropy_where_there_is_no_closed_form(self) -> None:
        policy = build(actions=spaces.Box(-1, 1, (2,)), use_sde=True, squash_output=True)
        actions = torch.zeros(LENGTH, BATCH, 2)
        found = policy.evaluate_sequence(
            some_observations().flatten(0, 1), actions, policy.initial_state(BATCH), some_starts()
        )
        assert_close(found.entropy, -found.log_prob)

    def test_hand_out_distributions_that_later_steps_do_not_change(self) -> None:
        policy, observations = build(), some_observations()
        nothing = torch.zeros(BATCH, dtype=torch.bool)
        distribution, _, state = policy.step(observations[0], policy.initial_state(BATCH), nothing)
        before = distribution.log_prob(torch.zeros(BATCH))
        policy.step(observations[1, :1], state[:1], nothing[:1])
        assert torch.equal(distribution.log_prob(torch.zeros(BATCH)), before)

    def test_diagnose_without_changing_the_step(self) -> None:
        policy, observations, starts = build(), some_observations(), some_starts()
        state = torch.randn(BATCH, policy.core.state_size)
        plain, value, following = policy.step(observations[0], state, starts[0])
        same, same_value, same_following, found = policy.diagnose_step(observations[0], state, starts[0])
        assert_close(same.log_prob(torch.zeros(BATCH)), plain.log_prob(torch.zeros(BATCH)))
        assert_close(same_value, value)
        assert_close(same_following, following)
        assert found["active"].shape == (BATCH, 5)
        assert found["communication"].shape == (BATCH, 5, 5)


class TestPredict:
    def test_of_one_observation_is_one_action_and_its_memory(self) -> None:
        action, state = build().predict(np.zeros(3, np.float32))
        assert action.shape == ()
        assert state is not None
        assert [part.shape for part in state] == [(1, 1, 35)] * 2
        assert all(part.dtype == np.float32 for part in state)

    @every_core
    def test_carries_the_memory_as_step_does(self, core: str) -> None:
        policy, observations, starts = build(core), some_observations(), some_starts()
        state, carried = policy.initial_state(BATCH), None
        for t in range(LENGTH):
            distribution, _, state = policy.step(observations[t], state, starts[t])
            actions, carried = policy.predict(
                observations[t].numpy(), carried, episode_start=starts[t].numpy(), deterministic=True
            )
            assert actions.tolist() == distribution.mode().tolist()
            assert carried is not None
            assert_close(policy.from_pair(tuple(torch.as_tensor(part) for part in carried)), state)

    @pytest.mark.parametrize("episode_start", [None, np.zeros(BATCH, bool), np.ones(BATCH, bool)], ids=str)
    def test_without_a_state_starts_from_the_cores_own_even_if_it_is_not_zero(self, episode_start: Any) -> None:
        policy = build(Sum, core_kwargs={"initial": 100.0})
        observations = np.arange(BATCH * 3, dtype=np.float32).reshape(BATCH, 3)
        _, state = policy.predict(observations, None, episode_start)
        assert state is not None
        assert_close(
            policy.from_pair(tuple(torch.as_tensor(part) for part in state)), torch.as_tensor(observations) + 100
        )

    def test_forgets_only_where_an_episode_starts(self) -> None:
        policy = build(Sum, core_kwargs={"initial": 100.0})
        ones = np.ones((BATCH, 3), np.float32)
        _, state = policy.predict(ones)
        _, state = policy.predict(ones, state, episode_start=np.array([False, True, False]))
        assert state is not None
        assert policy.from_pair(tuple(torch.as_tensor(part) for part in state))[:, 0].tolist() == [102, 101, 102]

    def test_of_a_batch_is_what_each_alone_is(self) -> None:
        policy, observations = build(), some_observations().numpy()
        together, one_by_one = None, [None] * BATCH
        for t in range(LENGTH):
            actions, together = policy.predict(observations[t], together, deterministic=True)
            for b in range(BATCH):
                action, one_by_one[b] = policy.predict(observations[t, b], one_by_one[b], deterministic=True)
                assert action == actions[b]

    @pytest.mark.parametrize("space", [SMALL_IMAGE, MIXED], ids=["image", "dictionary"])
    def test_takes_images_and_dictionaries(self, space: spaces.Space[Any]) -> None:
        policy = build(space=space)
        action, state = policy.predict(space.sample())
        again, _ = policy.predict(space.sample(), state)
        assert policy.action_space.contains(action.item())
        assert policy.action_space.contains(again.item())

    def test_brings_continuous_actions_into_their_bounds(self) -> None:
        policy = build(actions=spaces.Box(0.25, 0.5, (2,)))
        actions, _ = policy.predict(np.zeros((101, 3), np.float32))
        assert actions.min() == 0.25
        assert actions.max() == 0.5


class TestSaving:
    @pytest.mark.parametrize("core", ["rim", Sum], ids=["rim", "own core"])
    def test_brings_back_the_same_policy(self, core: Any, tmp_path: Path) -> None:
        policy = build(core, net_arch=[11], core_kwargs=SMALL_RIM if core == "rim" else {"initial": 5.0})
        policy.save(tmp_path / "policy.zip")
        loaded = MlpRIMPolicy.load(tmp_path / "policy.zip", device="cpu")
        observations = some_observations()[0].numpy()
        _, state = policy.predict(observations)
        actions, state = policy.predict(observations, state, deterministic=True)
        _, others = loaded.predict(observations)
        other_actions, others = loaded.predict(observations, others, deterministic=True)
        assert actions.tolist() == other_actions.tolist()
        assert state is not None
        assert others is not None
        assert all(np.array_equal(one, other) for one, other in zip(state, others, strict=True))
        assert loaded.constructor_settings() == policy.constructor_settings()
