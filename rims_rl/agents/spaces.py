"""Gymnasium spaces as JSON, so that a stored policy knows what it sees and does without unpickling anything."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from rims_rl.errors import CheckpointError, ConfigError, said, shortened

_MOST_ENTRIES = 2**24
"""Entries of a stored space, over all its parts; 84 x 84 x 4 are 28,224."""
_MOST_AXES = 64
"""Axes of a stored space, as many as an array of NumPy's can have."""
_TYPES = frozenset(
    {"bool", "float16", "float32", "float64"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """Return a space as JSON-safe data.

    Raises:
        ConfigError: for a kind of space that policies here don't serve.
    """
    if isinstance(space, spaces.Box):
        bounds = {"low": _bound_to_json(space.low), "high": _bound_to_json(space.high)}
        return {"kind": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": np.asarray(space.n).tolist()}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": [[name, space_to_json(part)] for name, part in space.spaces.items()]}
    raise ConfigError(
        f"a {type(space).__name__} space cannot be stored: expected Box, Discrete, MultiDiscrete, MultiBinary or Dict"
    )


def space_from_json(data: Any) -> Space[Any]:
    """Return the space that `space_to_json` described.

    Raises:
        CheckpointError: when the data describe none, or one too large to be true.
    """
    try:
        entries = _entries(data)
        if entries > _MOST_ENTRIES:
            raise ValueError(f"{entries:,} entries, at most {_MOST_ENTRIES:,} are allowed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy and Gymnasium warn of bounds that do not fit their type
            return _built(data)
    except _DAMAGED as error:
        raise CheckpointError(f"a stored space is damaged: {shortened(data)} ({said(error)})") from None


_DAMAGED = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError, OverflowError, RecursionError,
)  # fmt: skip


def _entries(data: Any) -> int:
    """Return how many numbers an element of the space has, before any array is made."""
    if data["kind"] == "Dict":
        return sum(_entries(part) for _, part in data["spaces"])
    shape = data["shape"] if data["kind"] == "Box" else data.get("n", 1) if data["kind"] == "MultiBinary" else []
    sizes = shape if isinstance(shape, list) else [shape]
    if len(sizes) > _MOST_AXES or not all(type(size) is int and 0 <= size <= _MOST_ENTRIES for size in sizes):
        raise ValueError(f"a shape of {shortened(shape)}")
    return math.prod(sizes)


def _built(data: Any) -> Space[Any]:
    return _BUILDERS[data["kind"]](data)


def _bound_to_json(bound: np.ndarray) -> Any:
    """Return one number where all entries agree (a frame has 28,224 of them), else nested lists."""
    values = np.unique(bound)
    return _finite_or_text(values.item() if values.size == 1 else bound.tolist())


def _finite_or_text(value: Any) -> Any:
    """Spell infinities as texts ("inf"), which strict JSON lacks; NumPy reads them back."""
    if isinstance(value, list):
        return [_finite_or_text(item) for item in value]
    return value if np.isfinite(value) else str(value)


def _box(data: dict[str, Any]) -> Space[Any]:
    if data["dtype"] not in _TYPES:
        raise ValueError(f"the type {shortened(data['dtype'])}")
    dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
    low, high = (np.broadcast_to(np.asarray(data[side], dtype), shape).copy() for side in ("low", "high"))
    return spaces.Box(low, high, shape, dtype.type)


def _discrete(data: dict[str, Any]) -> Space[Any]:
    return spaces.Discrete(data["n"], start=data["start"])


def _multi_discrete(data: dict[str, Any]) -> Space[Any]:
    return spaces.MultiDiscrete(np.asarray(data["nvec"]), start=np.asarray(data["start"]))


def _multi_binary(data: dict[str, Any]) -> Space[Any]:
    return spaces.MultiBinary(data["n"])


def _dict(data: dict[str, Any]) -> Space[Any]:
    return spaces.Dict([(name, _built(part)) for name, part in data["spaces"]])


_BUILDERS = {
    "Box": _box, "Discrete": _discrete, "MultiDiscrete": _multi_discrete, "MultiBinary": _multi_binary, "Dict": _dict,
}  # fmt: skip


def check_action_space(space: spaces.Space[Any]) -> None:
    """Raise ConfigError, naming the space and what would fit, when no policy here can serve it."""
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        wrong = "is not supported; use Box, Discrete, MultiDiscrete or MultiBinary"
    elif isinstance(space, spaces.Box) and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        wrong = "has no finite bounds; give it finite low and high"
    elif np.any(getattr(space, "start", 0)):
        wrong = "does not count its actions from 0; use start=0"
    elif not isinstance(space, spaces.Box) and len(space.shape or ()) > 1:
        wrong = "has more than one axis; use a flat one"
    else:
        return
    raise ConfigError(f"the action space {' '.join(str(space).split())} {wrong}")
