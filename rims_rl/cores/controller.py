"""The controller of an external memory: it sees the input and what was read last, and says what the memory does next.

Axes: T time, B batch, I input size, S hidden size, V size of all read vectors together, X interface size, O output
size, F flat state size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.cores.grouped import lstm_update, scaled_parameter
from rims_rl.errors import ConfigError

CONTROLLERS = ("lstm", "feedforward")


class Controller(nn.Module):
    """One LSTM layer, or one tanh layer that leaves all remembering to the memory.

    Weights are drawn to keep the variance and biases are zero but the LSTM's forget bias, which is one, as in the
    reference implementations of the NTM (Collier and Beel 2018) and the DNC (Graves et al. 2016).
    """

    def __init__(
        self, kind: str, input_size: int, hidden_size: int, read_size: int, interface_size: int, output_size: int
    ) -> None:
        super().__init__()
        self.is_lstm = kind == "lstm"
        self.input_size = input_size
        gates = hidden_size * (4 if self.is_lstm else 1)
        recurrent = hidden_size if self.is_lstm else 0
        self.weight = scaled_parameter(input_size + read_size + recurrent, gates)
        self.bias = nn.Parameter(torch.zeros(gates))
        if self.is_lstm:
            self.bias.data[hidden_size : 2 * hidden_size] = 1.0
        self.to_interface = scaled_parameter(hidden_size, interface_size)
        self.interface_bias = nn.Parameter(torch.zeros(interface_size))
        self.to_output = scaled_parameter(hidden_size + read_size, output_size)
        self.output_bias = nn.Parameter(torch.zeros(output_size))

    def hoist(self, inputs: Tensor) -> Iterable[Tensor]:
        """Multiply all inputs (T, B, I) with their weights at once, and yield the products (B, G) step by step."""
        return torch.matmul(inputs, self.weight[: self.input_size]).add(self.bias).unbind()

    def step(self, from_input: Tensor, reads: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step from the input's products (B, G), the last reads (B, V), h and c (B, S) to the next h and c."""
        seen = torch.cat([reads, h], dim=1) if self.is_lstm else reads
        gates = torch.addmm(from_input, seen, self.weight[self.input_size :])
        return lstm_update(gates, c) if self.is_lstm else (torch.tanh(gates), c)

    def interface(self, h: Tensor) -> Tensor:
        """Return what the controller's output (B, S) tells the memory, (B, X)."""
        return torch.addmm(self.interface_bias, h, self.to_interface)

    def outputs(self, hiddens: Sequence[Tensor], reads: Sequence[Tensor]) -> Tensor:
        """Map the T controller outputs (B, S) and read vectors (B, V) to the core's outputs (T, B, O)."""
        features = torch.cat([torch.stack(list(hiddens)), torch.stack(list(reads))], dim=-1)
        return F.linear(features, self.to_output.t(), self.output_bias)


def split_state(state: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut a flat state (B, F) into views (B, *shape), in the order of `shapes`."""
    parts = state.split_with_sizes([math.prod(shape) for shape in shapes], dim=1)
    return [part.view(part.shape[0], *shape) for part, shape in zip(parts, shapes, strict=True)]


def join_state(parts: Iterable[Tensor]) -> Tensor:
    """Return the flat state (B, F) of parts (B, ...)."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def check_controller(kind: str) -> None:
    """Raise ConfigError when `kind` names no controller."""
    if kind not in CONTROLLERS:
        raise ConfigError(f"controller must be one of {', '.join(CONTROLLERS)}, got {kind!r}")
