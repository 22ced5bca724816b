"""The loop over time, forward and backward, as one node of the graph."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from rims_rl.cores import graphs
from rims_rl.cores.base import steps_with_resets
from rims_rl.cores.grouped import product_over_steps
from rims_rl.cores.loops import refuse_second_derivatives
from rims_rl.cores.rim_config import RIMConfig
from rims_rl.cores.unrolled import attention, communication, fused, units
from rims_rl.cores.unrolled.plan import Buffers, Inputs, Plan, Step, Views, forward_buffers, given, kept_names


def run(config: RIMConfig, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the time loop.

    Args:
        config: the RIM's settings.
        inputs: what the loop reads, hoisted out of it where it does not depend on the state.

    Returns:
        The states after every step (T, B, K, S), and the last h and c (B, K, S).
    """
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    several = inputs.weight_ih is not None
    steps, batch = inputs.values.shape[:2] if several else inputs.values.shape[1:3]
    slots = inputs.values.shape[2] if several else 1
    by_kernels = fused.serve(config, slots, inputs.values, _forward_and_backward)
    plan = Plan(config, steps, batch, slots, keep, graphs.serve(inputs.values.device), by_kernels)
    outputs, h, c = _Loop.apply(plan, *inputs)  # type: ignore[no-untyped-call]
    return outputs, h, c if plan.is_lstm else None


def _forward_and_backward(plan: Plan, inputs: Inputs) -> tuple[Tensor, ...]:
    """Return the outputs and the last c, and, if a backward pass shall come, the gradients of their squares."""
    outputs, c, *kept = _forward(plan, *inputs)
    if not plan.keep:
        return outputs, c
    return outputs, c, *_backward(plan, *inputs, *kept, outputs, outputs[-1], c)


class _Loop(torch.autograd.Function):
    """Forward and backward by hand: inside the loops nothing is recorded, and weights' gradients wait for their end."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *inputs: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        outputs, c, *kept = graphs.call(("forward", plan), partial(_forward, plan), inputs)
        if plan.keep:  # an output may not be among them: it would hold the graph that holds it
            ctx.save_for_backward(*inputs, *kept)
            ctx.plan = plan
        return outputs, outputs[-1].clone(), c

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        saved, name = ctx.saved_tensors, ("backward", ctx.plan)
        with torch.autocast(d_outputs.device.type, enabled=False):
            found = graphs.call(name, partial(_backward, ctx.plan), (*saved, d_outputs, d_h, d_c))
        gradients, fields = iter(found), zip(Inputs._fields, saved, strict=False)
        return None, *(None if name == "starts" or tensor is None else next(gradients) for name, tensor in fields)


# ---------------------------------------------------------------- forward


def _forward(plan: Plan, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Run over all steps: the outputs (T, B, K, S), the last c (B, K, S; empty for GRU units), and what was kept."""
    inputs = Inputs(*tensors)  # type: ignore[arg-type]
    kept = forward_buffers(plan, inputs.values)
    kept["states"][0] = inputs.h
    if inputs.c is not None:
        kept["cells"][0] = inputs.c
    if plan.fused:
        steps = fused.forward_steps(plan, inputs, kept)
    else:
        steps = _forward_steps(plan, inputs, {**kept, **_forward_scratch(plan, inputs.values)})
    with fused.on_device(inputs.values):
        for t in range(plan.steps):
            for step in steps:
                step(t)
    outputs, c = kept["states"][1:], kept["cells"][-1] if plan.is_lstm else inputs.h.new_empty(0)
    if not plan.keep:
        return outputs, c
    return outputs.clone(), c.clone(), *kept.values()  # what is kept must not change when a caller writes to an output


def _forward_scratch(plan: Plan, like: Tensor) -> Buffers:
    """Allocate what a later step of the same time reads and nobody else."""
    config, batch, units, size = plan.config, plan.batch, plan.config.num_units, plan.config.unit_size
    names = ("candidate", "kept", "fresh_states", "fresh_cells")
    scratch = {name: like.new_empty(units, batch, size) for name in names}
    rows = plan.slots + (1 if plan.by_null_row else 0)
    scratch["scores"] = like.new_empty(config.heads, batch, units, rows)
    scratch["unread"] = like.new_empty(batch, units)
    scratch["incoming"] = like.new_empty(units, batch, plan.gate_size)
    return scratch


def _forward_steps(plan: Plan, inputs: Inputs, b: Buffers) -> list[Step]:
    """Prepare the paper's steps, in order."""
    resets = _resets(plan, inputs.starts)
    v = units.shared_views(plan, b, resets)
    steps = [units.forget(inputs, b, resets)] if any(resets) else []
    steps += [units.recur(plan, inputs, b, v), *_attention_steps(plan, inputs, b, v)]
    steps += [(units.lstm if plan.is_lstm else units.gru)(plan, b, v), units.keep_inactive(v)]
    if plan.config.communication:
        take_up = communication.take_up_gated if plan.config.gated_communication else communication.take_up
        steps += [communication.listen(plan, inputs, b), take_up(plan, inputs, b, v)]
    return steps


def _attention_steps(plan: Plan, inputs: Inputs, b: Buffers, v: Views) -> list[Step]:
    if not plan.config.input_attention:
        b["active"].fill_(True)
        return [attention.read_all(plan, inputs, b)]
    share = attention.share_with_null if plan.by_null_row else attention.share_between_units
    read = attention.read_slot if plan.slots == 1 else attention.read_slots
    return [attention.score(plan, inputs, b), share(plan, b, v), attention.select(plan, b, v), read(plan, inputs, b)]


def _resets(plan: Plan, starts: Tensor | None) -> list[bool]:
    """Return for every step whether episode starts are applied there."""
    if starts is None or not plan.always_mask:
        return steps_with_resets(starts, plan.steps)
    return [True] * plan.steps


# ---------------------------------------------------------------- backward


def _backward(plan: Plan, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Run over all steps in reverse: the gradients of the inputs that are there, in order."""
    count = len(Inputs._fields)
    inputs = Inputs(*tensors[:count])  # type: ignore[arg-type]
    *kept, d_outputs, d_h, d_c = (given(tensor) for tensor in tensors[count:])
    b = dict(zip(kept_names(plan), kept, strict=True))
    d = _gradient_buffers(plan, inputs.values)
    if plan.is_lstm:
        d["c"].copy_(d_c.transpose(0, 1))
    if plan.fused:
        d["h"].copy_(d_h.transpose(0, 1))
        steps = fused.backward_steps(plan, inputs, d_outputs, b, d)
    else:
        torch.add(d_outputs[-1].transpose(0, 1), d_h.transpose(0, 1), out=d["h"])
        steps = _backward_steps(plan, inputs, d_outputs, b, d)
    with fused.on_device(inputs.values):
        for t in reversed(range(plan.steps)):
            for step in steps:
                step(t)
    gradients = _gradients(plan, inputs, b, d)
    return tuple(gradients[name] for name in Inputs._fields if name in gradients)


def _gradient_buffers(plan: Plan, like: Tensor) -> Buffers:
    """Allocate the gradients: of all steps where a later product gathers them, of one step otherwise."""
    config, time, batch = plan.config, plan.steps, plan.batch
    units_, size, heads = config.num_units, config.unit_size, config.heads
    shapes: dict[str, tuple[int, ...]] = {"h": (units_, batch, size)}
    shapes["products"] = (time, batch, units_, plan.gate_size + config.query_size)
    if plan.is_lstm:
        shapes["c"] = (units_, batch, size)
    else:
        shapes["incoming"] = (time, batch, units_, plan.gate_size)
    if config.input_attention:
        shapes["attention"] = (0 if plan.fused else heads, batch, units_, plan.slots)
        shapes["scores"] = (time, heads, batch, units_, plan.slots)
    if plan.slots > 1:
        shapes["attended"] = (time, units_, batch, config.value_size)
    d = {name: like.new_empty(shape) for name, shape in shapes.items()}
    if plan.fused:  # which lie as the states do
        d |= {name: _units_within(d[name]) for name in ("h", "c") if name in d}
    d.setdefault("incoming", d["products"][..., : plan.gate_size])  # an LSTM adds the input's and the state's products
    d["kept"] = d["h"]
    return d | (_communication_gradients(plan, like) if config.communication else {})


def _units_within(buffer: Tensor) -> Tensor:
    """Return room like a buffer (K, B, S) that lies as (B, K, S)."""
    units_, batch, size = buffer.shape
    return buffer.view(batch, units_, size).transpose(0, 1)


def _communication_gradients(plan: Plan, like: Tensor) -> Buffers:
    config, time, batch, units_ = plan.config, plan.steps, plan.batch, plan.config.num_units
    gated, width = config.gated_communication, config.message_value_size
    by_unit = like.new_empty(units_, batch, width).transpose(0, 1)
    return {
        "kept": like.new_empty(0 if plan.fused else units_, batch, config.unit_size),
        "parts": like.new_empty(time, batch, units_, 2 * config.message_key_size + width),
        "said": like.new_empty(time, batch, units_, (2 if gated else 1) * config.unit_size),
        "messages": torch.empty_like(by_unit, memory_format=torch.contiguous_format) if gated else by_unit,
    }


def _backward_steps(plan: Plan, inputs: Inputs, d_outputs: Tensor, b: Buffers, d: Buffers) -> list[Step]:
    """Prepare the paper's steps, last one first."""
    steps = []
    if plan.config.communication:
        gated = plan.config.gated_communication
        take_up = communication.take_up_gated_backward if gated else communication.take_up_backward
        steps += [take_up(plan, inputs, b, d), communication.listen_backward(plan, inputs, b, d)]
    steps.append((units.lstm_backward if plan.is_lstm else units.gru_backward)(plan, inputs, b, d))
    if plan.config.input_attention:
        read = attention.read_slot_backward if plan.slots == 1 else attention.read_slots_backward
        share = attention.share_with_null_backward if plan.by_null_row else attention.share_between_units_backward
        steps += [read(plan, inputs, d), share(plan, b, d), attention.score_backward(plan, inputs, d)]
    steps.append(units.recur_backward(plan, inputs, d_outputs, d, _resets(plan, inputs.starts)))
    return steps


# ---------------------------------------------------------------- gradients: one product each over all steps


def _gradients(plan: Plan, inputs: Inputs, b: Buffers, d: Buffers) -> Buffers:
    """Return the gradients by the names of `Inputs`."""
    size = plan.config.unit_size
    before = units.all_before(b["states"], inputs.starts)
    found: Buffers = {name: d[name].transpose(0, 1) for name in ("h", "c") if name in d}
    found["from_state"] = product_over_steps(before, d["products"])
    found["bias"] = d["incoming"].sum((0, 1)).unsqueeze(1)
    found["values"] = attention.values_gradient(plan, b, d)
    if plan.config.input_attention:
        found["keys"] = attention.keys_gradient(plan, b, d)
    if plan.slots > 1:
        found["weight_ih"] = product_over_steps(b["attended"], d["incoming"])
    if not plan.is_lstm:
        found["bias_hn"] = d["products"][..., 2 * size : 3 * size].sum((0, 1)).unsqueeze(1)
    return found | (_communication_weights(plan, b, d) if plan.config.communication else {})


def _communication_weights(plan: Plan, b: Buffers, d: Buffers) -> Buffers:
    to_message = product_over_steps(b["shown"], d["parts"])
    if not plan.config.gated_communication:
        return {"to_message": to_message, "from_message": product_over_steps(b["messages"], d["said"])}
    messages, said = b["messages"].flatten(0, 2), d["said"].flatten(0, 2)
    return {"to_message": to_message, "from_message": messages.mT @ said, "message_bias": said.sum(0)}
