"""The GRU behind the contract: torch's own, with resets inside a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rims_rl.cores.base import RecurrentCore, full_precision, require_at_least_one
from rims_rl.cores.lstm import pieces_between_resets


class GRUState(NamedTuple):
    """A named view of a GRU's flat state."""

    h: Tensor
    """Hidden states (B, 1, S)."""


@dataclass(frozen=True)
class GRUConfig:
    """Sizes of a GRU."""

    hidden_size: int = 512
    """Size of the hidden state."""

    def __post_init__(self) -> None:
        """Check the size; raises ConfigError in one line."""
        require_at_least_one(hidden_size=self.hidden_size)


class GRU(RecurrentCore):
    """One layer of `nn.GRU` (Cho et al. 2014), weights named and drawn as torch does."""

    config_class = GRUConfig
    width_setting = "hidden_size"
    paper = "Cho et al. 2014"

    def __init__(self, input_size: int, config: GRUConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config or GRUConfig()
        self.input_size = input_size
        self.output_size = self.state_size = self.config.hidden_size
        self.rnn = nn.GRU(input_size, self.config.hidden_size)

    def unpack(self, state: Tensor) -> GRUState:
        """Return the named view of a flat state (B, F)."""
        return GRUState(state.unsqueeze(1))

    @full_precision
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: inputs (T, B, I), state (B, F) -> outputs (T, B, S), state (B, F)."""
        self.check_shapes(inputs, state, episode_starts)
        outputs = []
        for piece, fresh in pieces_between_resets(inputs, episode_starts):
            state = state if fresh is None else state.masked_fill(fresh, 0.0)
            output, last = self.rnn(piece, state.unsqueeze(0))
            state = last[0]
            outputs.append(output)
        return torch.cat(outputs), state
