"""The RIM's time loop in C (`native.c`): compiled once by the machine's own compiler, kept, and called through ctypes.

Where there is no compiler, or it fails, the eager path in `rim.py` serves instead, and the log says so once. Setting
the environment variable RIMS_RL_NATIVE to 0 switches the loop off.
Axes: T time, B batch, K units, S unit size, G gates times S, H input heads, D key size, C communication heads.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SOURCE = Path(__file__).with_name("native.c")
_FLAGS = ("-O3", "-march=native", "-fPIC", "-shared", "-pthread")
_REALS = {torch.float32: ("-DREAL=float", "-DREAL_IS_FLOAT"), torch.float64: ("-DREAL=double",)}
_SWITCH = "RIMS_RL_NATIVE"
_SIZES = ("T", "B", "K", "S", "G", "H", "D", "C", "P", "E", "active_units", "lstm", "bounded", "keep", "threads")
_ARRAYS = (
    "keys", "values", "from_state", "bias", "bias_hn", "to_message", "from_message", "starts", "h0", "c0",
    "outputs", "h_before", "c_before", "c_last", "queries", "attention", "active", "gates", "kept", "message_parts",
    "communication", "messages", "said",
    "from_state_t", "to_message_t", "from_message_t", "d_outputs", "d_h", "d_c", "d_products", "d_values", "d_keys",
    "d_parts", "d_messages_out", "d_bias",
)  # fmt: skip
_SEQUENTIAL_WORK = 16
"""Steps times sequences below which starting threads costs more than they save."""


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in _SIZES]


class _Arrays(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _ARRAYS]


class Shape(NamedTuple):
    """The sizes of a RIM that do not change from call to call."""

    units: int
    unit_size: int
    input_heads: int
    key_size: int
    communication_heads: int
    communication_key_size: int
    communication_value_size: int
    active_units: int
    lstm: bool
    bounded: bool

    @property
    def gate_size(self) -> int:
        """Width of the gates, G."""
        return (4 if self.lstm else 3) * self.unit_size

    @property
    def part_size(self) -> int:
        """Width of one unit's queries, keys and values of the communication."""
        return self.communication_heads * (2 * self.communication_key_size + self.communication_value_size)


class Weights(NamedTuple):
    """What the loop multiplies with; None where the configuration has no such piece."""

    from_state: Tensor
    """(K, S, G + H*D)."""
    bias: Tensor
    """(K, 1, G)."""
    bias_hn: Tensor | None
    """(K, 1, S)."""
    to_message: Tensor | None
    """(K, S, queries | keys | values)."""
    from_message: Tensor | None
    """(K, values, S)."""


def available(dtype: torch.dtype) -> bool:
    """Whether the compiled loop can be used for tensors of this type."""
    return dtype in _REALS and os.environ.get(_SWITCH, "1") != "0" and _library(dtype) is not None


@contextmanager
def switched_off() -> Iterator[None]:
    """Do without the compiled loop inside this context."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled loop, or None, said once, when it cannot be had."""
    try:
        return ctypes.CDLL(str(_compiled(dtype)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(getattr(error, "stderr", None) or error).split())[:300]
        logging.getLogger("rims_rl").warning("the RIM runs without its compiled loop, some 3 times slower: %s", reason)
        return None


def _compiled(dtype: torch.dtype) -> Path:
    """Return the path of the compiled library, which is made when it is not in the cache yet."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("no C compiler (cc, gcc or clang) was found")
    command = [*shlex.split(compiler), *_FLAGS, *_REALS[dtype]]  # CC may be several words, such as "ccache gcc"
    text = SOURCE.read_bytes() + " ".join([*command, platform.machine(), _processor()]).encode()
    target = _cache_folder() / f"rim-{hashlib.sha256(text).hexdigest()[:20]}.so"
    if not target.exists():
        _compile(command, target)
    return target


def _compile(command: list[str], target: Path) -> None:
    """Compile beside the target and move it into place, so that no other process ever loads half a library."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        subprocess.run(
            [*command, str(SOURCE), "-o", str(made), "-lm"], check=True, capture_output=True, text=True, timeout=120
        )
        os.replace(made, target)


def _cache_folder() -> Path:
    """Return a folder of this user's for compiled code: XDG's cache, or a private temporary one when that is closed."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rims_rl"
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(base, os.W_OK):
            return base
    except (OSError, RuntimeError):  # RuntimeError: nobody knows this user's home
        pass
    return Path(tempfile.mkdtemp(prefix="rims_rl-"))


def _processor() -> str:
    """Return what tells this processor from others, because the code is compiled for it alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor()


def run(
    shape: Shape, weights: Weights, keys: Tensor, values: Tensor, h: Tensor, c: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the time loop.

    Args:
        shape: the RIM's sizes.
        weights: its weights.
        keys: (T, B, H, D).
        values: (H, T, B, K, G), the values' products with the input weights.
        h: (B, K, S).
        c: (B, K, S) for LSTM units.
        starts: (T, B) of bool, or None.

    Returns:
        The states after every step (T, B, K, S), and the last h and c (B, K, S).
    """
    read = (keys, values, h, c, *weights)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in read)
    outputs, h_last, c_last = _Loop.apply(shape, keep, keys, values, h, c, starts, *weights)  # type: ignore[no-untyped-call]
    return outputs, h_last, c_last if shape.lstm else None


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _call(name: str, dtype: torch.dtype, sizes: dict[str, int], arrays: dict[str, Tensor | None]) -> None:
    library = _library(dtype)
    assert library is not None
    packed = _Arrays(**{key: _pointer(tensor) for key, tensor in arrays.items()})
    getattr(library, name)(ctypes.byref(_Sizes(**sizes)), ctypes.byref(packed))


def _sizes(shape: Shape, steps: int, batch: int, keep: bool) -> dict[str, int]:
    threads = 1 if steps * batch < _SEQUENTIAL_WORK else torch.get_num_threads()
    return {
        "T": steps, "B": batch, "K": shape.units, "S": shape.unit_size, "G": shape.gate_size, "H": shape.input_heads,
        "D": shape.key_size, "C": shape.communication_heads, "P": shape.communication_key_size,
        "E": shape.communication_value_size, "active_units": shape.active_units, "lstm": int(shape.lstm),
        "bounded": int(shape.bounded), "keep": int(keep), "threads": threads,
    }  # fmt: skip


def _work_arrays(shape: Shape, steps: int, batch: int, keep: bool, like: Tensor) -> dict[str, Tensor | None]:
    """Allocate what the forward pass writes; only the outputs have a time axis when nothing is kept."""
    time, units, size = steps if keep else 1, shape.units, shape.unit_size
    widths = {
        "h_before": size, "queries": shape.input_heads * shape.key_size, "attention": shape.input_heads,
        "gates": (5 if shape.lstm else 4) * size, "kept": size, "message_parts": shape.part_size,
        "communication": shape.communication_heads * units, "said": size,
        "messages": shape.communication_heads * shape.communication_value_size,
    }  # fmt: skip
    arrays: dict[str, Tensor | None] = {
        name: like.new_empty(time, batch, units, width) for name, width in widths.items()
    }
    arrays["outputs"] = like.new_empty(steps, batch, units, size)
    arrays["active"] = torch.empty(time, batch, units, dtype=torch.uint8)
    arrays["c_before"] = like.new_empty(time, batch, units, size) if shape.lstm else None
    arrays["c_last"] = like.new_empty(batch, units, size) if shape.lstm else None
    return arrays


class _Loop(torch.autograd.Function):
    """The loop as one node of the graph: the weights' gradients are one product each over all steps."""

    @staticmethod
    def forward(
        ctx: Any, shape: Shape, keep: bool, keys: Tensor, values: Tensor, h: Tensor, c: Tensor | None,
        starts: Tensor | None, *weights: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        steps, batch = keys.shape[:2]
        read = {"keys": keys, "values": values, **dict(zip(Weights._fields, weights, strict=True))}
        read = {name: None if tensor is None else tensor.contiguous() for name, tensor in read.items()}
        starts = None if starts is None else starts.to(torch.uint8).contiguous()
        first = {"h0": h.contiguous(), "c0": None if c is None else c.contiguous(), "starts": starts}
        work = _work_arrays(shape, steps, batch, keep, keys)
        _call("rim_forward", keys.dtype, _sizes(shape, steps, batch, keep), {**read, **first, **work})
        outputs, c_last = work.pop("outputs"), work.pop("c_last")
        if keep:  # neither output may be kept here: it would hold the graph that holds it
            ctx.save_for_backward(*read.values())
            ctx.shape, ctx.names, ctx.work = shape, list(read), {**work, "starts": starts}
        assert outputs is not None
        return outputs, outputs[-1].clone(), outputs.new_empty(0) if c_last is None else c_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_h_last: Tensor, d_c_last: Tensor) -> tuple[Tensor | None, ...]:
        shape, arrays = ctx.shape, {**dict(zip(ctx.names, ctx.saved_tensors, strict=True)), **ctx.work}
        steps, batch = d_outputs.shape[:2]
        sizes = _sizes(shape, steps, batch, keep=True)
        arrays |= _backward_arrays(shape, arrays, d_outputs, sizes["threads"])
        arrays["d_h"] = d_h_last.clone(memory_format=torch.contiguous_format)
        arrays["d_c"] = d_c_last.clone(memory_format=torch.contiguous_format) if shape.lstm else None
        _call("rim_backward", d_outputs.dtype, sizes, arrays)
        gradients = _weight_gradients(shape, arrays)
        return None, None, arrays["d_keys"], arrays["d_values"], arrays["d_h"], arrays["d_c"], None, *gradients


def _backward_arrays(
    shape: Shape, arrays: dict[str, Tensor], d_outputs: Tensor, threads: int
) -> dict[str, Tensor | None]:
    """Allocate what the backward pass writes, and lay out the weights as it reads them."""
    steps, batch, units, size = d_outputs.shape
    products = shape.gate_size + shape.input_heads * shape.key_size
    speaks = shape.communication_heads > 0
    transposed = {name: arrays[name].transpose(1, 2).contiguous() for name in _stacks(shape)}
    return {
        "d_outputs": d_outputs.contiguous(),
        "d_products": d_outputs.new_empty(steps, batch, units, products),
        "d_values": torch.empty_like(arrays["values"]),
        "d_keys": torch.empty_like(arrays["keys"]),
        "d_parts": d_outputs.new_empty(steps, batch, units, shape.part_size) if speaks else None,
        "d_messages_out": d_outputs.new_empty(steps, batch, units, size) if speaks else None,
        "d_bias": d_outputs.new_zeros(threads, units, shape.gate_size),
        **{f"{name}_t": tensor for name, tensor in transposed.items()},
    }


def _stacks(shape: Shape) -> tuple[str, ...]:
    return ("from_state", "to_message", "from_message") if shape.communication_heads else ("from_state",)


def _weight_gradients(shape: Shape, arrays: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients in the order of `Weights`, each one product over all steps."""
    size = shape.unit_size
    d_from_state = _over_all_steps(arrays["h_before"], arrays["d_products"])
    d_bias = arrays["d_bias"].sum(0).unsqueeze(1)
    d_bias_hn = None
    if not shape.lstm:
        d_bias_hn = arrays["d_products"][..., 2 * size : 3 * size].sum((0, 1)).unsqueeze(1)
    if not shape.communication_heads:
        return d_from_state, d_bias, d_bias_hn, None, None
    d_to_message = _over_all_steps(arrays["kept"], arrays["d_parts"])
    d_from_message = _over_all_steps(arrays["messages"], arrays["d_messages_out"])
    return d_from_state, d_bias, d_bias_hn, d_to_message, d_from_message


def _over_all_steps(inputs: Tensor, gradients: Tensor) -> Tensor:
    """Sum the outer products of inputs (T, B, K, X) and gradients (T, B, K, Y) over time and batch, (K, X, Y)."""
    x, y = inputs.flatten(0, 1).permute(1, 2, 0), gradients.flatten(0, 1).transpose(0, 1)
    return torch.bmm(x, y)
