"""The loop in three kernels and three matrix products a step, forward and backward: fewer launches on a GPU.

Replayed as a graph, the loop costs about as much as its launches: some sixty a step, forward and backward, when every
operation is PyTorch's own; here twelve. What lies between the products is Triton's (`kernels`), which comes with
PyTorch's builds for GPUs. Where it is missing, or does not give what PyTorch's operations give on a small example, the
loop goes on without, which is said once for a kind of RIM.

The kernels have not been run on a GPU yet: they are tested in Triton's interpreter, and compiled for two kinds of GPUs.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rims_rl.cores import loops
from rims_rl.cores.rim_config import RIMConfig
from rims_rl.cores.unrolled.plan import Buffers, Inputs, Plan, Step, by_step, given, units_first

Compute = Callable[[Plan, Inputs], Sequence[Tensor]]
"""Runs a loop over some inputs, forward and backward: all results."""
_LARGEST_TILE = 4096
"""Numbers that one program of a kernel may hold at once."""
_TOLERANCES = {torch.float32: 3e-3, torch.float64: 1e-9}
"""Of the small example, in the norm; float32 leaves room for products in TF32. Other types run without the kernels."""
_STEPS, _BATCH, _TRIES = 3, 2, 3

_trusted: dict[Hashable, bool] = {}
_lock = threading.Lock()


def serve(config: RIMConfig, slots: int, like: Tensor, compute: Compute) -> bool:
    """Whether the kernels do this RIM's loop, on this device and in this number type, as `compute` without them does.

    On a processor they do it in Triton's interpreter, for tests: with RIMS_RL_LOOP=fused and TRITON_INTERPRET=1.
    """
    if not (_device_fits(like) and loops.allowed("fused") and _fit(config, slots, like)):
        return False
    if torch.compiler.is_compiling():  # which would look into the kernels
        return False
    key = (config, like.dtype, like.device)
    with _lock:
        if key not in _trusted:
            if like.is_cuda and torch.cuda.is_current_stream_capturing():  # by the caller: no time for an example
                return False
            _trusted[key] = _found_right(config, like, compute)
        return _trusted[key]


def _fit(config: RIMConfig, slots: int, like: Tensor) -> bool:
    """Whether the kernels know this RIM: the paper's, with the ablations that leave pieces out, over one slot."""
    is_paper = config.competition == "null" and config.inactive_show == "state" and not config.gated_communication
    widest = max(config.input_key_size, config.communication_key_size, config.communication_value_size)
    tile = max(_wide(config.num_units) * _wide(widest), _wide(config.unit_size))
    return slots == 1 and is_paper and tile <= _LARGEST_TILE and like.dtype in _TOLERANCES


def _device_fits(like: Tensor) -> bool:
    interpreted = os.environ.get("TRITON_INTERPRET", "0") != "0"
    return not interpreted if like.is_cuda else os.environ.get(loops.SWITCH) == "fused"


def _found_right(config: RIMConfig, like: Tensor, compute: Compute) -> bool:
    """Try the kernels on small random examples; whatever goes wrong is said, and the answer is no.

    Rounding may let another unit win, rarely, so that of three examples one has to agree; most often it's the first.

    Raises:
        torch.OutOfMemoryError, torch.AcceleratorError: the device has no room, or has failed for good.
    """
    try:
        with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
            errors = [math.inf]
            while len(errors) <= _TRIES and min(errors) > _TOLERANCES[like.dtype]:
                errors.append(_largest_error(config, like, compute, seed=len(errors)))
        if min(errors) <= _TOLERANCES[like.dtype]:
            return True
        reason = f"they are off by {min(errors):.1g}"
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # of Triton's compiler, its driver or the device: there is no common class
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    logging.getLogger("rims_rl").warning("the RIM's loop runs without fused kernels, slower: %s", reason)
    return False


def _largest_error(config: RIMConfig, like: Tensor, compute: Compute, seed: int) -> float:
    """Return by how much, in the norm, the worst result with kernels is away from that without.

    With and without episode starts, forward and backward, and forward alone, which are kernels of their own.
    """
    inputs = _example(config, like, seed)
    plan = Plan(config, _STEPS, _BATCH, slots=1, keep=True, always_mask=True, fused=False)
    errors = []
    for keep, starts in ((True, inputs.starts), (True, None), (False, inputs.starts)):
        one, given_ = plan._replace(keep=keep), inputs._replace(starts=starts)
        expected, found = compute(one, given_), compute(one._replace(fused=True), given_)
        errors += [_error(*pair) for pair in zip(found, expected, strict=True) if pair[1].numel()]
    return max(errors)


def _error(found: Tensor, expected: Tensor) -> float:
    error = float((found - expected).norm() / expected.norm().clamp(min=1e-6))
    return error if error == error else math.inf


def _example(config: RIMConfig, like: Tensor, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    here: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}  # whatever the defaults are

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, **here).mul_(0.5).to(like.device, like.dtype)

    units, size, gate_size = config.num_units, config.unit_size, config.gates * config.unit_size
    sizes = (_STEPS, _BATCH)
    message, asked = config.message_value_size, 2 * config.message_key_size
    speaks = config.communication
    return Inputs(
        random(*sizes, 1, config.heads, config.input_key_size) if config.input_attention else None,
        random(config.heads, *sizes, units, gate_size),
        None,
        random(_BATCH, units, size),
        random(_BATCH, units, size) if config.cell == "lstm" else None,
        (torch.rand(sizes, generator=generator, **here) < 0.3).to(like.device),
        random(units, size, gate_size + config.query_size) / math.sqrt(size),
        random(units, 1, gate_size),
        random(units, 1, size) if config.cell == "gru" else None,
        random(units, size, asked + message) / math.sqrt(size) if speaks else None,
        random(units, message, size) / math.sqrt(message) if speaks else None,
        None,
    )


# ---------------------------------------------------------------- sizes that kernels are compiled for


def _wide(size: int) -> int:
    """Return the least power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()


def _kernels() -> Any:
    from rims_rl.cores.unrolled import kernels

    return kernels


def on_device(like: Tensor) -> AbstractContextManager[object]:
    """Make a tensor's GPU the current one: Triton launches there."""
    return torch.cuda.device(like.device) if like.is_cuda else nullcontext()


def _wide_type(like: Tensor) -> Any:
    import triton.language as tl

    return tl.float64 if like.dtype == torch.float64 else tl.float32


def _unit_sizes(plan: Plan, like: Tensor) -> dict[str, Any]:
    size = plan.config.unit_size
    return {"units": plan.config.num_units, "size": size, "wide_size": _wide(size), "wide": _wide_type(like)}


def _update_sizes(plan: Plan, inputs: Inputs) -> dict[str, Any]:
    config = plan.config
    return _unit_sizes(plan, inputs.h) | {
        "scale": 1.0 / math.sqrt(config.input_key_size),
        "heads": config.heads,
        "key_size": config.input_key_size,
        "wide_keys": _wide(config.input_key_size),
        "lstm": plan.is_lstm,
        "attends": config.input_attention,
        "speaks": config.communication,
        "has_starts": inputs.starts is not None,
    }


def _message_sizes(plan: Plan, like: Tensor) -> dict[str, Any]:
    config = plan.config
    return {
        "scale": 1.0 / math.sqrt(config.communication_key_size),
        "units": config.num_units,
        "heads": config.communication_heads,
        "key_size": config.communication_key_size,
        "value_size": config.communication_value_size,
        "wide_units": _wide(config.num_units),
        "wide_keys": _wide(config.communication_key_size),
        "wide_values": _wide(config.communication_value_size),
        "wide": _wide_type(like),
    }


def _marks(tensor: Tensor | None, instead: Tensor) -> Tensor:
    """Return booleans as the bytes that kernels read, or something that they do not read."""
    return instead if tensor is None else tensor.contiguous().view(torch.uint8)


def _dense(tensor: Tensor | None, instead: Tensor) -> Tensor:
    return instead if tensor is None else tensor.contiguous()


def _written(plan: Plan, b: Buffers) -> tuple[Tensor, ...]:
    """Return what the update writes and its backward step reads; the states in the place of what is not there."""
    states = b["states"]
    return (
        b["products"],
        states,
        b["cells"] if plan.is_lstm else states,
        b["squashed" if plan.is_lstm else "new"],
        b["attention"] if plan.config.input_attention else states,
        _marks(b["active"], states),
    )


# ---------------------------------------------------------------- forward


def forward_steps(plan: Plan, inputs: Inputs, b: Buffers) -> list[Step]:
    """Prepare the paper's steps, in order."""
    steps = [_recur(plan, inputs, b), _attend_and_update(plan, inputs, b)]
    return steps + ([_listen(plan, inputs, b), _take_up(plan, inputs, b)] if plan.config.communication else [])


def _recur(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    before, products, weight = units_first(b["states"]).unbind(), b["products"], inputs.from_state
    out = by_step(products, plan.steps)

    def step(t: int) -> None:
        torch.bmm(before[t], weight, out=out[t])

    return step


def _attend_and_update(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    config, states = plan.config, b["states"]
    if not config.input_attention:
        b["active"].fill_(True)
    kernel = _kernels().attend_and_update[(plan.batch, config.num_units)]
    tensors = (
        _marks(inputs.starts, states),
        _dense(inputs.keys, states),
        inputs.values.contiguous(),
        inputs.bias.contiguous(),
        _dense(inputs.bias_hn, states),
        *_written(plan, b),
        b["shown"] if config.communication else states,
    )
    sizes = _update_sizes(plan, inputs)
    sizes |= {"winners": config.active_units, "keep": plan.keep, "wide_units": _wide(config.num_units)}

    def step(t: int) -> None:
        kernel(t, *tensors, plan.steps, plan.batch, **sizes)

    return step


def _listen(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    config, weight, parts = plan.config, given(inputs.to_message), b["parts"]
    shown_at, parts_at = by_step(units_first(b["shown"]), plan.steps), by_step(parts, plan.steps)
    kernel = _kernels().listen[(plan.batch, config.communication_heads, config.num_units)]
    tensors = (parts, b["listening"], b["messages"], plan.batch)
    sizes = _message_sizes(plan, inputs.h) | {"keep": plan.keep}

    def step(t: int) -> None:
        torch.bmm(shown_at[t], weight, out=parts_at[t])
        kernel(t, *tensors, **sizes)

    return step


def _take_up(plan: Plan, inputs: Inputs, b: Buffers) -> Step:
    config, weight, said = plan.config, given(inputs.from_message), b["said"]
    messages_at, said_at = by_step(units_first(b["messages"]), plan.steps), by_step(said, plan.steps)
    kernel = _kernels().take_up[(plan.batch, config.num_units)]
    tensors = (said, b["shown"], _marks(b["active"], said), b["states"], plan.batch)
    sizes = _unit_sizes(plan, inputs.h) | {"bounded": config.bounded_messages, "keep": plan.keep}

    def step(t: int) -> None:
        torch.bmm(messages_at[t], weight, out=said_at[t])
        kernel(t, *tensors, **sizes)

    return step


# ---------------------------------------------------------------- backward


def backward_steps(plan: Plan, inputs: Inputs, d_outputs: Tensor, b: Buffers, d: Buffers) -> list[Step]:
    """Prepare the paper's steps, last one first."""
    d_outputs = d_outputs.contiguous()
    steps: list[Step] = []
    if plan.config.communication:
        steps = [_take_up_backward(plan, inputs, d_outputs, b, d), _listen_backward(plan, inputs, b, d)]
    return [*steps, _update_backward(plan, inputs, d_outputs, b, d), _recur_backward(inputs, d)]


def _take_up_backward(plan: Plan, inputs: Inputs, d_outputs: Tensor, b: Buffers, d: Buffers) -> Step:
    config, weight = plan.config, given(inputs.from_message).mT
    d_said, d_messages = units_first(d["said"]).unbind(), d["messages"].transpose(0, 1)
    kernel = _kernels().take_up_backward[(plan.batch, config.num_units)]
    marks = (_marks(inputs.starts, d_outputs), d_outputs, b["said"], _marks(b["active"], d_outputs))
    tensors = (*marks, d["h"], d["said"], plan.steps, plan.batch)
    sizes = _unit_sizes(plan, inputs.h)
    sizes |= {"bounded": config.bounded_messages, "has_starts": inputs.starts is not None}

    def step(t: int) -> None:
        kernel(t, *tensors, **sizes)
        torch.bmm(d_said[t], weight, out=d_messages)

    return step


def _listen_backward(plan: Plan, inputs: Inputs, b: Buffers, d: Buffers) -> Step:
    config, weight, d_h = plan.config, given(inputs.to_message).mT, d["h"]
    d_parts = units_first(d["parts"]).unbind()
    kernel = _kernels().listen_backward[(plan.batch, config.communication_heads, config.num_units)]
    tensors = (b["parts"], b["listening"], b["messages"], d["messages"], d["parts"], plan.batch)
    sizes = _message_sizes(plan, inputs.h)

    def step(t: int) -> None:
        kernel(t, *tensors, **sizes)
        d_h.baddbmm_(d_parts[t], weight)  # from here on that of the state before communication

    return step


def _update_backward(plan: Plan, inputs: Inputs, d_outputs: Tensor, b: Buffers, d: Buffers) -> Step:
    config, states = plan.config, b["states"]
    kernel = _kernels().update_backward[(plan.batch, config.num_units)]
    tensors = (
        _marks(inputs.starts, states),
        _dense(inputs.keys, states),
        inputs.values.contiguous(),
        *_written(plan, b),
        d_outputs,
        d["h"],
        d["c"] if plan.is_lstm else states,
        d["products"],
        d["incoming"],
        d["scores"] if config.input_attention else states,
    )
    sizes = _update_sizes(plan, inputs)

    def step(t: int) -> None:
        kernel(t, *tensors, plan.steps, plan.batch, **sizes)

    return step


def _recur_backward(inputs: Inputs, d: Buffers) -> Step:
    d_h, d_products, weight = d["h"], units_first(d["products"]).unbind(), inputs.from_state.mT
    first = None if inputs.starts is None else inputs.starts[0][None, :, None]

    def step(t: int) -> None:
        d_h.baddbmm_(d_products[t], weight)
        if t == 0 and first is not None:
            d_h.masked_fill_(first, 0.0)

    return step
