"""K independent small maps at once: one batched matrix product instead of K products.

Axes: K groups (units), B batch, S unit size, G gates (3 for a GRU, 4 for an LSTM). The group axis comes first, so
that a batched product needs no copy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GroupedLinear(nn.Module):
    """K linear maps, one per group: (K, B, in) -> (K, B, out), without bias."""

    def __init__(self, groups: int, in_size: int, out_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, in_size, out_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights that keep the variance of a unit-variance input."""
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(self.weight.shape[1]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply each group's map to its own input, (K, B, in) -> (K, B, out)."""
        return torch.bmm(inputs, self.weight)


class GroupedCell(nn.Module):
    """Weights of K recurrent cells; the gates' products are formed outside, because the core hoists and stacks them.

    `weight_ih` is (K, in, G*S), `weight_hh` (K, S, G*S), both biases (K, G*S); the order of the gates is torch's.
    """

    gates: int

    def __init__(self, groups: int, in_size: int, size: int) -> None:
        super().__init__()
        self.size = size
        width = self.gates * size
        self.weight_ih = nn.Parameter(torch.empty(groups, in_size, width))
        self.weight_hh = nn.Parameter(torch.empty(groups, size, width))
        self.bias_ih = nn.Parameter(torch.empty(groups, width))
        self.bias_hh = nn.Parameter(torch.empty(groups, width))
        self.reset_parameters(1.0 / math.sqrt(size))

    def reset_parameters(self, bound: float) -> None:
        """Draw every weight and bias uniformly from [-bound, bound], as `nn.GRUCell` and `nn.LSTMCell` do."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)


class GroupedGRUCell(GroupedCell):
    """K GRU cells (Cho et al. 2014, in the form of `torch.nn.GRUCell`): gates r, z, n."""

    gates = 3

    def forward(self, input_gates: Tensor, hidden_gates: Tensor, h: Tensor) -> Tensor:
        """Return the next h (K, B, S) from both gate products (K, B, 3S), biases included, and h (K, B, S)."""
        size = self.size
        rz = torch.sigmoid(input_gates[..., : 2 * size] + hidden_gates[..., : 2 * size])
        r, z = rz[..., :size], rz[..., size:]
        n = torch.tanh(torch.addcmul(input_gates[..., 2 * size :], r, hidden_gates[..., 2 * size :]))
        return torch.lerp(n, h, z)  # (1 - z) n + z h


class GroupedLSTMCell(GroupedCell):
    """K LSTM cells (Hochreiter and Schmidhuber 1997, in the form of `torch.nn.LSTMCell`): gates i, f, g, o."""

    gates = 4

    def forward(self, input_gates: Tensor, hidden_gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next h and c (K, B, S) from both gate products (K, B, 4S), biases included, and c (K, B, S)."""
        size = self.size
        gates = input_gates + hidden_gates
        i, f = torch.sigmoid(gates[..., : 2 * size]).chunk(2, dim=-1)
        g = torch.tanh(gates[..., 2 * size : 3 * size])
        o = torch.sigmoid(gates[..., 3 * size :])
        c = torch.addcmul(f * c, i, g)
        return o * torch.tanh(c), c
