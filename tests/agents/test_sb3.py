"""The SB3 side: unmodified RecurrentPPO runs our policies, and PPO, A2C and DQN our extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack
from torch.testing import assert_close

from rims_rl.agents import CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy, RIMExtractor
from rims_rl.errors import ConfigError
from tests.agents.small_worlds import CORES, IMAGE, MIXED, SMALL_IMAGE, SMALL_RIM, VECTOR, Clockwork, Sum, worlds

N_ENVS, N_STEPS = 2, 16
ROLLOUT = N_ENVS * N_STEPS
POLICIES: dict[str, tuple[Any, spaces.Space[Any]]] = {
    "MlpRIMPolicy": (MlpRIMPolicy, VECTOR),
    "CnnRIMPolicy": (CnnRIMPolicy, IMAGE),
    "MultiInputRIMPolicy": (MultiInputRIMPolicy, MIXED),
}
every_policy = pytest.mark.parametrize("name", POLICIES)


def recurrent_ppo(policy: Any, env: Any, core: Any = "rim", **settings: Any) -> RecurrentPPO:
    core_kwargs = settings.pop("core_kwargs", CORES.get(core, {}) if isinstance(core, str) else {})
    policy_kwargs = {"core": core, "core_kwargs": core_kwargs, **settings.pop("policy_kwargs", {})}
    arguments = {"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 2, "learning_rate": 3e-3, "seed": 7}
    return RecurrentPPO(policy, env, device="cpu", policy_kwargs=policy_kwargs, **(arguments | settings))


class RatioAtRolloutEnd(BaseCallback):
    """Notes the worst probability ratio of a rollout as RecurrentPPO's update will see it."""

    worst = 0.0
    padded = False

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for data in self.model.rollout_buffer.get(self.model.batch_size):
            discrete = isinstance(self.model.action_space, spaces.Discrete)
            actions = data.actions.long().flatten() if discrete else data.actions
            _, log_prob, _ = self.model.policy.evaluate_actions(
                data.observations, actions, data.lstm_states, data.episode_starts
            )
            used = data.mask > 1e-8
            self.padded |= not bool(used.all())
            ratio = torch.exp(log_prob - data.old_log_prob)[used]
            self.worst = max(self.worst, (ratio - 1).abs().max().item())


class TestRecurrentPPO:
    @every_policy
    def test_trains_saves_loads_predicts_and_is_evaluated(self, name: str, tmp_path: Path) -> None:
        policy, space = POLICIES[name]
        model = recurrent_ppo(policy, worlds(N_ENVS, space=space))
        before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        model.learn(ROLLOUT)
        unchanged = [name for name, tensor in model.policy.named_parameters() if torch.equal(tensor, before[name])]
        assert unchanged == []
        model.save(tmp_path / "model")
        loaded = RecurrentPPO.load(tmp_path / "model", env=worlds(N_ENVS, space=space), device="cpu")
        assert type(loaded.policy) is policy
        assert self.plays_like(model, loaded)
        loaded.learn(ROLLOUT, reset_num_timesteps=False)
        rewards, _ = evaluate_policy(loaded, worlds(3, space=space), n_eval_episodes=4, return_episode_rewards=True)
        assert len(rewards) == 4

    def plays_like(self, one: Any, other: Any) -> bool:
        """Whether two models choose the same over some steps, for one environment and for several."""
        one.observation_space.seed(3)
        observations = [one.observation_space.sample() for _ in range(5)]
        states: list[Any] = [None, None]
        for observation in observations:
            pairs = zip((one, other), states, strict=True)
            (action, *_), (other_action, *_) = found = [
                model.predict(observation, state, deterministic=True) for model, state in pairs
            ]
            states = [state for _, state in found]
            if action != other_action or not all(map(np.array_equal, *states)):
                return False
        return True

    @pytest.mark.parametrize("core", CORES)
    def test_first_epochs_ratio_is_one_with_every_core(self, core: str) -> None:
        look = RatioAtRolloutEnd()
        recurrent_ppo(MlpRIMPolicy, worlds(N_ENVS), core=core).learn(3 * ROLLOUT, callback=look)
        assert look.padded  # sequences were cut at episode ends
        assert look.worst < 1e-5

    @pytest.mark.parametrize("name", ["CnnRIMPolicy", "MultiInputRIMPolicy"])
    def test_first_epochs_ratio_is_one_for_images(self, name: str) -> None:
        look, (policy, space) = RatioAtRolloutEnd(), POLICIES[name]
        recurrent_ppo(policy, worlds(N_ENVS, space=space), n_epochs=1).learn(2 * ROLLOUT, callback=look)
        assert look.worst < 1e-5

    def test_first_epochs_ratio_is_one_for_continuous_actions(self) -> None:
        look = RatioAtRolloutEnd()
        env = worlds(N_ENVS, actions=spaces.Box(-1, 1, (2,)))
        recurrent_ppo(MlpRIMPolicy, env).learn(3 * ROLLOUT, callback=look)
        assert look.worst < 1e-5

    @pytest.mark.parametrize("actions", [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(5)], ids=str)
    def test_trains_with_several_actions(self, actions: spaces.Space[Any]) -> None:
        recurrent_ppo(MlpRIMPolicy, worlds(N_ENVS, actions=actions)).learn(ROLLOUT)

    def test_units_can_attend_to_places(self) -> None:
        model = recurrent_ppo(
            CnnRIMPolicy, worlds(N_ENVS, space=SMALL_IMAGE), policy_kwargs={"encoder": "nature-slots"}
        )
        model.learn(ROLLOUT)
        assert model.policy.encoder.slots == 6

    def test_begins_every_episode_in_a_state_that_is_not_zero(self) -> None:
        model = recurrent_ppo(
            MlpRIMPolicy, worlds(N_ENVS, Clockwork, length=3), core=Sum, core_kwargs={"initial": 100.0}
        )
        seen: list[float] = []

        class Look(BaseCallback):
            def _on_step(self) -> bool:
                pair = tuple(part[:, :1] for part in self.locals["lstm_states"].pi)
                seen.append(self.model.policy.from_pair(pair).item())
                return True

        model.learn(ROLLOUT, callback=Look())
        assert seen[:6] == [101, 103, 107, 101, 103, 107]

    def test_teaches_the_core_by_the_value_too(self) -> None:
        model = recurrent_ppo(MlpRIMPolicy, worlds(N_ENVS), normalize_advantage=False)
        model.learn(ROLLOUT)
        data = next(model.rollout_buffer.get(ROLLOUT))
        model.policy.zero_grad()
        values, _, _ = model.policy.evaluate_actions(
            data.observations, data.actions.long().flatten(), data.lstm_states, data.episode_starts
        )
        values.square().mean().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.policy.core.parameters())


ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "PPO": (PPO, {"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 2}),
    "A2C": (A2C, {"n_steps": N_STEPS}),
    "DQN": (DQN, {"learning_starts": 8, "buffer_size": 64, "batch_size": 8, "train_freq": 4}),
}
STACKS: dict[str, tuple[str, spaces.Box, dict[str, Any]]] = {
    "images": ("CnnPolicy", spaces.Box(0, 255, (3, 52, 44), np.uint8), {}),
    "images with two channels": ("CnnPolicy", spaces.Box(0, 255, (6, 52, 44), np.uint8), {"n_stack": 3}),
    "rows": ("MlpPolicy", spaces.Box(-1, 1, (3, 5)), {}),
    "parts of a flat vector": ("MlpPolicy", spaces.Box(-1, 1, (15,)), {"n_stack": 3}),
}


class TestExtractor:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("stack", STACKS)
    def test_trains_in_algorithms_without_memory(self, algorithm: str, stack: str, tmp_path: Path) -> None:
        (kind, arguments), (policy, space, settings) = ALGORITHMS[algorithm], STACKS[stack]
        extractor = {"core_kwargs": SMALL_RIM, **settings}
        policy_kwargs = {"features_extractor_class": RIMExtractor, "features_extractor_kwargs": extractor}
        model = kind(policy, worlds(1, space=space), policy_kwargs=policy_kwargs, seed=7, device="cpu", **arguments)
        before = {name: tensor.clone() for name, tensor in model.policy.named_parameters() if "extractor.core" in name}
        assert len(before) >= 7
        model.learn(ROLLOUT)
        net = model.q_net if algorithm == "DQN" else model.policy
        assert net.features_extractor.n_stack == 3
        assert net.features_extractor.features_dim == 35
        trained = dict(model.policy.named_parameters())
        online = [name for name in before if "target" not in name]
        assert all(not torch.equal(trained[name], before[name]) for name in online)
        model.save(tmp_path / "model")
        observation = space.sample()
        loaded = kind.load(tmp_path / "model", device="cpu")
        assert loaded.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]

    def test_sees_the_frames_that_sb3_stacked_oldest_first(self) -> None:
        env = VecFrameStack(worlds(1, Clockwork, length=9), 3)
        extractor = RIMExtractor(env.observation_space, core=Sum, n_stack=3)
        env.reset()
        env.step(np.array([0]))
        observations, *_ = env.step(np.array([0]))
        inputs = extractor.encoder(torch.as_tensor(observations).reshape(3, 1))
        assert inputs.flatten().tolist() == [1, 2, 4]
        assert_close(extractor(torch.as_tensor(observations)), torch.tensor([[7.0]]))

    def test_says_in_one_line_that_frames_cannot_be_cut_so(self) -> None:
        policy_kwargs = {"features_extractor_class": RIMExtractor, "features_extractor_kwargs": {"n_stack": 4}}
        with pytest.raises(ConfigError, match=r"\(15,\) cannot be cut into n_stack=4") as caught:
            PPO("MlpPolicy", worlds(1, space=spaces.Box(-1, 1, (15,))), policy_kwargs=policy_kwargs, device="cpu")
        assert "\n" not in str(caught.value)
