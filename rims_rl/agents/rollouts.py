"""The rollout buffer for sequences: whole environments cut into chunks, static shapes, no padding.

Axes: T steps per rollout, B environments, L steps per chunk, C = T / L chunks in time, M chunks in a minibatch, F flat
state size. Frames stay in their own type and, for encoders that take them so, lie channels last under the environment's
own shape (C, H, W), as convolutions read them; only the state before each chunk is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from torch import Tensor

from rims_rl.agents.losses import generalised_advantage

Observation = Tensor | dict[str, Tensor]


class SequenceBatch(NamedTuple):
    """A minibatch of M chunks of L steps."""

    observations: Observation
    """(L*M, ...), time-major and flat, in the environment's own type."""
    actions: Tensor
    """(L, M, ...)."""
    states: Tensor
    """(M, F), the memory before each chunk."""
    starts: Tensor
    """(L, M) of bool, where the memory starts afresh."""
    old_values: Tensor
    """(L, M)."""
    old_log_prob: Tensor
    """(L, M)."""
    advantages: Tensor
    """(L, M)."""
    returns: Tensor
    """(L, M)."""


class SequenceBuffer:
    """Steps of B environments in the order in which they were played."""

    def __init__(
        self,
        n_steps: int,
        n_envs: int,
        bptt_length: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        state_size: int,
        device: torch.device,
        channels_last: bool = False,
    ) -> None:
        """Allocate everything; `channels_last` says how frames (C, H, W) lie in memory."""
        self.channels_last = channels_last
        self.n_steps, self.n_envs, self.bptt_length = n_steps, n_envs, bptt_length
        self.observations = self._observations_like(observation_space, device)
        shape = () if isinstance(action_space, spaces.Discrete) else (get_action_dim(action_space),)
        numbered = isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete)
        kind = torch.int64 if numbered else torch.float32  # Bernoulli distributions take floats
        self.actions = torch.zeros(n_steps, n_envs, *shape, dtype=kind, device=device)
        per_step = torch.zeros(6, n_steps, n_envs, device=device)
        self.rewards, self.step_values, self.log_prob, self.advantages, self.step_returns = per_step[:5].unbind()
        self.starts = torch.zeros(n_steps, n_envs, dtype=torch.bool, device=device)
        self.ends = torch.zeros(n_steps, n_envs, dtype=torch.bool, device=device)
        self.states = torch.zeros(n_steps // bptt_length, n_envs, state_size, device=device)
        self.position = 0

    def _observations_like(self, space: spaces.Space[Any], device: torch.device) -> Observation:
        shape = get_obs_shape(space)
        if isinstance(shape, dict):
            assert isinstance(space, spaces.Dict)
            return {key: self._zeros(shape[key], part.dtype, device) for key, part in space.spaces.items()}
        return self._zeros(shape, space.dtype, device)

    def _zeros(self, shape: tuple[int, ...], dtype: Any, device: torch.device) -> Tensor:
        kind = torch.from_numpy(np.zeros(1, dtype=dtype)).dtype
        if not (self.channels_last and len(shape) == 3):
            return torch.zeros(self.n_steps, self.n_envs, *shape, dtype=kind, device=device)
        channels, height, width = shape
        return torch.zeros(self.n_steps, self.n_envs, height, width, channels, dtype=kind, device=device).movedim(-1, 2)

    def reset(self) -> None:
        """Start a new rollout; what lies here is overwritten step by step."""
        self.position = 0

    @property
    def full(self) -> bool:
        """Whether all T steps are here."""
        return self.position == self.n_steps

    @property
    def values(self) -> np.ndarray:
        """The critic's estimates at collection, (T, B), as SB3 calls them."""
        return self.step_values.cpu().numpy()

    @property
    def returns(self) -> np.ndarray:
        """Advantages plus values, (T, B), as SB3 calls them."""
        return self.step_returns.cpu().numpy()

    def put_observation(self, obs: np.ndarray | dict[str, np.ndarray]) -> Observation:
        """Copy the observations (B, ...) of the current step in, and return them as tensors."""
        t = self.position
        if isinstance(self.observations, dict):
            assert isinstance(obs, dict)
            for key, stored in self.observations.items():
                stored[t].copy_(torch.as_tensor(obs[key]).view(stored[t].shape))
            return {key: stored[t] for key, stored in self.observations.items()}
        self.observations[t].copy_(torch.as_tensor(obs).view(self.observations[t].shape))
        return self.observations[t]

    def put_start(self, state: Tensor, starts: Tensor) -> None:
        """Note where the memory starts afresh (B,), and the state (B, F) if the current step opens a chunk."""
        self.starts[self.position] = starts
        if self.position % self.bptt_length == 0:
            self.states[self.position // self.bptt_length] = state

    def put_outcome(
        self, actions: Tensor, values: Tensor, log_prob: Tensor, rewards: np.ndarray, ends: np.ndarray
    ) -> None:
        """Note what was done and what came of it, each (B, ...), and go on to the next step."""
        t = self.position
        self.actions[t] = actions.view(self.actions[t].shape)
        self.step_values[t], self.log_prob[t] = values, log_prob
        self.rewards[t] = torch.as_tensor(rewards, dtype=torch.float32)
        self.ends[t] = torch.as_tensor(ends)
        self.position += 1

    def finish(self, last_values: Tensor, gamma: float, gae_lambda: float) -> None:
        """Compute advantages and returns, given the values (B,) after the last step."""
        advantages = generalised_advantage(self.rewards, self.step_values, last_values, self.ends, gamma, gae_lambda)
        self.advantages.copy_(advantages)
        self.step_returns.copy_(advantages + self.step_values)

    def minibatches(self, batch_size: int) -> Iterator[SequenceBatch]:
        """Yield every step once, in minibatches of whole chunks drawn at random."""
        chunks = (self.n_steps // self.bptt_length) * self.n_envs
        for chosen in torch.split(torch.randperm(chunks), batch_size // self.bptt_length):
            yield self._batch(chosen // self.n_envs, chosen % self.n_envs)

    def sequence(self, n_envs: int) -> SequenceBatch:
        """Return the first `n_envs` environments' whole rollout as one batch of T steps."""
        chosen = slice(0, n_envs)

        def cut(tensor: Tensor) -> Tensor:
            return tensor[:, chosen]

        observations = _each(self.observations, lambda stored: cut(stored).flatten(0, 1))
        return SequenceBatch(
            observations, cut(self.actions), self.states[0, chosen], cut(self.starts), cut(self.step_values),
            cut(self.log_prob), cut(self.advantages), cut(self.step_returns),
        )  # fmt: skip

    def _batch(self, chunk: Tensor, env: Tensor) -> SequenceBatch:
        """Gather the chunks numbered `chunk` (M,) in time of the environments `env` (M,)."""

        def gather(tensor: Tensor) -> Tensor:  # (T, B, ...) -> (L, M, ...)
            if self.channels_last and tensor.dim() == 5:  # frames are gathered as they lie
                return gather_rows(tensor.movedim(2, -1)).movedim(-1, 2)
            return gather_rows(tensor)

        def gather_rows(tensor: Tensor) -> Tensor:
            cut = tensor.view(-1, self.bptt_length, *tensor.shape[1:])  # (C, L, B, ...)
            return cut.transpose(0, 1)[:, chunk, env]

        observations = _each(self.observations, lambda stored: gather(stored).flatten(0, 1))
        return SequenceBatch(
            observations, gather(self.actions), self.states[chunk, env], gather(self.starts),
            gather(self.step_values), gather(self.log_prob), gather(self.advantages), gather(self.step_returns),
        )  # fmt: skip


def _each(observations: Observation, change: Any) -> Observation:
    """Apply a function to an observation, or to every entry of a dictionary of them."""
    if isinstance(observations, dict):
        return {key: change(value) for key, value in observations.items()}
    changed: Tensor = change(observations)
    return changed
