"""Nested Python values as JSON plus tensors, and back, bit for bit and without pickle.

A tree is built of None, booleans, whole numbers of any size, floats, texts, lists, tuples, dictionaries, NumPy arrays
and scalars, and tensors. `pack` replaces arrays and tensors by their names in a flat dictionary; `unpack` puts them
back.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rims_rl.errors import CheckpointError

_MARK = "$"


def pack(value: Any, name: str, tensors: MutableMapping[str, Tensor]) -> Any:
    """Return `value` as JSON-safe data; copies of its arrays and tensors go to `tensors`, named after `name`.

    Raises:
        CheckpointError: for a value of any other kind; the message says where it lies.
    """
    if isinstance(value, np.generic):
        return {"$scalar": _store(_to_tensor(np.asarray(value), name), name, tensors)}
    if isinstance(value, Tensor):
        return {"$tensor": _store(value.detach().cpu().clone(), name, tensors)}
    if isinstance(value, np.ndarray):
        return {"$array": _store(_to_tensor(value, name), name, tensors)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        items = [pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        return _pack_mapping(value, name, tensors)
    raise CheckpointError(f"{name} cannot be stored: {type(value).__name__} is not plain data, an array or a tensor")


def _pack_mapping(value: Mapping[Any, Any], name: str, tensors: MutableMapping[str, Tensor]) -> Any:
    """Keep a mapping as it is where JSON can, else as a list of pairs (optimizers count their parameters by number)."""
    if all(isinstance(key, str) and not key.startswith(_MARK) for key in value):
        return {key: pack(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if all(type(key) in (int, str, bool, float) for key in value):
        return {"$pairs": [[key, pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    raise CheckpointError(f"{name} cannot be stored: its keys must be texts or numbers")


def _to_tensor(array: np.ndarray, name: str) -> Tensor:
    """Return a copy of an array as a tensor, in the machine's byte order."""
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True))
    except TypeError:
        raise CheckpointError(f"{name} cannot be stored: an array of type {array.dtype} is not numbers") from None


def _store(tensor: Tensor, name: str, tensors: MutableMapping[str, Tensor]) -> str:
    """Put a tensor under a name of its own, and return that name."""
    while name in tensors:
        name += "'"
    tensors[name] = tensor
    return name


def unpack(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `pack` turned into `data`; arrays are copies, tensors lie on the CPU.

    Raises:
        CheckpointError: when `data` names a tensor that is not there, or has an unknown mark.
    """
    if isinstance(data, list):
        return [unpack(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) == 1 and next(iter(data)).startswith(_MARK):
        return _unpack_marked(*next(iter(data.items())), tensors)
    return {key: unpack(item, tensors) for key, item in data.items()}


def _unpack_marked(mark: str, content: Any, tensors: Mapping[str, Tensor]) -> Any:
    if mark == "$tuple":
        return tuple(unpack(item, tensors) for item in content)
    if mark == "$pairs":
        return {key: unpack(item, tensors) for key, item in content}
    if mark not in ("$scalar", "$array", "$tensor") or not isinstance(content, str) or content not in tensors:
        raise CheckpointError(f"a stored value is damaged: {mark} {str(content)[:80]!r} is not in the file")
    tensor = tensors[content].clone()
    if mark == "$tensor":
        return tensor
    array = tensor.numpy()
    return array[()] if mark == "$scalar" else array
