"""Nested Python values as JSON plus tensors, and back, bit for bit and without pickle.

A tree is built of None, booleans, whole numbers of any size, floats, texts, lists, tuples, dictionaries, NumPy arrays
and scalars, and tensors. `pack` replaces arrays and tensors by their names in a flat dictionary; `unpack` puts them
back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rims_rl.errors import CheckpointError, said, shortened

_MARK = "$"
_MOST_PAIRS, _LARGEST_KEY = 10_000, 2**31


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
        CheckpointError: when `data` is not what `pack` makes, names a tensor that is not there or of a kind that NumPy
            lacks, or asks for more bytes than the tensors have: one tensor under a million names.
    """
    try:
        return _Unpacking(tensors).value(data)
    except RecursionError:
        raise CheckpointError("a stored value is damaged: it is nested too deep") from None


class _Unpacking:
    """One pass over a tree, which copies at most as many bytes as the tensors have."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        by_place = {tensor.data_ptr(): tensor.nbytes for tensor in tensors.values() if tensor.nbytes}
        self._bytes_left = sum(by_place.values())

    def value(self, data: Any) -> Any:
        """Return what a part of the tree stands for."""
        if isinstance(data, list):
            return [self.value(item) for item in data]
        if not isinstance(data, dict):
            return data
        if len(data) == 1 and str(next(iter(data))).startswith(_MARK):
            return self._marked(*next(iter(data.items())))
        return {key: self.value(item) for key, item in data.items()}

    def _marked(self, mark: str, content: Any) -> Any:
        try:
            if mark == "$tuple":
                return tuple(self._items(content))
            if mark == "$pairs":
                return {_checked_key(key): self.value(item) for key, item in _pairs(content)}
            return self._stored(mark, content)
        except (TypeError, ValueError) as error:  # not a list of pairs, a key that is a list, a type that NumPy lacks
            raise CheckpointError(f"a stored value is damaged: {mark} {shortened(content)} ({said(error)})") from None

    def _items(self, content: Any) -> Iterator[Any]:
        return (self.value(item) for item in _listed(content))

    def _stored(self, mark: str, name: Any) -> Any:
        """Return a copy of a tensor as what the mark says."""
        if mark not in ("$scalar", "$array", "$tensor") or not isinstance(name, str) or name not in self._tensors:
            raise CheckpointError(f"a stored value is damaged: {mark} {shortened(name)} is not in the file")
        tensor = self._tensors[name]
        self._bytes_left -= tensor.nbytes
        if self._bytes_left < 0:
            raise CheckpointError(f"a stored value is damaged: {shortened(name)} is used more than once")
        if mark == "$tensor":
            return tensor.clone()
        array = tensor.clone().numpy()
        return array[()] if mark == "$scalar" else array


def _pairs(content: Any) -> list[Any]:
    """Return pairs as they are; ValueError for more than any state holds."""
    if len(_listed(content)) > _MOST_PAIRS:
        raise ValueError(f"more than {_MOST_PAIRS:,} pairs")
    return _listed(content)


def _checked_key(key: Any) -> Any:
    """Return a key as it is; ValueError for a large number: thousands of them can be chosen to share one hash."""
    if not isinstance(key, str) and abs(key) >= _LARGEST_KEY:
        raise ValueError(f"the key {shortened(key)}")
    return key


def _listed(content: Any) -> list[Any]:
    """Return a list as it is; TypeError for anything else."""
    if not isinstance(content, list):
        raise TypeError("expected a list")
    return content
