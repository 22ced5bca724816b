"""Gradient steps that survive what goes wrong: numbers that are not finite, and too little memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rims_rl.agents.checks import first_non_finite
from rims_rl.agents.rollouts import Observation, SequenceBatch
from rims_rl.errors import NonFiniteError, OutOfMemory

_log = logging.getLogger(__name__)
_SAID_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class GuardedSteps:
    """Optimizer steps that leave out minibatches whose loss or gradient is not finite, but not too many in a row."""

    def __init__(self, most_skipped: int) -> None:
        self.most_skipped = most_skipped
        self.skipped = 0
        """Minibatches that were left out since this object was made."""
        self.in_a_row = 0
        """Those since the last one that was taken."""

    def take(
        self, loss: float, policy: nn.Module, optimizer: Optimizer, max_grad_norm: float, batch: SequenceBatch
    ) -> bool:
        """Take one step along the gradients that lie in the parameters; return whether it was taken.

        Raises:
            NonFiniteError: when more than `most_skipped` minibatches in a row were not finite; with the last of them
                as evidence. The weights are as they were before the first.
        """
        parameters = list(policy.parameters())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            self._skip(first_non_finite(loss, policy, norm), batch)
            optimizer.zero_grad(set_to_none=True)
            return False
        nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
        optimizer.step()
        self.in_a_row = 0
        return True

    def _skip(self, reason: str, batch: SequenceBatch) -> None:
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row > self.most_skipped:
            after = f" for {self.in_a_row} minibatches in a row" if self.most_skipped else ""
            raise NonFiniteError(f"{reason}{after}; the weights were left as they were", evidence_of(batch))
        _log.warning("a minibatch was left out: %s", reason)


def evidence_of(batch: SequenceBatch) -> dict[str, Tensor]:
    """Return what a minibatch held, under the names of its fields, on the CPU."""
    evidence: dict[str, Tensor] = {}
    for name, value in batch._asdict().items():
        parts = value if isinstance(value, dict) else {"": value}
        evidence |= {f"{name}/{key}".rstrip("/"): part.detach().cpu() for key, part in parts.items()}
    return evidence


def pieces_of(batch: SequenceBatch, count: int) -> Iterator[tuple[SequenceBatch, float]]:
    """Yield a minibatch of M chunks in up to `count` pieces of whole chunks, each with its share of the steps."""
    length, chunks = batch.starts.shape
    for chosen in torch.arange(chunks).chunk(count):
        cut = slice(int(chosen[0]), int(chosen[-1]) + 1)
        share = len(chosen) / chunks
        yield _columns(batch, cut, length), share


def _columns(batch: SequenceBatch, cut: slice, length: int) -> SequenceBatch:
    """Return the chunks `cut` of a minibatch whose chunks are `length` steps long."""

    def rows(flat: Tensor) -> Tensor:  # (L*M, ...) -> (L*m, ...)
        return flat.view(length, -1, *flat.shape[1:])[:, cut].flatten(0, 1)

    seen: Observation = batch.observations
    observations = {key: rows(part) for key, part in seen.items()} if isinstance(seen, dict) else rows(seen)
    per_step = {name: getattr(batch, name)[:, cut] for name in batch._fields if name not in ("observations", "states")}
    return SequenceBatch(observations=observations, states=batch.states[cut], **per_step)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory is used up, on a GPU or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID_OF_MEMORY)


@contextmanager
def memory_explained(doing: str, advice: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory into one line that says what to do about it.

    Raises:
        OutOfMemory: in place of the body's own exception.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(str(error).split()).partition(". ")[0][:150] or type(error).__name__
        raise OutOfMemory(f"out of memory while {doing} ({said}): {advice()}") from error
