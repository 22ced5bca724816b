"""The RIM's time loop in C (`csrc/`) as one node of the graph, called through ctypes.

Axes: T time, B batch, K units, S unit size, G gates times S, N input slots, I input size, H input heads, D key size of
one, V value size of one, C communication heads.

For one slot, its key and value come in ready for all steps. For several, the slots themselves come in, and the loop
brings the key map to the queries and the value map to what was read, of which there are fewer than slots: keys and
values of all slots are never made.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rims_rl.cores.grouped import product_over_steps
from rims_rl.cores.loops import refuse_second_derivatives
from rims_rl.cores.native_build import available, library, team

__all__ = ["Shape", "SlotWeights", "Weights", "available", "run", "run_slots"]

_SIZES = (
    "T", "B", "K", "S", "G", "H", "D", "C", "P", "E", "N", "I", "V",
    "active_units", "lstm", "bounded", "keep", "threads", "team",
)  # fmt: skip
_ARRAYS = (
    "keys", "values", "ready", "slots", "key_t", "value", "from_input",
    "from_state", "bias", "bias_hn", "to_message", "from_message", "starts", "h0", "c0",
    "outputs", "h_before", "c_before", "c_last", "queries", "probes", "attention", "read", "attended", "active",
    "gates", "kept", "message_parts", "communication", "messages", "said",
    "from_state_t", "to_message_t", "from_message_t", "from_input_t", "key", "value_t", "d_outputs", "d_h", "d_c",
    "d_products", "d_inputs", "d_attended", "d_read", "d_probes", "d_slots", "d_values", "d_ready", "d_keys", "d_parts",
    "d_messages_out", "d_messages", "d_kept", "d_back", "d_bias",
)  # fmt: skip
_SEQUENTIAL_WORK = 16
"""Steps times sequences below which starting threads of our own costs more than they save."""
_MANY_STEPS, _ENOUGH_SEQUENCES = 4, 3
"""Steps from which on, and sequences of a thread below which, the input's products are made before the loop."""

_INPUTS = ("keys", "values", "ready", "slots")

Arrays = dict[str, Tensor | None]


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


class SlotWeights(NamedTuple):
    """What the loop multiplies several slots with."""

    key: Tensor
    """(I, H*D)."""
    value: Tensor
    """(I, H*V)."""
    weight_ih: Tensor
    """(K, H*V, G)."""


def run(
    shape: Shape,
    weights: Weights,
    weight_ih: Tensor,
    keys: Tensor,
    values: Tensor,
    h: Tensor,
    c: Tensor | None,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the time loop over one slot.

    Args:
        shape: the RIM's sizes.
        weights: its weights.
        weight_ih: the cells' input weights, (K, H*V, G).
        keys: (T, B, H, D).
        values: (T, B, H, V).
        h: (B, K, S).
        c: (B, K, S) for LSTM units.
        starts: (T, B) of bool, or None.

    Returns:
        The states after every step (T, B, K, S), and the last h and c (B, K, S).

    Raises:
        MemoryError: when there is none left for the loop.
    """
    read: Arrays = {"keys": keys, "values": values, "from_input": weight_ih}
    if _hoisting_pays(*keys.shape[:2]):
        read = {"keys": keys, "ready": _hoisted(shape, values, weight_ih)}
    return _run(shape, {**read, **weights._asdict()}, h, c, starts)


def _hoisting_pays(steps: int, batch: int) -> bool:
    """Whether to multiply the values with every unit's input weights before the loop.

    Inside, active units alone need it, but each step reads all weights again, for the few sequences of one thread.
    """
    return steps >= _MANY_STEPS and batch < _ENOUGH_SEQUENCES * _threads(steps, batch)


def _hoisted(shape: Shape, values: Tensor, weight_ih: Tensor) -> Tensor:
    """Return the values' products with every unit's input weights, (H, T, B, K, G)."""
    return torch.einsum("tbhv,khvg->htbkg", values, _by_head(shape, weight_ih))


def run_slots(
    shape: Shape,
    weights: Weights,
    slot_weights: SlotWeights,
    slots: Tensor,
    h: Tensor,
    c: Tensor | None,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the time loop over slots (T, B, N, I); all else is as in `run`."""
    key, value, weight_ih = slot_weights
    read: Arrays = {"slots": slots, "key": key, "value": value, "from_input": weight_ih}
    if _folding_pays(shape, slots, weight_ih):
        read |= {"value": None, "from_input": _folded(shape, value, weight_ih)}
    return _run(shape, {**read, **weights._asdict()}, h, c, starts)


def _folding_pays(shape: Shape, slots: Tensor, weight_ih: Tensor) -> bool:
    """Whether one product of the value map and the input weights costs less than what it saves in the loop."""
    steps, batch, _, size = slots.shape
    units, width, gates = weight_ih.shape
    saved_at_a_step = shape.active_units * (size * width + width * gates - shape.input_heads * size * gates)
    return steps * batch * saved_at_a_step > units * size * width * gates


def _folded(shape: Shape, value: Tensor, weight_ih: Tensor) -> Tensor:
    """Return the cells' input weights as the slots see them, through the value map, (K, H*I, G)."""
    per_head = value.view(len(value), shape.input_heads, -1)
    return torch.einsum("ihv,khvg->khig", per_head, _by_head(shape, weight_ih)).flatten(1, 2)


def _by_head(shape: Shape, weight_ih: Tensor) -> Tensor:
    return weight_ih.view(shape.units, shape.input_heads, -1, shape.gate_size)


def _run(
    shape: Shape, read: Arrays, h: Tensor, c: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    arrays: Arrays = {"h0": h, "c0": c, **read}
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in arrays.values())
    outputs, h_last, c_last = _Loop.apply(shape, keep, starts, tuple(arrays), *arrays.values())  # type: ignore[no-untyped-call]
    return outputs, h_last, c_last if shape.lstm else None


class _Loop(torch.autograd.Function):
    """The loop as one node of the graph: the weights' gradients are one product each over all steps."""

    @staticmethod
    def forward(
        ctx: Any, shape: Shape, keep: bool, starts: Tensor | None, names: tuple[str, ...], *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        dense = (None if tensor is None else tensor.contiguous() for tensor in tensors)
        read: Arrays = dict(zip(names, dense, strict=True))
        first: Arrays = {"h0": read.pop("h0"), "c0": read.pop("c0")}
        first["starts"] = None if starts is None else starts.to(torch.uint8).contiguous()
        sizes, like = _sizes(shape, read, keep), _present(read["from_state"])
        work = _work_arrays(sizes, like)
        if "slots" in read and read["value"] is None:  # what was read goes to the cells as it is
            work["attended"] = work["read"]
        key_t = _transposed(read["key"]) if "key" in read else None
        _call("rim_forward", like.dtype, sizes, {**read, **first, **work, "key_t": key_t})
        outputs, c_last = _present(work.pop("outputs")), work.pop("c_last")
        if keep:  # neither output may be kept here: it would hold the graph that holds it
            kept = {**read, **work, "starts": first["starts"]}
            ctx.save_for_backward(*kept.values())
            ctx.shape, ctx.names, ctx.kept = shape, names, list(kept)
        return outputs, outputs[-1].clone(), outputs.new_empty(0) if c_last is None else c_last

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor, d_h_last: Tensor, d_c_last: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        arrays: Arrays = dict(zip(ctx.kept, ctx.saved_tensors, strict=True))
        sizes = _sizes(ctx.shape, arrays, keep=True)
        arrays["d_outputs"] = d_outputs.contiguous()
        arrays["d_h"] = d_h_last.clone(memory_format=torch.contiguous_format)
        arrays["d_c"] = d_c_last.clone(memory_format=torch.contiguous_format) if ctx.shape.lstm else None
        arrays |= _transposed_weights(arrays) | _backward_arrays(sizes, arrays)
        wanted = dict(zip(ctx.names, ctx.needs_input_grad[4:], strict=True))
        if not wanted.get("slots"):
            arrays["d_slots"] = None
        _call("rim_backward", d_outputs.dtype, sizes, arrays)
        gradients = {**_state_gradients(arrays), **_weight_gradients(ctx.shape, arrays)}
        if "slots" in wanted:
            gradients |= _slot_weight_gradients(ctx.shape, arrays)
        return None, None, None, None, *(gradients.get(name) for name in ctx.names)


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _transposed(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.transpose(-2, -1).contiguous()


def _threads(steps: int, batch: int) -> int:
    return torch.get_num_threads() if team() or steps * batch >= _SEQUENTIAL_WORK else 1


def _sizes(shape: Shape, read: Arrays, keep: bool) -> dict[str, int]:
    slots = read.get("slots")
    steps, batch = _present(read["keys"] if slots is None else slots).shape[:2]
    count, size = (1, 0) if slots is None else slots.shape[2:]
    from_input = read.get("from_input")
    width = 0 if from_input is None else from_input.shape[1] // shape.input_heads
    return {
        "T": steps, "B": batch, "K": shape.units, "S": shape.unit_size, "G": shape.gate_size, "H": shape.input_heads,
        "D": shape.key_size, "C": shape.communication_heads, "P": shape.communication_key_size,
        "E": shape.communication_value_size, "N": count, "I": size, "V": width, "active_units": shape.active_units,
        "lstm": int(shape.lstm), "bounded": int(shape.bounded), "keep": int(keep), "threads": _threads(steps, batch),
        "team": team(),
    }  # fmt: skip


def _call(name: str, dtype: torch.dtype, sizes: dict[str, int], arrays: Arrays) -> None:
    """Call one of the library's two functions.

    Raises:
        MemoryError: when it finds no memory to work in.
    """
    loop = library(dtype)
    assert loop is not None
    packed = _Arrays(**{key: None if tensor is None else tensor.data_ptr() for key, tensor in arrays.items()})
    if getattr(loop, name)(ctypes.byref(_Sizes(**sizes)), ctypes.byref(packed)):
        size = f"{sizes['T']} steps of {sizes['B']} sequences of {sizes['N']} slots"
        raise MemoryError(f"no memory for the RIM's loop over {size}: use fewer sequences, slots or units at a time")


def _work_arrays(sizes: dict[str, int], like: Tensor) -> Arrays:
    """Allocate what the forward pass writes; only the outputs have a time axis when nothing is kept."""
    z, steps, batch, units, size = sizes, sizes["T"], sizes["B"], sizes["K"], sizes["S"]
    widths = {
        "h_before": size, "queries": z["H"] * z["D"], "probes": z["H"] * z["I"], "attention": z["H"] * z["N"],
        "read": z["H"] * z["I"], "attended": z["H"] * z["V"], "gates": (5 if z["lstm"] else 4) * size, "kept": size,
        "message_parts": z["C"] * (2 * z["P"] + z["E"]), "communication": z["C"] * units, "said": size,
        "messages": z["C"] * z["E"], "c_before": size * z["lstm"],
    }  # fmt: skip
    time = steps if z["keep"] else 1
    arrays: Arrays = {name: like.new_empty(time, batch, units, width) for name, width in widths.items()}
    arrays["outputs"] = like.new_empty(steps, batch, units, size)
    arrays["active"] = torch.empty(time, batch, units, dtype=torch.uint8)
    arrays["c_last"] = like.new_empty(batch, units, size) if z["lstm"] else None
    return arrays


def _transposed_weights(arrays: Arrays) -> Arrays:
    """Lay out the weights as the backward pass reads them."""
    names = ("from_state", "to_message", "from_message", "from_input", "value")
    return {f"{name}_t": _transposed(arrays.get(name)) for name in names}


def _backward_arrays(sizes: dict[str, int], arrays: Arrays) -> Arrays:
    """Allocate what the backward pass writes."""
    z, like = sizes, _present(arrays["d_outputs"])
    over_time = {"d_products": z["G"] + z["H"] * z["D"], "d_parts": z["C"] * (2 * z["P"] + z["E"])}
    over_time |= {"d_messages_out": z["S"] if z["C"] else 0, "d_inputs": z["G"], "d_attended": z["H"] * z["V"]}
    of_a_step = {"d_kept": z["S"], "d_back": z["S"], "d_messages": z["C"] * z["E"]}
    found: Arrays = {"d_bias": like.new_zeros(z["threads"], z["K"], z["G"])}
    over_time["d_probes"] = of_a_step["d_read"] = z["H"] * z["I"]
    found |= {f"d_{name}": torch.empty_like(_present(arrays[name])) for name in _INPUTS if name in arrays}
    found |= {name: like.new_empty(z["T"], z["B"], z["K"], width) for name, width in over_time.items()}
    return found | {name: like.new_empty(z["B"], z["K"], width) for name, width in of_a_step.items()}


def _state_gradients(arrays: Arrays) -> Arrays:
    """Return those gradients that the loop writes ready."""
    return {"h0": arrays["d_h"], "c0": arrays["d_c"], **{name: arrays.get(f"d_{name}") for name in _INPUTS}}


def _weight_gradients(shape: Shape, arrays: Arrays) -> Arrays:
    """Return the gradients of `Weights`, each one product over all steps."""
    size, d_products = shape.unit_size, _present(arrays["d_products"])
    found: Arrays = {"from_state": _over_all_steps(arrays["h_before"], d_products)}
    if "from_input" in arrays:
        found["from_input"] = _over_all_steps(arrays["attended"], arrays["d_inputs"])
    found["bias"] = _present(arrays["d_bias"]).sum(0).unsqueeze(1)
    if not shape.lstm:
        found["bias_hn"] = d_products[..., 2 * size : 3 * size].sum((0, 1)).unsqueeze(1)
    if shape.communication_heads:
        found["to_message"] = _over_all_steps(arrays["kept"], arrays["d_parts"])
        found["from_message"] = _over_all_steps(arrays["messages"], arrays["d_messages_out"])
    return found


def _slot_weight_gradients(shape: Shape, arrays: Arrays) -> Arrays:
    """Return the gradients of the maps that units share, summed over active units alone: all that is written."""
    active, found = _present(arrays["active"]).bool(), Arrays()
    names = {"key": ("d_probes", "queries")}
    if arrays["value"] is not None:
        names["value"] = ("read", "d_attended")
    for name, factors in names.items():
        x, y = (_present(arrays[factor])[active].tensor_split(shape.input_heads, dim=1) for factor in factors)
        found[name] = torch.cat([x_h.t() @ y_h for x_h, y_h in zip(x, y, strict=True)], dim=1)  # (I, H*...)
    return found


def _over_all_steps(inputs: Tensor | None, gradients: Tensor | None) -> Tensor:
    return product_over_steps(_present(inputs), _present(gradients))
