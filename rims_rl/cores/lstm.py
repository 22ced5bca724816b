"""The LSTM behind the contract: torch's own, with resets inside a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rims_rl.cores.base import RecurrentCore, full_precision, require_at_least_one, steps_with_resets


class LSTMState(NamedTuple):
    """A named view of an LSTM's flat state."""

    h: Tensor
    """Hidden states (B, 1, S)."""
    c: Tensor
    """Cell states (B, 1, S)."""


@dataclass(frozen=True)
class LSTMConfig:
    """Sizes of an LSTM."""

    hidden_size: int = 512
    """Size of the hidden state."""

    def __post_init__(self) -> None:
        """Check the size; raises ConfigError in one line."""
        require_at_least_one(hidden_size=self.hidden_size)


class LSTM(RecurrentCore):
    """One layer of `nn.LSTM` (Hochreiter and Schmidhuber 1997), weights named and drawn as torch does."""

    config_class = LSTMConfig
    width_setting = "hidden_size"
    paper = "Hochreiter & Schmidhuber 1997"

    def __init__(self, input_size: int, config: LSTMConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config or LSTMConfig()
        self.input_size = input_size
        self.output_size = self.config.hidden_size
        self.state_size = 2 * self.config.hidden_size
        self.rnn = nn.LSTM(input_size, self.config.hidden_size)

    def unpack(self, state: Tensor) -> LSTMState:
        """Return the named view of a flat state (B, F)."""
        h, c = state.unsqueeze(1).chunk(2, dim=-1)
        return LSTMState(h, c)

    @full_precision
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: inputs (T, B, I), state (B, F) -> outputs (T, B, S), state (B, F)."""
        self.check_shapes(inputs, state, episode_starts)
        outputs = []
        for piece, fresh in pieces_between_resets(inputs, episode_starts):
            state = state if fresh is None else state.masked_fill(fresh, 0.0)
            h, c = state.unsqueeze(0).chunk(2, dim=-1)
            output, (h, c) = self.rnn(piece, (h.contiguous(), c.contiguous()))
            state = torch.cat([h[0], c[0]], dim=-1)
            outputs.append(output)
        return torch.cat(outputs), state


def pieces_between_resets(inputs: Tensor, episode_starts: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Cut a sequence (T, B, I) before every step at which some sequence of the batch starts an episode.

    Yields:
        The piece (T', B, I), and which sequences to reset before it, (B, 1) of bool, or None for none.
    """
    length = inputs.shape[0]
    cuts = [t for t, any_reset in enumerate(steps_with_resets(episode_starts, length)) if any_reset and t > 0]
    for begin, end in zip([0, *cuts], [*cuts, length], strict=True):
        fresh = None if episode_starts is None else episode_starts[begin].bool().unsqueeze(-1)
        yield inputs[begin:end], fresh
