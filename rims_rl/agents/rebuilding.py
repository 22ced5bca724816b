"""Policies from files of unknown origin: nothing is built before it is known to fit the weights that lie there.

Settings of some bytes can ask for any number of weights. So the policy is first sketched on PyTorch's meta device,
which takes no memory, and compared with the file; then its size is at most the file's.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from rims_rl.agents.weights import check_weights
from rims_rl.errors import CheckpointError, said

if TYPE_CHECKING:
    from rims_rl.agents.policies import RIMPolicy

_SPARE_PARAMETERS = 64
"""Parameters that are registered on the way and that no file holds, such as SB3's placeholder for an LSTM."""
_MOST_SKETCHES = 40
"""Policies' worth of parameters that are registered where the core's width is searched for (`core_parameters`)."""
MOST_UNSAVED = 2**26
"""Numbers that a policy may hold beside its weights, and that its memory may take to play: 256 MiB in float32."""
_CANNOT = (
    TypeError, ValueError, AttributeError, LookupError, RuntimeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip


def rebuilt(make: partial[RIMPolicy], weights: Mapping[str, Tensor], where: str) -> RIMPolicy:
    """Return the policy that `make` builds, with these weights; torch's random state stays as it was.

    Args:
        make: builds the policy; takes further keywords of its constructor.
        weights: all its weights, by name.
        where: what messages call the file.

    Raises:
        CheckpointError: when the policy can't be built, or the weights are not its own.
    """
    check_fit(make, weights, where)
    return rebuilt_by_own_classes(make, weights, where)


def rebuilt_by_own_classes(make: partial[RIMPolicy], weights: Mapping[str, Tensor], where: str) -> RIMPolicy:
    """Do the same without a sketch, for classes of the caller's own: the settings may ask them for any size."""
    with _told(where), torch.random.fork_rng(devices=[]):
        policy = make()
    check_weights(policy, weights, where)
    policy.load_state_dict(dict(weights))
    return policy


def check_fit(make: partial[RIMPolicy], weights: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError unless `make` builds a policy with these weights; takes no memory for it."""
    in_file = {tensor.data_ptr() or name: tensor.nbytes for name, tensor in weights.items()}
    is_searched = make.keywords.get("core_parameters") is not None
    most = (len(in_file) + _SPARE_PARAMETERS) * (_MOST_SKETCHES if is_searched else 1)
    with _told(where), torch.device("meta"), torch.random.fork_rng(devices=[]), _at_most(most, len(in_file)):
        sketch = make(optimizer_kwargs={"fused": False})  # the fused form wants numbers
    check_weights(sketch, weights, where)
    saved = sketch.state_dict(keep_vars=True)
    if sum({id(tensor): tensor.nbytes for tensor in saved.values()}.values()) > sum(in_file.values()):
        raise CheckpointError(f"{where} does not fit this network: it holds one weight in the place of several")
    _check_unsaved(sketch, saved, where)


def _check_unsaved(sketch: RIMPolicy, saved: Container[str], where: str) -> None:
    """Raise CheckpointError when a policy holds too many numbers that no file does."""
    unsaved = sum(buffer.numel() for name, buffer in sketch.named_buffers() if name not in saved)
    numbers = max(unsaved, numbers_to_play(sketch))
    if numbers > MOST_UNSAVED:
        raise CheckpointError(
            f"{where} needs {numbers:,} numbers beside its weights, at most {MOST_UNSAVED:,} are allowed"
        )


def numbers_to_play(policy: RIMPolicy) -> int:
    """Return about how many numbers a policy's memory takes to play one episode."""
    return policy.core.state_size + policy.core.working_numbers()


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Say as a CheckpointError what a constructor refuses."""
    try:
        yield
    except CheckpointError:
        raise
    except _CANNOT as error:
        raise CheckpointError(f"{where} cannot be built: {said(error)}") from error


@contextmanager
def _at_most(count: int, in_file: int) -> Iterator[None]:
    """Let the body register so many parameters and no more: a number of layers can be large without taking memory."""
    registered = 0

    def count_them(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal registered
        registered += 1
        if registered > count:
            raise ValueError(f"it has more than the file's {in_file} weights")

    hook = register_module_parameter_registration_hook(count_them)
    try:
        yield
    finally:
        hook.remove()
