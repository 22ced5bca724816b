"""What a stranger could put into a file: bytes and values of every kind, and mutations of good ones."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., None])


def fuzzed(examples: int) -> Callable[[Test], Test]:
    """Call a test with so many `Mischief`s as `by`, always the same ones."""
    tried = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    every = given(by=st.integers(0, 2**32 - 1).map(Mischief))

    def decorate(test: Test) -> Test:
        decorated: Test = tried(every(test))
        return decorated

    return decorate


def nested(depth: int) -> Any:
    """Return an empty list in a list in a list ..."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


NUMBERS = [
    0, 1, -1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**53 + 1, 2**62, 2**63, 2**64, -(2**63), 10**9, 10**18, 10**30,
    10**400, 0.0, -0.0, 0.5, 1.5, -1.5, 1e-320, 1e30, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
TEXTS = [
    "", " ", "\0", "\n", "a", "0", "-1", "1e999", "nan", "None", "$tensor", "$", "é", "\ud800", "[/]", "[bold]", "%s",
    "x" * 5_000, "../../outside", "outside", "/dev/zero", "~nobody/x", "rims_canary:Evil-v0", "rims_canary",
    "os.system", "__import__('rims_canary')", "!!python/object/apply:os.system [x]", "{0.__class__}",
    "\x1b]0;x\x07\x1b[2J",
]  # fmt: skip
MARKS = ["$tensor", "$array", "$scalar", "$tuple", "$pairs", "$x"]
DTYPES = [
    torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16, torch.float8_e4m3fn,
    torch.complex64, torch.int8, torch.uint32,
]  # fmt: skip
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (3,), (2, 3), (0, 7), (1, 1, 1), (1_000,)]


class Mischief:
    """A source of hostile values that depends on its seed alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)

    def __repr__(self) -> str:
        return f"Mischief({self.seed})"

    def one_of(self, options: list[T]) -> T:
        """Return one of some values."""
        return self.random.choice(options)

    def small(self) -> Any:
        """Return a value without parts."""
        return self.one_of([self.one_of(NUMBERS), self.one_of(TEXTS), None, True, False])

    def junk(self) -> Any:
        """Return a JSON value of any kind."""
        match self.random.randrange(6):
            case 0:
                return self.one_of([[], {}, [[]], [None], {"": None}, {"a": {"b": []}}, nested(50), nested(300)])
            case 1:
                return [self.small() for _ in range(self.random.randrange(4))]
            case 2:
                return {self.one_of(TEXTS): self.small() for _ in range(self.random.randrange(4))}
            case 3:
                return {self.one_of(MARKS): self.small()}
            case _:
                return self.small()

    def json(self, good: T, most: int = 3) -> T:
        """Return a value that differs from a good one in a few places: other values, missing keys, new ones."""
        value: Any = copy.deepcopy(good)
        for _ in range(self.random.randint(1, most)):
            places = _places(value)
            if not places:
                return self.junk()  # type: ignore[no-any-return]
            self._change(*self.one_of(places), places)
        return value  # type: ignore[no-any-return]

    def _change(self, holder: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
        how = self.one_of(["replace", "replace", "replace", "delete", "add", "swap", "nudge"])
        if how == "delete":
            del holder[key]
        elif how == "add" and isinstance(holder, dict):
            holder[self.one_of(TEXTS)] = self.junk()
        elif how == "swap":
            other, there = self.one_of(places)
            holder[key] = copy.deepcopy(other[there])
        elif how == "nudge" and isinstance(holder[key], int | float):
            holder[key] = holder[key] * self.one_of([-1, 1, 2, 1_000, 10**9]) + self.one_of([-2, -1, 0, 1])
        else:
            holder[key] = self.junk()

    def bytes(self, good: bytes) -> bytes:
        """Return bytes that differ from good ones: flipped bits, pieces cut, inserted, removed, overwritten, noise."""
        content = bytearray(good)
        for _ in range(self.random.randint(1, 3)):
            place = self.random.randrange(max(len(content), 1))
            match self.one_of(["flip", "flip", "flip", "cut", "insert", "remove", "number", "repeat", "noise"]):
                case "flip":
                    for _ in range(self.one_of([1, 1, 8]) if content else 0):
                        content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
                case "cut":
                    del content[place:]
                case "insert":
                    content[place:place] = self.random.randbytes(self.random.randrange(20))
                case "remove":
                    del content[place : place + self.random.randint(1, 50)]
                case "number":
                    number = self.one_of([0, 1, 2**16, 2**31 - 1, 2**32 - 1])
                    content[place : place + 4] = struct.pack("<I", number)
                case "repeat":
                    content[place:place] = content[place : place + 200] * self.random.randint(1, 5)
                case _:
                    content[place:] = self.random.randbytes(self.random.randrange(100))
        return bytes(content)

    def tensor(self) -> Tensor:
        """Return a small tensor of any type whose numbers are all the same."""
        dtype = self.one_of(DTYPES)
        value = self.one_of([0.0, 1.0, 100.0, float("nan"), float("inf")] if dtype.is_floating_point else [0.0, 1.0])
        return torch.full(self.one_of(SHAPES), value).to(dtype)

    def tensors(self, good: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by name that differ from good ones in at most two: shape, type, values, name, or gone."""
        tensors, names = dict(good), sorted(good)
        for _ in range(self.random.randrange(3)):
            name = self.one_of(names)
            match self.one_of(["other", "short", "long", "fill", "drop", "rename", "alias"]):
                case "other":
                    tensors[name] = self.tensor()
                case "short":
                    tensors[name] = good[name].flatten()[:1].clone()
                case "long":
                    tensors[name] = torch.cat([good[name].flatten()] * 2)
                case "fill":
                    tensors[name] = torch.full_like(good[name], self.one_of([0, 1, 127]))
                case "drop":
                    tensors.pop(name, None)
                case "rename":
                    tensors[name + "'"] = tensors.pop(name, good[name])
                case _:
                    tensors[name] = good[self.one_of(names)]
        return tensors


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Return every container in a JSON value with every key or index in it; long lists by their first items alone."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = list(range(min(len(value), 10)))
    else:
        return []
    inner = [place for key in keys for place in _places(value[key], depth + 1)] if depth < 40 else []
    return [(value, key) for key in keys] + inner
