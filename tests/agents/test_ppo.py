"""RIMPPO: episodes, lives and time limits are told apart, updates do what is asked, and it is an SB3 algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor
from torch.testing import assert_close

from rims_rl.agents import RIMPPO
from rims_rl.agents.losses import generalised_advantage
from tests.agents.small_runs import (
    ACTIONS,
    CORES,
    ROLLOUT,
    every_core,
    ratios_while_learning,
    same_weights,
    weights,
)
from tests.agents.small_worlds import N_ENVS, N_STEPS, SMALL_IMAGE, Clockwork, Sum, agent, value_is_the_memory, worlds


def known_agent(env: Any, n_steps: int, **settings: Any) -> RIMPPO:
    """Return an agent whose value is the sum of what it has seen since its memory began, and that never learns."""
    model = agent(
        env, core=Sum, policy_kwargs={"net_arch": []}, n_steps=n_steps, batch_size=n_steps, gamma=0.5, gae_lambda=0.5,
        **settings,
    )  # fmt: skip
    model.n_epochs = 0
    value_is_the_memory(model.policy)
    model.learn(n_steps * model.n_envs)
    return model


@pytest.mark.faults
class TestEnds:
    LENGTH, LOST = 6, (2, 5)

    @pytest.mark.parametrize("reset", [False, True])
    def test_a_lost_life_ends_the_return_but_the_memory_only_with_the_switch(self, reset: bool) -> None:
        env = worlds(2, Clockwork, length=self.LENGTH, lost_after=self.LOST)
        buffer = known_agent(env, n_steps=8, reset_memory_on_life_loss=reset).buffer
        ends = [False, True, False, False, True, True, False, True]
        assert buffer.ends[:, 1].tolist() == ends
        starts = [True, False, True, False, False, True, True, False] if reset else [t in (0, 6) for t in range(8)]
        assert buffer.starts[:, 1].tolist() == starts
        kept, wiped = [1, 3, 7, 15, 31, 63, 1, 3], [1, 3, 4, 12, 28, 32, 1, 3]
        assert buffer.values[:, 1].tolist() == (wiped if reset else kept)

    def test_nothing_is_added_at_a_fall_or_a_lost_life(self) -> None:
        env = worlds(2, Clockwork, length=self.LENGTH, lost_after=self.LOST)
        assert (known_agent(env, n_steps=8).buffer.rewards == 1).all()

    def test_a_time_limit_adds_the_value_of_the_terminal_observation_after_the_last_steps_memory(self) -> None:
        buffer = known_agent(worlds(2, Clockwork, length=4, time_limit=True), n_steps=7).buffer
        bootstrap = 0.5 * (1 + 2 + 4 + 8 + 16)
        assert buffer.rewards[:, 1].tolist() == [1, 1, 1, 1 + bootstrap, 1, 1, 1]
        assert buffer.ends[:, 1].tolist() == [t == 3 for t in range(7)]

    def test_the_rollouts_last_step_bootstraps_from_the_observation_that_follows_it(self) -> None:
        model = known_agent(worlds(2, Clockwork, length=4, time_limit=True), n_steps=7)
        values = torch.tensor([1.0, 3, 7, 15, 1, 3, 7]).unsqueeze(1)
        rewards = torch.tensor([1.0, 1, 1, 1 + 0.5 * 31, 1, 1, 1]).unsqueeze(1)
        ends = (torch.arange(7) == 3).unsqueeze(1)
        wanted = generalised_advantage(rewards, values, torch.tensor([15.0]), ends, 0.5, 0.5)
        assert_close(model.buffer.advantages, wanted.expand(7, 2))

    def test_the_memory_goes_on_from_one_rollout_to_the_next(self) -> None:
        model = known_agent(worlds(2, Clockwork, length=9), n_steps=4)
        model.learn(8, reset_num_timesteps=False)
        assert model.buffer.values[:, 0].tolist() == [31, 63, 127, 255]
        assert model.buffer.states[0, 0].item() == 15

    def test_a_memory_that_does_not_start_at_zero_starts_every_episode_there(self) -> None:
        env = worlds(2, Clockwork, length=3)
        assert known_agent(env, n_steps=4, core_kwargs={"initial": 100.0}).buffer.values[:, 0].tolist() == [
            101, 103, 107, 101,
        ]  # fmt: skip

    def test_a_callback_that_ends_the_run_leaves_observation_and_memory_where_the_environments_are(self) -> None:
        class StopAtThree(BaseCallback):
            def _on_step(self) -> bool:
                return self.n_calls < 3

        model = known_agent(worlds(2, Clockwork, length=9), n_steps=4)
        model.learn(8, callback=StopAtThree())
        assert model._last_obs[:, 0].tolist() == [env.unwrapped._observation()[0] for env in model.env.envs]
        assert model._last_state[:, 0].tolist() == [1 + 2 + 4] * 2


class TestUpdates:
    def count_steps(self, **settings: Any) -> int:
        model = agent(n_epochs=5, learning_rate=1e-2, **settings)
        steps: list[int] = []
        model.policy.optimizer.register_step_post_hook(lambda *_: steps.append(1))
        model.learn(ROLLOUT)
        return len(steps)

    def test_every_epoch_passes_over_every_minibatch(self) -> None:
        assert self.count_steps() == 5 * N_ENVS

    def test_target_kl_stops_an_updates_epochs_early(self) -> None:
        assert self.count_steps(target_kl=1e-9) == 1

    @pytest.mark.parametrize("bptt_length", [1, 4, 20])
    def test_any_chunk_length_learns(self, bptt_length: int) -> None:
        model = agent(bptt_length=bptt_length, clip_range_vf=0.3)
        before = weights(model)
        model.learn(2 * ROLLOUT)
        after = weights(model)
        assert not any(torch.equal(before[name], after[name]) for name in before if name.startswith("core."))

    def test_says_what_sb3_says(self) -> None:
        model = agent(clip_range_vf=0.3)
        model.learn(ROLLOUT)
        values = model.logger.name_to_value
        names = "approx_kl clip_fraction clip_range clip_range_vf entropy_loss explained_variance learning_rate loss"
        for name in [*names.split(), "policy_gradient_loss", "value_loss"]:
            assert np.isfinite(values[f"train/{name}"]), name
        assert values["train/n_updates"] == 2

    def test_stop_requested_ends_the_run_before_its_next_rollout(self) -> None:
        class StopInTheSecondRollout(BaseCallback):
            ended = False

            def _on_step(self) -> bool:
                self.model.stop_requested = self.n_calls > N_STEPS + 3
                return True

            def _on_training_end(self) -> None:
                self.ended = True

        stop = StopInTheSecondRollout()
        model = agent()
        model.learn(5 * ROLLOUT, callback=stop)
        assert model.num_timesteps == 2 * ROLLOUT
        assert model._n_updates == 2 * model.n_epochs
        assert stop.ended


@pytest.mark.faults
class TestSeeds:
    def learned(self, seed: int) -> dict[str, Tensor]:
        model = agent(seed=seed)
        model.learn(2 * ROLLOUT)
        return weights(model)

    def test_the_same_seed_gives_the_same_weights_to_the_last_bit(self) -> None:
        assert same_weights(self.learned(3), self.learned(3))

    def test_another_seed_gives_others(self) -> None:
        assert not same_weights(self.learned(3), self.learned(4))

    def test_learning_in_two_calls_is_learning_in_one(self) -> None:
        model = agent(seed=3)
        model.learn(ROLLOUT)
        model.learn(ROLLOUT, reset_num_timesteps=False)
        assert model.num_timesteps == 2 * ROLLOUT
        assert same_weights(weights(model), self.learned(3))


class Doubling(BaseFeaturesExtractor):
    """A user's own encoder: a vector and its double."""

    def __init__(self, space: spaces.Space[Any], factor: float = 2.0) -> None:
        super().__init__(space, 2 * space.shape[0])
        self.factor = factor

    def forward(self, observations: Tensor) -> Tensor:
        return torch.cat([observations, self.factor * observations], dim=1)


class Flat(BaseFeaturesExtractor):
    """A user's own encoder of images, which counts on how they lie in memory."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__(space, 7)
        self.linear = torch.nn.Linear(int(np.prod(space.shape or ())), 7)

    def forward(self, observations: Tensor) -> Tensor:
        return self.linear(observations.view(len(observations), -1))  # type: ignore[no-any-return]


class TestSettings:
    def test_encoders_of_ones_own_see_images_as_the_environment_lays_them(self) -> None:
        model = agent(worlds(space=SMALL_IMAGE), "CnnRIMPolicy", policy_kwargs={"encoder": Flat})
        model.learn(ROLLOUT)
        assert model.num_timesteps == ROLLOUT

    def test_adam_takes_the_settings_that_it_has(self) -> None:
        for settings in ({"foreach": True}, {"differentiable": True}, {"weight_decay": 0.1}):
            model = agent(policy_kwargs={"optimizer_kwargs": settings})
            assert bool(model.policy.optimizer.param_groups[0]["fused"]) == ("weight_decay" in settings)

    def test_a_core_of_a_given_size_is_saved_and_loaded_so(self, tmp_path: Path) -> None:
        settings = {"core_parameters": 20_000}
        model = agent(core_kwargs={"num_units": 5, "active_units": 3}, policy_kwargs=settings)
        model.save(tmp_path / "model")
        loaded = RIMPPO.load(tmp_path / "model")
        counts = [sum(p.numel() for p in each.policy.core.parameters()) for each in (model, loaded)]
        assert counts[0] == counts[1] == pytest.approx(20_000, rel=0.1)
        assert loaded.policy.core.config == model.policy.core.config

    @every_core
    def test_every_core_learns(self, core: str) -> None:
        name, core_kwargs = CORES[core]
        model = agent(core=name, core_kwargs=core_kwargs)
        before = weights(model)
        model.learn(ROLLOUT)
        assert not same_weights(before, weights(model))

    def test_a_users_own_core_and_encoder_are_used(self) -> None:
        settings = {"encoder": Doubling, "encoder_kwargs": {"factor": 3.0}}
        model = agent(core=Sum, core_kwargs={"initial": 5.0}, policy_kwargs=settings)
        model.learn(ROLLOUT)
        assert isinstance(model.policy.core, Sum)
        assert (model.policy.core.input_size, model.policy.core.initial) == (6, 5.0)
        assert isinstance(model.policy.encoder, Doubling)
        assert_close(model.policy.encode(torch.ones(1, 3)), torch.tensor([[1.0, 1, 1, 3, 3, 3]]))
        assert not torch.equal(model.policy.core.scale, torch.ones(6))

    @pytest.mark.parametrize("actions", ACTIONS)
    def test_every_action_space_is_served_within_its_bounds(self, actions: str) -> None:
        model = agent(worlds(actions=ACTIONS[actions]))
        model.learn(ROLLOUT)  # the environment refuses what is not in its space
        action, _ = model.predict(model.observation_space.sample())
        assert model.action_space.contains(action.item() if actions == "discrete" else action)

    @pytest.mark.parametrize(
        "space",
        [
            spaces.Discrete(5),
            spaces.MultiDiscrete([2, 3]),
            spaces.MultiBinary(7),
            spaces.Box(-1, 1, (2, 3), np.float64),
        ],
        ids=str,
    )
    def test_observations_that_are_no_vectors_of_floats_are_served(self, space: spaces.Space[Any]) -> None:
        model = agent(worlds(space=space))
        assert max(ratios_while_learning(model, updates=2)) < 1e-5


class TestIsAnSB3Algorithm:
    def same_predictions(self, one: Any, other: Any) -> bool:
        observations = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
        actions, state = one.predict(observations, deterministic=True)
        others, other_state = other.predict(observations, deterministic=True)
        return np.array_equal(actions, others) and np.array_equal(state[0], other_state[0])

    def test_saves_loads_and_goes_on_learning(self, tmp_path: Path) -> None:
        model = agent(bptt_length=5, reset_memory_on_life_loss=True)
        model.learn(ROLLOUT)
        model.save(tmp_path / "model")
        loaded = RIMPPO.load(tmp_path / "model", env=worlds(), device="cpu")
        assert same_weights(weights(model), weights(loaded))
        assert self.same_predictions(model, loaded)
        assert (loaded.bptt_length, loaded.reset_memory_on_life_loss) == (5, True)
        loaded.learn(ROLLOUT, reset_num_timesteps=False)
        assert loaded.num_timesteps == 2 * ROLLOUT
        assert not same_weights(weights(model), weights(loaded))

    def test_loads_without_environments_and_with_another_number_of_them(self, tmp_path: Path) -> None:
        model = agent()
        model.save(tmp_path / "model")
        assert self.same_predictions(model, RIMPPO.load(tmp_path / "model", device="cpu"))
        loaded = RIMPPO.load(tmp_path / "model", env=worlds(5), device="cpu")
        loaded.learn(5 * N_STEPS)
        assert loaded.num_timesteps == 5 * N_STEPS

    def test_goes_on_in_other_environments_with_an_empty_memory(self) -> None:
        model = known_agent(worlds(2, Clockwork, length=9), n_steps=4)
        model.set_env(worlds(2, Clockwork, length=3))
        model.learn(8, reset_num_timesteps=False)
        assert model.buffer.values[:, 0].tolist() == [1, 3, 7, 1]

    def test_is_evaluated_by_sb3s_own_functions(self, tmp_path: Path) -> None:
        model = agent()
        evaluation = EvalCallback(
            worlds(2), eval_freq=N_STEPS, n_eval_episodes=3, best_model_save_path=str(tmp_path), verbose=0
        )
        model.learn(2 * ROLLOUT, callback=evaluation)
        assert np.isfinite(evaluation.best_mean_reward)
        best = RIMPPO.load(tmp_path / "best_model", device="cpu")
        assert best.num_timesteps in (ROLLOUT, 2 * ROLLOUT)
        rewards, lengths = evaluate_policy(model, worlds(2), n_eval_episodes=5, return_episode_rewards=True)
        assert len(rewards) == len(lengths) == 5

    def test_an_evaluation_in_mid_training_does_not_change_the_run(self) -> None:
        plain = agent()
        plain.learn(2 * ROLLOUT)
        evaluated = agent()
        quiet = EvalCallback(worlds(2), eval_freq=7, n_eval_episodes=2, deterministic=True, verbose=0)
        evaluated.learn(2 * ROLLOUT, callback=quiet)
        assert same_weights(weights(plain), weights(evaluated))

    def test_tells_what_the_units_did_in_the_last_rollout(self) -> None:
        model = agent(worlds(5), bptt_length=5)
        assert model.diagnose_rollout() == {}
        model.learn(5 * N_STEPS)
        found = model.diagnose_rollout()
        assert found["active"].shape == found["null_attention"].shape == (N_STEPS, 4, 5)
        assert (found["active"].sum(dim=-1) == 3).all()

    def test_tells_nothing_of_a_core_without_units(self) -> None:
        model = agent(core="lstm")
        model.learn(ROLLOUT)
        assert model.diagnose_rollout() == {}
