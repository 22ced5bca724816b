"""The contract of every memory: a sequence model whose state is one flat tensor.

Axes, here and in every file of this storey: T time, B batch, I input size, O output size, F flat state size.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from rims_rl.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


class RecurrentCore(nn.Module, ABC):
    """A memory that maps inputs and a flat state to outputs and the next flat state.

    State goes in and comes out; nothing recurrent is kept on the module. Every core obeys the same laws: a whole
    sequence equals its single steps, a reset in mid-sequence equals a fresh start, sequences of a batch do not see each
    other, and every parameter gets gradient.
    """

    input_size: int
    """Size of one input vector, or of one slot where the core takes a set of slots."""
    output_size: int
    """Size of one output vector."""
    state_size: int
    """Size of the flat state of one sequence."""
    accepts_slots: ClassVar[bool] = False
    """Whether inputs may be a set of N slots, (T, B, N, I); other cores take (T, B, I) only."""
    config_class: ClassVar[type[Any] | None] = None
    """The frozen dataclass of settings; None when the constructor takes keywords of its own."""
    width_setting: ClassVar[str | None] = None
    """The setting that makes the core larger or smaller, by which `matched_config` gives cores equal size."""
    paper: ClassVar[str] = ""
    """Where the core was published."""

    @abstractmethod
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence.

        Args:
            inputs: (T, B, I), or (T, B, N, I) where `accepts_slots`.
            state: (B, F), the state before the first step.
            episode_starts: (T, B) of bool (or 0/1); where set, that sequence starts that step from its initial state.

        Returns:
            The outputs (T, B, O) and the state after the last step (B, F).

        Raises:
            ConfigError: the shapes do not fit the core.
        """

    def initial_state(self, batch: int) -> Tensor:
        """Return the state of `batch` sequences that have seen nothing, (B, F): zeros unless a core says otherwise."""
        reference = next(self.parameters())
        return torch.zeros(batch, self.state_size, dtype=reference.dtype, device=reference.device)

    @abstractmethod
    def unpack(self, state: Tensor) -> NamedTuple:
        """Return a named view of a flat state (B, F)."""

    def working_numbers(self) -> int:
        """Return about how many numbers a step of one sequence takes beyond its state's; zero unless a core says so."""
        return 0

    def diagnose(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Run as `forward` does and also return what happened inside, by name; nothing by default."""
        outputs, state = self(inputs, state, episode_starts)
        return outputs, state, {}

    def check_shapes(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None) -> None:
        """Raise ConfigError in one line when the arguments of `forward` do not fit."""
        ranks = (3, 4) if self.accepts_slots else (3,)
        if inputs.dim() not in ranks or inputs.shape[-1] != self.input_size:
            slots = " or (T, B, N, I)" if self.accepts_slots else ""
            raise ConfigError(f"inputs must be (T, B, I){slots} with I={self.input_size}, got {tuple(inputs.shape)}")
        if 0 in inputs.shape:
            raise ConfigError(f"inputs must have at least one step, sequence and slot, got {tuple(inputs.shape)}")
        batch = inputs.shape[1]
        if state.shape != (batch, self.state_size):
            raise ConfigError(f"state must be (B, F) = {(batch, self.state_size)}, got {tuple(state.shape)}")
        if episode_starts is not None and episode_starts.shape != inputs.shape[:2]:
            raise ConfigError(
                f"episode_starts must be (T, B) = {tuple(inputs.shape[:2])}, got {tuple(episode_starts.shape)}"
            )
        self._check_types(inputs, state)

    def _check_types(self, inputs: Tensor, state: Tensor) -> None:
        """Raise ConfigError when inputs or state are not of the weights' type and device (autocast converts inputs)."""
        weight = next(self.parameters())
        converts = torch.is_autocast_enabled(weight.device.type)
        for name, tensor in (("inputs", inputs), ("state", state)):
            fits = tensor.dtype == weight.dtype or (converts and tensor.is_floating_point())
            if not fits or tensor.device != weight.device:
                raise ConfigError(
                    f"{name} must be {weight.dtype} on {weight.device} as the core's weights are, "
                    f"got {tensor.dtype} on {tensor.device}"
                )


def require_at_least_one(**sizes: int) -> None:
    """Raise ConfigError naming the first size that is below one or not a whole number."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name} must be a whole number of at least 1, got {size!r}")


def steps_with_resets(episode_starts: Tensor | None, length: int) -> list[bool]:
    """Return for each of T steps whether any sequence of the batch starts an episode there."""
    if episode_starts is None:
        return [False] * length
    flags: list[bool] = episode_starts.bool().any(dim=1).tolist()
    return flags


def full_precision(method: Callable[P, R]) -> Callable[P, R]:
    """Let a core's method run in its weights' own number type under `torch.autocast` too.

    A recurrence that is rounded to bfloat16 at every step drifts. Decorate `forward` (and `diagnose`) with it: tensors
    of floating point are converted to the weights' type, and autocast is off inside.
    """

    @functools.wraps(method)
    def in_full_precision(*args: P.args, **kwargs: P.kwargs) -> R:
        core = args[0]
        assert isinstance(core, nn.Module)
        weight = next(core.parameters())
        if not torch.is_autocast_enabled(weight.device.type):
            return method(*args, **kwargs)
        with torch.autocast(weight.device.type, enabled=False):
            positional, named = (_converted(value, weight.dtype) for value in (args, kwargs))
            return method(*positional, **named)

    return in_full_precision


def _converted(arguments: Any, dtype: torch.dtype) -> Any:
    """Convert the floating-point tensors of a tuple or dictionary of arguments."""

    def convert(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    if isinstance(arguments, dict):
        return {name: convert(value) for name, value in arguments.items()}
    return tuple(convert(value) for value in arguments)
