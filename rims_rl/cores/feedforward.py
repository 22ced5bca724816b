"""No memory at all, behind the contract: the control that says whether a task needs one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rims_rl.cores.base import RecurrentCore, require_at_least_one


class NoState(NamedTuple):
    """A named view of the state of a core that remembers nothing."""

    h: Tensor
    """(B, 1, 0): empty."""


@dataclass(frozen=True)
class FeedforwardConfig:
    """Sizes of a feed-forward layer."""

    hidden_size: int = 512
    """Size of the layer."""

    def __post_init__(self) -> None:
        """Check the size; raises ConfigError in one line."""
        require_at_least_one(hidden_size=self.hidden_size)


class Feedforward(RecurrentCore):
    """One layer with ReLU, applied to every step on its own; its state is empty, F = 0."""

    config_class = FeedforwardConfig
    width_setting = "hidden_size"
    paper = "no memory: the control"

    def __init__(self, input_size: int, config: FeedforwardConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config or FeedforwardConfig()
        self.input_size = input_size
        self.output_size = self.config.hidden_size
        self.state_size = 0
        self.layer = nn.Linear(input_size, self.config.hidden_size)

    def unpack(self, state: Tensor) -> NoState:
        """Return the named view of a flat state (B, 0)."""
        return NoState(state.unsqueeze(1))

    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map a sequence: inputs (T, B, I), state (B, 0) -> outputs (T, B, O), the state untouched."""
        self.check_shapes(inputs, state, episode_starts)
        return torch.relu(self.layer(inputs)), state
