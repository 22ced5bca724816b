"""The states of the global random generators that training draws from."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from rims_rl.errors import said

_WORDS = 624  # of a Mersenne Twister
_DRAWS = 2 * _WORDS + 1
_TORCH_HEAD = struct.Struct("<QiiQ")  # seed, words left, whether it was seeded, place of the next word
_REFUSED = (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError, RuntimeError)


def random_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's global generators."""
    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - SB3 draws from the global generator
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if on_cuda else [],
    }


def check_random_state(state: Any) -> None:
    """Try a state of unknown origin on generators of its own, before it can do harm in the global ones.

    Raises:
        ValueError: when it is none that `random_state` returns, or makes a generator repeat one number for ever, for
            which rejection sampling would wait.
    """
    try:
        _check_python(state["python"])
        check_bit_generator(np.random.MT19937(), state["numpy"])
        np.random.RandomState(np.random.MT19937()).set_state(state["numpy"])
        _check_torch(state["torch"], torch.Generator())
        for device, cuda_state in enumerate(_on_cuda(state["cuda"])):
            torch.Generator(f"cuda:{device}").set_state(cuda_state)
    except _REFUSED as error:
        raise ValueError(f"its random state is damaged ({said(error)})") from None


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set every global generator to what `random_state` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002 - as above
    torch.set_rng_state(state["torch"])
    for device, cuda_state in enumerate(_on_cuda(state["cuda"])):
        torch.cuda.set_rng_state(cuda_state, device)


def check_bit_generator(scratch: np.random.BitGenerator, state: Any) -> None:
    """Raise ValueError for a state that NumPy would take and then crash or hang by; `scratch` takes it instead.

    Args:
        scratch: a generator of the kind that the state is for; it is changed.
        state: what its `state` was somewhere else.
    """
    inner = state["state"]
    if state["bit_generator"] == "MT19937":  # NumPy reads beyond its array from any other place
        is_sound = np.shape(inner["key"]) == (_WORDS,) and type(inner["pos"]) is int and 0 <= inner["pos"] <= _WORDS
    else:  # with an even increment PCG64 has short periods, or none
        is_sound = not state["bit_generator"].startswith("PCG64") or inner["inc"] % 2 == 1
    if not is_sound:
        raise ValueError("it is outside of the generator's range")
    scratch.state = state
    _check_moves(np.random.Generator(scratch).random(_DRAWS))


def _check_python(state: Any) -> None:
    scratch = random.Random()
    scratch.setstate(state)
    if not (state[2] is None or isinstance(state[2], float)):
        raise ValueError("it keeps something that is no number")
    _check_moves(np.array([scratch.random() for _ in range(_DRAWS)]))


def _check_torch(state: Any, scratch: torch.Generator) -> None:
    """Raise ValueError for a state by which PyTorch would read beyond its array: it looks at each number alone."""
    if state.dtype != torch.uint8 or state.shape != scratch.get_state().shape:
        raise ValueError("it is outside of the generator's range")
    _, left, _, place = _TORCH_HEAD.unpack_from(bytes(state[: _TORCH_HEAD.size].tolist()))
    if not (1 <= left <= _WORDS and place < 2**32 and (left == 1 or place + left <= _WORDS + 1)):
        raise ValueError("it is outside of the generator's range")
    scratch.set_state(state)
    _check_moves(torch.rand(_DRAWS, generator=scratch).numpy())


def _check_moves(drawn: np.ndarray) -> None:
    """Raise ValueError when all numbers that were drawn (n,) are one."""
    if (drawn == drawn[0]).all():
        raise ValueError("it repeats one number for ever")


def _on_cuda(states: Sequence[Any]) -> Sequence[Any]:
    """Return the states of those GPUs that are there."""
    return states[: torch.cuda.device_count()] if torch.cuda.is_available() else ()


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Let the body draw random numbers without moving the generators of the run around it."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
