"""K independent small maps at once: one batched matrix product instead of K products.

Axes: T time, K groups (units), B batch, S unit size, G gates (3 for a GRU, 4 for an LSTM). The group axis comes first,
so that a batched product needs no copy. The cells take ready products, because the core hoists the input's out of the
time loop and stacks the state's with others that read the same state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def scaled_parameter(*shape: int) -> nn.Parameter:
    """Return weights (..., in, out) drawn so that a product keeps the variance of its input."""
    return nn.Parameter(torch.randn(*shape) / math.sqrt(shape[-2]))


def uniform_parameter(*shape: int, bound: float) -> nn.Parameter:
    """Return weights drawn uniformly from [-bound, bound], as `nn.GRUCell` and `nn.LSTMCell` draw theirs."""
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def scaled_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear map drawn as DeepMind's Sonnet draws it: normal of 1/sqrt(inputs), cut at two deviations."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    std = 1.0 / math.sqrt(inputs)
    nn.init.trunc_normal_(layer.weight, std=std, a=-2.0 * std, b=2.0 * std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def gru_update(input_gates: Tensor, hidden_gates: Tensor, bias_hn: Tensor, h: Tensor) -> Tensor:
    """Take one GRU step (Cho et al. 2014, in the form of `torch.nn.GRUCell`); gates in the order r, z, n.

    Args:
        input_gates: (K, B, 3S), the input's products with all biases but the recurrent one of n.
        hidden_gates: (K, B, 3S), the state's products without bias.
        bias_hn: (K, 1, S), the recurrent bias of n, which the reset gate scales.
        h: (K, B, S).

    Returns:
        The next h (K, B, S).
    """
    size = h.shape[-1]
    r, z = torch.sigmoid(input_gates[..., : 2 * size] + hidden_gates[..., : 2 * size]).chunk(2, dim=-1)
    n = torch.tanh(torch.addcmul(input_gates[..., 2 * size :], r, hidden_gates[..., 2 * size :] + bias_hn))
    return torch.lerp(n, h, z)  # (1 - z) n + z h


def lstm_update(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Take one LSTM step (Hochreiter and Schmidhuber 1997, in the form of `torch.nn.LSTMCell`); gates i, f, g, o.

    Args:
        gates: (K, B, 4S), the sum of the input's and the state's products, biases included.
        c: (K, B, S), the cell's memory.

    Returns:
        The next h and c, each (K, B, S).
    """
    size = c.shape[-1]
    i, f = torch.sigmoid(gates[..., : 2 * size]).chunk(2, dim=-1)
    g = torch.tanh(gates[..., 2 * size : 3 * size])
    o = torch.sigmoid(gates[..., 3 * size :])
    c = torch.addcmul(f * c, i, g)
    return o * torch.tanh(c), c


def product_over_steps(inputs: Tensor, gradients: Tensor) -> Tensor:
    """Sum the outer products of inputs (T, B, K, X) and gradients (T, B, K, Y) over time and batch, (K, X, Y)."""
    return torch.bmm(inputs.flatten(0, 1).permute(1, 2, 0), gradients.flatten(0, 1).transpose(0, 1))
