"""What an experiment gives to the training loop: a model that learns one task from one seed.

Every random choice is drawn from the global generators (PyTorch's in the first place), which the loop seeds anew before
each call: before update number n from (seed, n), before a validation or a test from a number of its own that is the
same for all trials. So an update depends on nothing but the weights and its number, a resumed trial equals an
uninterrupted one, and all models are validated and tested on the same data.
"""

from __future__ import annotations

import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rims_rl.errors import NonFiniteError


@dataclass(frozen=True)
class Findings:
    """What a test found."""

    figures: dict[str, float]
    """The numbers by name; a table shows those that the experiment names in its columns."""
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """What plots are drawn from, by name."""


class Trial(ABC):
    """One model that learns one task from one seed; drawn by the loop with the global generator seeded."""

    watched: ClassVar[str]
    """The figure of `validate` by which the best weights are chosen and training may end early."""
    higher_is_better: ClassVar[bool] = False
    """Whether the watched figure should rise; otherwise it should fall."""

    def __init__(self, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
        self.modules = dict(modules)
        """What learns, by name: its weights and buffers are saved, and put into training or evaluation mode."""
        self.optimizers = dict(optimizers)
        """Their optimizers, by name, whose states are saved."""
        self.remembered: dict[str, Any] = {}
        """Plain data and tensors that must survive an interruption beside the weights and the optimizers' states."""

    @abstractmethod
    def update(self, step: int) -> dict[str, float]:
        """Make update number `step`, counted from 0, and return figures to log, such as the loss.

        Raises:
            NonFiniteError: when a loss or a gradient is not finite.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return figures on validation data, the watched one among them; modules are in evaluation mode."""

    @abstractmethod
    def test(self) -> Findings:
        """Return what the best weights achieve on the test data; modules are in evaluation mode."""

    def memory(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside weights and optimizers: plain data, arrays and tensors."""
        return self.remembered

    def recall(self, memory: dict[str, Any]) -> None:
        """Take back what `memory` returned; weights and optimizers have already been put back.

        Raises:
            ValueError: when it is what another kind of trial remembers; the loop says where it lay.
        """
        kinds, own = ({name: type(value) for name, value in kept.items()} for kept in (memory, self.remembered))
        if kinds != own:
            raise ValueError("it remembers other things than this trial does")
        self.remembered.clear()
        self.remembered.update(memory)

    def parameters(self) -> int:
        """Return how many numbers are learned."""
        every = (parameter for module in self.modules.values() for parameter in module.parameters())
        return sum(parameter.numel() for parameter in every if parameter.requires_grad)


def descend(loss: Tensor, optimizer: Optimizer, max_grad_norm: float | None = None) -> float:
    """Make one step down the gradient of a scalar loss, and return the loss.

    Args:
        loss: what shall fall.
        optimizer: steps its own parameters; other parameters collect gradient that nobody uses.
        max_grad_norm: norm over all parameters of the optimizer above which gradients are scaled down; None for no
            limit.

    Raises:
        NonFiniteError: when the loss or the gradient's norm is not finite; no weight has changed.
    """
    value = float(loss.detach())
    if not np.isfinite(value):
        raise NonFiniteError(f"the loss is {value}; a smaller learning_rate may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(learned, float("inf") if max_grad_norm is None else max_grad_norm)
    if not bool(torch.isfinite(norm)):
        raise NonFiniteError(f"the gradient's norm is {float(norm)}; a smaller learning_rate may help")
    optimizer.step()
    return value


def seed_all(*names: int | str) -> None:
    """Seed the global generators of PyTorch, NumPy and Python from a stream's name."""
    seed = stream_seed(*names)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - Stable-Baselines3 draws from the global generator
    random.seed(seed)


def stream_seed(*names: int | str) -> int:
    """Return a seed for a stream of random numbers that is named by texts and whole numbers of at least 0."""
    entropy = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def batch_sizes(total: int, most: int) -> list[int]:
    """Return the sizes of the batches into which `total` examples are cut, at most `most` each."""
    whole, rest = divmod(total, most)
    return [most] * whole + ([rest] if rest else [])


def numpy_generator() -> np.random.Generator:
    """Return a NumPy generator that is drawn from PyTorch's global one, which it moves on."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, ())))
