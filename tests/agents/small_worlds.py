"""Small environments with short episodes, known values and lives, and small agents for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from rims_rl.agents import RIMPPO, RIMPolicy
from rims_rl.cores import RecurrentCore

VECTOR = spaces.Box(-np.inf, np.inf, (3,))
IMAGE = spaces.Box(0, 255, (4, 84, 84), np.uint8)
SMALL_IMAGE = spaces.Box(0, 255, (2, 52, 44), np.uint8)
"""The Nature CNN makes 3 x 2 places of it."""
MIXED = spaces.Dict({"image": SMALL_IMAGE, "vector": VECTOR, "number": spaces.Discrete(5)})

N_ENVS, N_STEPS = 3, 20
SMALL_RIM: dict[str, Any] = {"num_units": 5, "active_units": 3, "unit_size": 7}
CORES: dict[str, dict[str, Any]] = {
    "rim": SMALL_RIM,
    "lstm": {"hidden_size": 11},
    "gru": {"hidden_size": 11},
    "feedforward": {"hidden_size": 11},
    "rmc": {"num_slots": 3, "slot_size": 10, "heads": 2},
    "entnet": {"num_slots": 5, "slot_size": 7},
    "transformer": {"model_size": 14, "num_layers": 2, "heads": 2, "window": 5},
    "ntm": {"hidden_size": 11, "memory_rows": 7, "memory_width": 5},
    "dnc": {"hidden_size": 11, "memory_rows": 7, "memory_width": 5, "read_heads": 2},
}


class ShortEpisodes(gym.Env[Any, Any]):
    """Random observations in episodes of 2 to 9 steps, which fall, reach a time limit or, with lives, lose them first.

    A lost life is told as a done with `life_lost` in the info, after which a reset goes on with the same episode, as
    Atari games do it.
    """

    def __init__(
        self, space: spaces.Space[Any] = VECTOR, actions: spaces.Space[Any] | None = None, lives: int = 1
    ) -> None:
        self.observation_space = copy.deepcopy(space)  # a generator of its own
        self.action_space = actions or spaces.Discrete(3)
        self.most_lives = lives
        self.lives = self.left = 0
        self.observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        if self.lives == 0:
            self.lives = self.most_lives
            self._begin_life()
            self._look()
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self._look()
        self.left -= 1
        if self.left > 0:
            return self.observation, float(self.np_random.normal()), False, False, {}
        self.lives -= 1
        if self.lives > 0:
            self._begin_life()
            return self.observation, 1.0, True, False, {"life_lost": True}
        truncated = bool(self.np_random.integers(2))
        return self.observation, 1.0, not truncated, truncated, {}

    def _begin_life(self) -> None:
        self.left = int(self.np_random.integers(2, 10))

    def _look(self) -> None:
        self.observation = self.observation_space.sample()


def worlds(
    n_envs: int = N_ENVS, make: Callable[..., gym.Env[Any, Any]] = ShortEpisodes, **settings: Any
) -> DummyVecEnv:
    """Return several monitored environments behind one VecEnv."""
    return DummyVecEnv([lambda: Monitor(make(**settings))] * n_envs)


def agent(env: Any = None, policy: Any = "MlpRIMPolicy", core: Any = "rim", **settings: Any) -> RIMPPO:
    """Return a small agent; `policy_kwargs` are added to the core's."""
    core_kwargs = settings.pop("core_kwargs", CORES.get(core, {}) if isinstance(core, str) else {})
    policy_kwargs = {"core": core, "core_kwargs": core_kwargs, **settings.pop("policy_kwargs", {})}
    arguments = {"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 2, "learning_rate": 3e-3, "seed": 7}
    return RIMPPO(
        policy, worlds() if env is None else env, device="cpu", policy_kwargs=policy_kwargs, **(arguments | settings)
    )


class Clockwork(gym.Env[Any, Any]):
    """Shows 1, 2, 4, 8, ... and pays 1 per step; a life is lost or the episode ends at the steps that it is told."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(0, np.inf, (1,))

    def __init__(self, length: int, lost_after: tuple[int, ...] = (), time_limit: bool = False) -> None:
        self.length, self.lost_after, self.time_limit = length, lost_after, time_limit
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = self.steps if self.steps in self.lost_after else 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        is_over = self.steps == self.length
        lost = self.steps in self.lost_after
        info = {"life_lost": True} if lost else {}
        return self._observation(), 1.0, lost or (is_over and not self.time_limit), is_over and self.time_limit, info

    def _observation(self) -> np.ndarray:
        return np.array([2.0**self.steps], np.float32)


class Sum(RecurrentCore):
    """A memory that adds up its inputs, scaled by 1, from an initial state that need not be zero."""

    def __init__(self, input_size: int, initial: float = 0.0) -> None:
        super().__init__()
        self.input_size = self.output_size = self.state_size = input_size
        self.initial = initial
        self.scale = nn.Parameter(torch.ones(input_size))

    def initial_state(self, batch: int) -> Tensor:
        return torch.full((batch, self.state_size), self.initial)

    def unpack(self, state: Tensor) -> Total:
        return Total(state.unsqueeze(1))

    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check_shapes(inputs, state, episode_starts)
        outputs = []
        for t, step in enumerate(inputs):
            if episode_starts is not None:
                state = torch.where(episode_starts[t].unsqueeze(1), self.initial_state(len(state)), state)
            state = state + step * self.scale
            outputs.append(state)
        return torch.stack(outputs), state


class Total(NamedTuple):
    """A named view of the state of a sum."""

    h: Tensor
    """(B, 1, I)."""


def value_is_the_memory(policy: RIMPolicy) -> None:
    """Make the critic of a policy without hidden layers, with one input, say what the memory's output is."""
    with torch.no_grad():
        policy.value_net.weight.fill_(1.0)
        policy.value_net.bias.zero_()
