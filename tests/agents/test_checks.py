"""Bad input ends in one line that names what is wrong and what would be right, and never reaches the weights."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from rims_rl.agents import RIMPPO, CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy
from rims_rl.agents.checks import check_finite_observation, check_finite_rewards, check_sizes
from rims_rl.errors import ConfigError, NonFiniteError, UnknownNameError
from tests.agents.small_worlds import (
    N_ENVS,
    N_STEPS,
    SMALL_IMAGE,
    VECTOR,
    Clockwork,
    ShortEpisodes,
    Sum,
    agent,
    value_is_the_memory,
    worlds,
)

ROLLOUT = N_ENVS * N_STEPS


def the_one_line(caught: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    """Check that a message is one line that says all of some parts."""
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.faults
class TestSizes:
    @pytest.mark.parametrize(
        ("sizes", "says"),
        [
            ({"n_steps": 0}, ("n_steps", "at least 1", "0")),
            ({"batch_size": -20}, ("batch_size", "at least 1", "-20")),
            ({"bptt_length": 0}, ("bptt_length", "at least 1", "0")),
            ({"n_epochs": 0}, ("n_epochs", "at least 1", "0")),
            ({"bptt_length": 7}, ("bptt_length=7", "n_steps=20")),
            ({"bptt_length": 40}, ("bptt_length=40", "n_steps=20")),
            ({"batch_size": 30}, ("batch_size=30", "bptt_length=20")),
            ({"batch_size": 40}, ("batch_size=40", "3 x 20")),
            ({"batch_size": 120}, ("batch_size=120", "3 x 20")),
        ],
        ids=str,
    )
    def test_that_do_not_fit_are_named(self, sizes: dict[str, int], says: tuple[str, ...]) -> None:
        with pytest.raises(ConfigError) as caught:
            agent(**sizes)
        the_one_line(caught, *says)

    def test_that_fit_pass(self) -> None:
        check_sizes(n_envs=3, n_steps=20, batch_size=30, bptt_length=10)

    def test_a_value_clipping_of_nothing_is_refused(self) -> None:
        with pytest.raises(ConfigError) as caught:
            agent(clip_range_vf=0.0)
        the_one_line(caught, "clip_range_vf", "above 0", "None")


@pytest.mark.faults
class TestNames:
    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"policy": "MlpRimPolicy"}, ("policy 'MlpRimPolicy'", "'MlpRIMPolicy'")),
            ({"policy": "MlpLstmPolicy"}, ("policy 'MlpLstmPolicy'", "'MlpRIMPolicy'")),
            ({"core": "rims"}, ("core 'rims'", "'rim'")),
            ({"core_kwargs": {"num_unit": 3}}, ("'num_unit'", "'num_units'")),
            ({"core": "lstm", "core_kwargs": {"size": 3}}, ("'size'", "hidden_size")),
            ({"policy_kwargs": {"encoder": "natur"}}, ("encoder 'natur'", "'nature'")),
            ({"policy_kwargs": {"encoder": "flatten", "encoder_kwargs": {"dim": 1}}}, ("'dim'", "FlattenExtractor")),
        ],
        ids=str,
    )
    def test_that_are_unknown_come_with_the_nearest_ones(self, settings: dict[str, Any], says: tuple[str, ...]) -> None:
        with pytest.raises(UnknownNameError) as caught:
            agent(**settings)
        the_one_line(caught, *says)

    def test_of_an_encoders_settings_are_checked(self) -> None:
        settings = {"encoder_kwargs": {"feature_dim": 5}}
        with pytest.raises(UnknownNameError) as caught:
            agent(worlds(space=SMALL_IMAGE), "CnnRIMPolicy", policy_kwargs=settings)
        the_one_line(caught, "'feature_dim'", "NatureEncoder", "'features_dim'")

    @pytest.mark.parametrize("encoder", ["nature", "nature-slots"])
    def test_an_encoder_of_no_size_is_refused(self, encoder: str) -> None:
        settings = {"encoder": encoder, "encoder_kwargs": {"features_dim": 0}}
        with pytest.raises(ConfigError) as caught:
            agent(worlds(space=SMALL_IMAGE), "CnnRIMPolicy", policy_kwargs=settings)
        the_one_line(caught, "features_dim", "at least 1", "0")

    def test_more_active_units_than_units_are_refused(self) -> None:
        with pytest.raises(ConfigError) as caught:
            agent(core_kwargs={"num_units": 3, "active_units": 5})
        the_one_line(caught, "active_units=5", "num_units=3")

    @pytest.mark.parametrize(("core", "encoder"), [(int, None), ("rim", int)])
    def test_a_class_of_the_wrong_kind_is_refused(self, core: Any, encoder: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            agent(core=core, core_kwargs={}, policy_kwargs={"encoder": encoder})
        the_one_line(caught, "must be a name or a subclass of", "int")


class TestSpaces:
    OTHER = spaces.Dict({"left": spaces.Discrete(2)})

    @pytest.mark.parametrize("policy", ["MlpRIMPolicy", "CnnRIMPolicy", "MultiInputRIMPolicy"])
    @pytest.mark.parametrize(
        ("actions", "says"),
        [
            (OTHER, ("Dict", "use Box, Discrete")),
            (spaces.Box(-np.inf, np.inf, (2,)), ("finite",)),
            (spaces.Discrete(3, start=1), ("start=1", "start=0")),
            (spaces.MultiDiscrete([2, 3], start=[0, 1]), ("start=0",)),
            (spaces.MultiBinary((2, 3)), ("more than one axis",)),
        ],
        ids=str,
    )
    def test_of_actions_that_no_policy_serves_are_named(
        self, policy: str, actions: spaces.Space[Any], says: tuple[str, ...]
    ) -> None:
        space = {"CnnRIMPolicy": SMALL_IMAGE, "MlpRIMPolicy": VECTOR}.get(policy, spaces.Dict({"a": VECTOR}))
        with pytest.raises(ConfigError) as caught:
            agent(worlds(space=space, actions=actions), policy)
        the_one_line(caught, "action space", *says)

    @pytest.mark.parametrize(
        ("policy", "space", "says"),
        [
            ("MlpRIMPolicy", spaces.Dict({"a": VECTOR}), ("Dict", "MultiInputRIMPolicy")),
            ("CnnRIMPolicy", VECTOR, ("images", "(3,)", "MlpRIMPolicy")),
            ("CnnRIMPolicy", spaces.Box(0, 255, (1, 84, 35), np.uint8), ("36 x 36", "(1, 84, 35)")),
            ("MultiInputRIMPolicy", VECTOR, ("MultiInputRIMPolicy", "Dict", "Box")),
            (
                "MultiInputRIMPolicy",
                spaces.Dict({"eye": spaces.Box(0, 255, (1, 35, 84), np.uint8)}),
                ("36 x 36", "eye"),
            ),
        ],
        ids=str,
    )
    def test_of_observations_that_a_policy_does_not_serve_are_named(
        self, policy: str, space: spaces.Space[Any], says: tuple[str, ...]
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            agent(worlds(space=space), policy)
        the_one_line(caught, *says)

    @pytest.mark.parametrize(
        ("policy", "space", "actions", "says"),
        [
            (MlpRIMPolicy, spaces.Text(5), spaces.Discrete(2), ("Text", "Box")),
            (MultiInputRIMPolicy, spaces.Dict({"a": spaces.Text(5)}), spaces.Discrete(2), ("Text", "Box")),
            (MlpRIMPolicy, VECTOR, spaces.MultiDiscrete([[2, 3], [3, 2]]), ("action", "more than one axis")),
        ],
    )
    def test_that_sb3_would_not_even_wrap_are_named_by_the_policy(
        self, policy: Any, space: spaces.Space[Any], actions: spaces.Space[Any], says: tuple[str, ...]
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            policy(space, actions, lambda _: 1e-3)
        the_one_line(caught, *says)

    def test_images_with_channels_last_are_turned_by_sb3(self) -> None:
        model = agent(worlds(space=spaces.Box(0, 255, (44, 40, 3), np.uint8)), "CnnRIMPolicy")
        assert model.observation_space.shape == (3, 44, 40)
        model.learn(ROLLOUT)

    def test_images_with_channels_last_are_refused_where_nobody_turns_them(self) -> None:
        space = spaces.Box(0, 255, (84, 84, 3), np.uint8)
        with pytest.raises(ConfigError) as caught:
            CnnRIMPolicy(space, spaces.Discrete(2), lambda _: 1e-3)
        the_one_line(caught, "channel-first", "(84, 84, 3)")

    def test_slots_for_a_core_that_takes_a_vector_are_refused(self) -> None:
        with pytest.raises(ConfigError) as caught:
            agent(worlds(space=SMALL_IMAGE), "CnnRIMPolicy", core="lstm", policy_kwargs={"encoder": "nature-slots"})
        the_one_line(caught, "LSTM", "NatureSlots", "'nature'", "'rim'")


class TestPoliciesElsewhere:
    @pytest.mark.parametrize("algorithm", [PPO, A2C])
    def test_a_recurrent_policy_in_an_algorithm_without_memory_says_where_it_belongs(self, algorithm: Any) -> None:
        model = algorithm(MlpRIMPolicy, worlds(), device="cpu")
        with pytest.raises(ConfigError) as caught:
            model.learn(ROLLOUT)
        the_one_line(caught, "MlpRIMPolicy", "RIMPPO", "RecurrentPPO", "RIMExtractor")

    def test_a_policy_without_memory_in_rimppo_is_refused(self) -> None:
        with pytest.raises(ConfigError) as caught:
            RIMPPO(ActorCriticPolicy, worlds(), n_steps=N_STEPS, batch_size=N_STEPS, device="cpu")  # type: ignore[arg-type]
        the_one_line(caught, "ActorCriticPolicy", "rims_rl.agents")

    def test_recurrent_ppo_gets_the_same_messages(self) -> None:
        with pytest.raises(ConfigError) as caught:
            RecurrentPPO(CnnRIMPolicy, worlds(), device="cpu")
        the_one_line(caught, "images", "MlpRIMPolicy")


class Poisoned(ShortEpisodes):
    """Gives a number that is not finite, or far too large, at one step of the environment's life."""

    def __init__(self, what: str, number: float, at: int = 5, space: spaces.Space[Any] = VECTOR) -> None:
        super().__init__(space)
        self.what, self.number, self.at, self.steps = what, number, at, 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps != self.at:
            return observation, reward, terminated, truncated, info
        if self.what == "reward":
            return observation, self.number, False, False, info
        return self._spoilt(observation), reward, False, self.what == "terminal observation", info

    def _spoilt(self, observation: Any) -> Any:
        if isinstance(observation, dict):
            return {**observation, "b": np.full_like(observation["b"], self.number)}
        return np.array([0, self.number, 0], observation.dtype)


def poisoned(what: str, number: float, **settings: Any) -> Any:
    """Return environments of which number 1 is poisoned."""
    envs = worlds(space=settings.get("space", VECTOR))
    envs.envs[1] = Poisoned(what, number, **settings)
    return envs


def learn_and_keep_the_weights(model: RIMPPO, *says: str) -> None:
    """Check that learning ends with a NonFiniteError that says some parts, and that no weight was written."""
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    with pytest.raises(NonFiniteError) as caught:
        model.learn(2 * ROLLOUT)
    the_one_line(caught, *says)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.policy.state_dict().items())


NOT_FINITE = pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])


@pytest.mark.faults
class TestNumbersThatAreNotFinite:
    @NOT_FINITE
    @pytest.mark.parametrize("at", [1, 5, N_STEPS], ids="step {}".format)
    def test_in_an_observation_are_named_and_kept_out_of_the_weights(self, number: float, at: int) -> None:
        model = agent(poisoned("observation", number, at=at))
        learn_and_keep_the_weights(model, "observation of environment 1", "not finite")

    @NOT_FINITE
    def test_in_an_entry_of_a_dictionary_are_named(self, number: float) -> None:
        envs = poisoned("observation", number, space=spaces.Dict({"a": VECTOR, "b": VECTOR}))
        learn_and_keep_the_weights(agent(envs, "MultiInputRIMPolicy"), "b of environment 1")

    @NOT_FINITE
    def test_in_the_last_observation_before_a_time_limit_are_named(self, number: float) -> None:
        model = agent(poisoned("terminal observation", number))
        learn_and_keep_the_weights(model, "observation of environment 1", "not finite")

    @NOT_FINITE
    def test_in_a_reward_are_named(self, number: float) -> None:
        learn_and_keep_the_weights(agent(poisoned("reward", number)), "reward of environment 1", str(number))

    def test_in_the_loss_are_named(self) -> None:
        learn_and_keep_the_weights(
            agent(poisoned("reward", 1e30), batch_size=ROLLOUT, most_skipped=0), "the loss is inf"
        )

    def test_behind_an_observation_that_is_too_large_are_named(self) -> None:
        envs = poisoned("observation", 1e300, space=spaces.Box(-np.inf, np.inf, (3,), np.float64))
        learn_and_keep_the_weights(agent(envs), "policy's output is not finite", "too large")

    @pytest.mark.parametrize("number", [np.nan, np.inf])
    def test_in_a_gradient_are_named_by_the_parameter(self, number: float) -> None:
        model = agent(batch_size=ROLLOUT, most_skipped=0)
        model.policy.core.value.register_hook(lambda gradient: torch.full_like(gradient, number))
        learn_and_keep_the_weights(model, "gradient of core.value")

    def test_in_a_norm_of_finite_gradients_are_named(self) -> None:
        model = agent(batch_size=ROLLOUT, most_skipped=0)
        model.policy.core.value.register_hook(lambda gradient: torch.full_like(gradient, 1e38))
        learn_and_keep_the_weights(model, "gradient's norm is inf")

    def test_in_a_later_minibatch_leave_the_weights_of_the_one_before(self) -> None:
        model = agent(n_epochs=1, most_skipped=0)
        seen: list[dict[str, Tensor]] = []

        def poison_the_second(gradient: Tensor) -> Tensor:
            seen.append({name: tensor.clone() for name, tensor in model.policy.state_dict().items()})
            return gradient * (np.nan if len(seen) == 2 else 1.0)

        model.policy.core.value.register_hook(poison_the_second)
        with pytest.raises(NonFiniteError):
            model.learn(ROLLOUT)
        assert not torch.equal(seen[0]["core.value"], seen[1]["core.value"])
        assert all(torch.equal(tensor, seen[1][name]) for name, tensor in model.policy.state_dict().items())

    def test_in_a_terminal_observation_that_nobody_reads_do_no_harm(self) -> None:
        class FallsIntoNaN(Clockwork):
            def step(self, action: Any) -> Any:
                observation, reward, terminated, *rest = super().step(action)
                return (observation * np.nan if terminated else observation), reward, terminated, *rest

        model = agent(worlds(2, FallsIntoNaN, length=3), core=Sum, policy_kwargs={"net_arch": []})
        value_is_the_memory(model.policy)
        model.learn(2 * N_STEPS)
        assert np.isfinite(model.buffer.returns).all()

    def test_the_checks_pass_what_is_finite_and_what_cannot_be_otherwise(self) -> None:
        check_finite_observation({"a": np.ones((2, 3)), "b": np.ones((2, 3), np.uint8)})
        check_finite_rewards(np.ones(2))


def test_an_environment_by_its_id_is_checked_once_it_is_built() -> None:
    assert "CartPole-v1" in gym.registry
    with pytest.raises(ConfigError) as caught:
        RIMPPO("CnnRIMPolicy", "CartPole-v1", n_steps=N_STEPS, batch_size=N_STEPS, device="cpu")
    the_one_line(caught, "images", "MlpRIMPolicy")
