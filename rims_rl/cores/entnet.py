"""The Recurrent Entity Network (Henaff et al. 2017, "Tracking the world state with recurrent entity networks").

Axes: T time, B batch, K slots, I input size, S slot size.

Every slot has a key of its own, learned, and all slots share one set of weights. A slot opens its gate where the input
fits its key or what it holds, and forgets by being scaled back to length one (arXiv 1612.03969, equations 2 to 5).

The paper reads facts first and is asked afterwards; an agent is asked at every step by what it sees. So the input is at
once the fact, encoded by one linear map (equation 1 for a bag of words whose order does not matter), and the question,
encoded by another, which reads the slots after their update by attention (equation 6 without the last map, which is the
agent's head). Or else the output is all slots in a row. What depends on the input alone is computed for all T steps
before the loop, and what is read from the slots after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rims_rl.cores.base import RecurrentCore, full_precision, require_at_least_one, steps_with_resets
from rims_rl.errors import ConfigError

Activation = Literal["prelu", "identity"]
Readout = Literal["query", "slots"]

_INITIAL_DEVIATION = 0.1
"""The paper's: every parameter is drawn from a normal distribution of this width, but for the PReLU's slopes, 1."""


class EntNetState(NamedTuple):
    """A named view of an entity network's flat state."""

    h: Tensor
    """What the slots hold (B, K, S)."""


@dataclass(frozen=True)
class EntNetConfig:
    """Sizes and switches of a recurrent entity network; the sizes are the paper's for the bAbI tasks."""

    num_slots: int = 20
    """How many slots there are, each with its key (K)."""
    slot_size: int = 100
    """Size of a slot, a key and an encoded input (S)."""
    activation: Activation = "prelu"
    """The phi of equations 3 and 6: prelu with a slope per element, or identity, as in the paper's synthetic world."""
    readout: Readout = "query"
    """query: the input asks, the slots answer by attention, S numbers; slots: all slots in a row, K * S numbers."""

    def __post_init__(self) -> None:
        """Check every setting; raises ConfigError in one line."""
        require_at_least_one(num_slots=self.num_slots, slot_size=self.slot_size)
        for name, kind in (("activation", Activation), ("readout", Readout)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")


class EntNet(RecurrentCore):
    """K gated slots with keys, updated side by side by shared weights; they start from their keys."""

    config_class = EntNetConfig
    width_setting = "slot_size"
    paper = "Henaff et al. 2017"
    slopes: nn.Parameter | None
    output_slopes: nn.Parameter | None

    def __init__(self, input_size: int, config: EntNetConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config = config or EntNetConfig()
        size = config.slot_size
        self.input_size = input_size
        self.state_size = config.num_slots * size
        self.output_size = size if config.readout == "query" else self.state_size
        self.keys = _drawn(config.num_slots, size)
        self.encode = _drawn(input_size, size)
        self.from_slot, self.from_key, self.from_input = (_drawn(size, size) for _ in range(3))  # U, V, W
        self._make_slopes("slopes")
        if config.readout == "query":
            self.ask = _drawn(input_size, size)
            self.from_read = _drawn(size, size)  # H
            self._make_slopes("output_slopes")

    def _make_slopes(self, name: str) -> None:
        slopes = nn.Parameter(torch.ones(self.config.slot_size)) if self.config.activation == "prelu" else None
        self.register_parameter(name, slopes)

    def initial_state(self, batch: int) -> Tensor:
        """Return the keys, where every slot starts, (B, F); they are learned, and gradient flows to them."""
        return self.keys.flatten().repeat(batch, 1)

    def unpack(self, state: Tensor) -> EntNetState:
        """Return the named view of a flat state (B, F)."""
        return EntNetState(state.view(-1, self.config.num_slots, self.config.slot_size))

    @full_precision
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: inputs (T, B, I), state (B, F) -> outputs (T, B, O), state (B, F)."""
        outputs, state, _ = self._run(inputs, state, episode_starts)
        return outputs, state

    @full_precision
    def diagnose(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Run as `forward` and also return which slots were written and which were read.

        Returns:
            Outputs, state, and a dictionary of `gates` (T, B, K) and, with the query readout, `read` (T, B, K), the
            attention of the question over the slots.
        """
        outputs, state, found = self._run(inputs, state, episode_starts)
        return outputs, state, {name: tensor.detach() for name, tensor in found.items()}

    def _run(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.check_shapes(inputs, state, episode_starts)
        h, slots, gates = self.unpack(state).h, [], []
        resets = steps_with_resets(episode_starts, inputs.shape[0])
        encoded = inputs @ self.encode  # s, (T, B, S)
        fits = (encoded @ self.keys.t()).unsqueeze(3)  # s w, (T, B, K, 1)
        drive = (encoded @ self.from_input).unsqueeze(2) + self.keys @ self.from_key  # V w + W s, (T, B, K, S)
        for t, step in enumerate(zip(encoded.unsqueeze(3).unbind(), fits.unbind(), drive.unbind(), strict=True)):
            if resets[t] and episode_starts is not None:
                h = torch.where(episode_starts[t].bool().view(-1, 1, 1), self.keys, h)
            h, gate = self._step(h, *step)
            slots.append(h)
            gates.append(gate)
        found = {"gates": torch.stack(gates).squeeze(3)}
        outputs = self._read(inputs, torch.stack(slots), found)
        return outputs, h.flatten(1), found

    def _step(self, h: Tensor, encoded: Tensor, fit: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Update the slots h (B, K, S) by s (B, S, 1), s w (B, K, 1) and V w + W s (B, K, S)."""
        gate = torch.sigmoid(torch.baddbmm(fit, h, encoded))  # equation 2, (B, K, 1)
        candidate = torch.addmm(drive.flatten(0, 1), h.flatten(0, 1), self.from_slot)
        candidate = _activate(candidate, self.slopes).view_as(h)  # equation 3
        h = torch.addcmul(h, gate, candidate)  # equation 4
        return F.normalize(h, dim=-1), gate  # equation 5

    def _read(self, inputs: Tensor, slots: Tensor, found: dict[str, Tensor]) -> Tensor:
        """Let the input ask the slots (T, B, K, S) (equation 6), or return them in a row; outputs (T, B, O)."""
        if self.config.readout == "slots":
            return slots.flatten(2)
        question = inputs @ self.ask  # q, (T, B, S)
        found["read"] = torch.softmax((slots @ question.unsqueeze(3)).squeeze(3), dim=-1)  # p, (T, B, K)
        read = (found["read"].unsqueeze(2) @ slots).squeeze(2)  # u, (T, B, S)
        return _activate(question + read @ self.from_read, self.output_slopes)


def _activate(values: Tensor, slopes: Tensor | None) -> Tensor:
    """Apply a PReLU with a slope per element to (..., S), or nothing without slopes."""
    return values if slopes is None else torch.where(values > 0, values, slopes * values)


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(_INITIAL_DEVIATION * torch.randn(*shape))
