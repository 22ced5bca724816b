"""A module's weights as named tensors, and the check that they fit before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rims_rl.errors import CheckpointError, printable


def weights_of(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers on the CPU; those shared under two names stay shared."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    named: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape)
        if memory not in copies:
            copies[memory] = tensor.detach().cpu().clone()
        named[prefix + name] = copies[memory]
    return named


def check_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError naming the first weight that is missing, of another shape or type, or without a place."""
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise CheckpointError(f"{where} does not fit this network: it lacks {name} {_describe(tensor)}")
        if _describe(weights[name]) != _describe(tensor):
            found, wanted = _describe(weights[name]), _describe(tensor)
            raise CheckpointError(f"{where} does not fit this network: {name} is {found}, expected {wanted}")
    for name in weights:
        if name not in expected:
            raise CheckpointError(
                f"{where} does not fit this network: it has {printable(name, 100)}, which the network lacks"
            )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
