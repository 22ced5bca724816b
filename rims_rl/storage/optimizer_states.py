"""Optimizers' states of unknown origin: PyTorch's fused Adam reads and writes as many numbers as the parameter has."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rims_rl.errors import shortened


def checked_optimizer_state(optimizer: Optimizer, state: Any) -> dict[str, Any]:
    """Return what `optimizer.load_state_dict` may be given: the stored state, and the optimizer's own settings.

    Raises:
        ValueError: when the stored settings differ from its own in more than the step size, which schedules change, or
            when what is kept for a parameter has other names or shapes than what it keeps itself.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("state"), Mapping):
        raise ValueError("it is no optimizer's state")
    groups = _checked_groups(optimizer, state.get("param_groups"))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    expected = _kept_for_one(optimizer)
    for number, kept in state["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise ValueError(f"it has a state for parameter {shortened(number)} of {len(parameters)}")
        _check_kept(kept, expected, parameters[number])
    return {"state": state["state"], "param_groups": groups}


def _checked_groups(optimizer: Optimizer, groups: Any) -> list[dict[str, Any]]:
    own = optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ValueError("it has no groups of parameters")
    counts, wanted = ([len(group.get("params", ())) for group in those] for those in (groups, own))
    if counts != wanted:
        raise ValueError(f"it is over {counts} parameters, expected {wanted}")
    return [_checked_group(found, wanted) for found, wanted in zip(groups, own, strict=True)]


def _checked_group(found: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    rate = found.get("lr")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
        raise ValueError(f"its step size is {shortened(rate)}, expected a number of at least 0")
    for name in found.keys() & own.keys() - {"lr", "initial_lr"}:
        if type(found[name]) is not type(own[name]) or found[name] != own[name]:
            raise ValueError(f"its {name} is {shortened(found[name])}, expected {shortened(own[name])}")
    return {**own, "lr": rate}


def _kept_for_one(optimizer: Optimizer) -> dict[str, Any] | None:
    """Return what an optimizer of this kind keeps for a parameter of shape (2, 3), once it has made a step.

    None for one of the caller's own that can't be made from its settings, or makes no step on its own.
    """
    parameter = nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.zeros(2, 3)
    taken = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in taken}
    try:
        scratch: Any = type(optimizer)([parameter], **settings)
        scratch.step()
    except (TypeError, ValueError, RuntimeError):
        return None
    return dict(scratch.state[parameter])


def _check_kept(kept: Any, expected: Mapping[str, Any] | None, parameter: Tensor) -> None:
    """Raise ValueError for other names than the expected ones, and for tensors of another shape than the parameter."""
    if not isinstance(kept, Mapping) or (expected is not None and kept.keys() != expected.keys()):
        raise ValueError("it keeps other things for a parameter than this optimizer does")
    for name, value in kept.items():
        like = value if expected is None else expected[name]
        if isinstance(like, Tensor):
            shape = parameter.shape if like.dim() else like.shape
            is_alike = isinstance(value, Tensor) and value.shape == shape and value.is_floating_point()
        else:
            is_alike = type(value) is type(like) and isinstance(value, bool | int | float | type(None))
        if not is_alike:
            raise ValueError(f"its {shortened(name)} does not fit a parameter of shape {tuple(parameter.shape)}")
