"""The entity network computes its equations, keeps its slots of length one and apart, and starts from its keys."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import make_core
from rims_rl.cores.entnet import EntNet, EntNetConfig
from rims_rl.errors import ConfigError

LENGTH, BATCH, INPUT_SIZE, SLOTS, SIZE = 5, 3, 11, 5, 7
TIGHT = {"rtol": 1e-12, "atol": 1e-12}

variants = pytest.mark.parametrize(
    "settings",
    [{}, {"activation": "identity"}, {"readout": "slots"}],
    ids=["prelu", "identity", "all-slots"],
)


def build(**settings: Any) -> EntNet:
    torch.manual_seed(0)
    core = make_core("entnet", INPUT_SIZE, **{"num_slots": SLOTS, "slot_size": SIZE, **settings}).double()
    assert isinstance(core, EntNet)
    for parameter in core.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return core


def tiny() -> EntNet:
    """Return two slots of size two whose maps are simple numbers, for an input of size two."""
    core = make_core("entnet", 2, num_slots=2, slot_size=2, activation="identity").double()
    assert isinstance(core, EntNet)
    with torch.no_grad():
        core.keys.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        core.encode.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
        core.from_slot.zero_()
        core.from_key.copy_(torch.eye(2))
        core.from_input.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        core.ask.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
        core.from_read.copy_(3.0 * torch.eye(2))
    return core


def some_inputs(length: int = LENGTH) -> Tensor:
    return torch.randn(length, BATCH, INPUT_SIZE, dtype=torch.float64)


def some_state(core: EntNet) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(BATCH, SLOTS, SIZE, dtype=torch.float64), dim=2).flatten(1)


def slowly(core: EntNet, inputs: Tensor, state: Tensor) -> Tensor:
    """Run the network written like the paper: one sequence and one slot at a time."""
    outputs = []
    for b in range(inputs.shape[1]):
        h, made = list(core.unpack(state).h[b]), []
        for x in inputs[:, b]:
            s = core.encode.t() @ x
            for j, w in enumerate(core.keys):
                g = torch.sigmoid(s @ h[j] + s @ w)  # equation 2
                candidate = phi(
                    core.from_slot.t() @ h[j] + core.from_key.t() @ w + core.from_input.t() @ s, core.slopes
                )
                h[j] = h[j] + g * candidate  # equations 3 and 4
                h[j] = h[j] / h[j].pow(2).sum().sqrt()  # equation 5
            made.append(answer(core, x, h))
        outputs.append(torch.stack(made))
    return torch.stack(outputs, dim=1)


def answer(core: EntNet, x: Tensor, h: list[Tensor]) -> Tensor:
    if core.config.readout == "slots":
        return torch.cat(h)
    q = core.ask.t() @ x
    p = torch.softmax(torch.stack([q @ slot for slot in h]), dim=0)
    u = sum(share * slot for share, slot in zip(p, h, strict=True))
    return phi(q + core.from_read.t() @ u, core.output_slopes)  # equation 6


def phi(values: Tensor, slopes: Tensor | None) -> Tensor:
    return values if slopes is None else values.clamp(min=0) + slopes * values.clamp(max=0)


class TestEqualsTheEquations:
    @variants
    def test_in_its_outputs(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, state = some_inputs(), some_state(core)
        assert_close(core(inputs, state)[0], slowly(core, inputs, state), **TIGHT)

    @variants
    def test_in_its_gradients(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, state = some_inputs(), some_state(core).requires_grad_()
        weight, wanted = torch.randn(LENGTH, BATCH, core.output_size, dtype=torch.float64), [state, *core.parameters()]
        fast = torch.autograd.grad((core(inputs, state)[0] * weight).sum(), wanted)
        slow = torch.autograd.grad((slowly(core, inputs, state) * weight).sum(), wanted)
        for one, other in zip(fast, slow, strict=True):
            assert_close(one, other, rtol=1e-9, atol=1e-9)

    def test_one_step_by_hand(self) -> None:
        core = tiny()
        inputs = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)  # s = (0, 2), W s = (2, 0), question (10, 0)
        outputs, state, found = core.diagnose(inputs, core.initial_state(1))
        gates = [0.5, 1 / (1 + math.exp(-4.0))]  # s h + s w: 0 for the first slot, 2 + 2 for the second
        assert_close(found["gates"][0, 0].tolist(), gates)
        long = [[1 + 3 * gates[0], 0.0], [2 * gates[1], 1 + gates[1]]]  # h + g (w + W s)
        slots = [[value / math.hypot(*slot) for value in slot] for slot in long]
        assert_close(state[0].tolist(), [*slots[0], *slots[1]])
        favour = 1 / (1 + math.exp(10 * (slots[1][0] - slots[0][0])))
        assert_close(found["read"][0, 0].tolist(), [favour, 1 - favour])
        read = [favour * one + (1 - favour) * other for one, other in zip(*slots, strict=True)]
        assert_close(outputs[0, 0].tolist(), [10 + 3 * read[0], 3 * read[1]])


class TestSlots:
    @variants
    def test_are_of_length_one_after_every_step(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        state = core.initial_state(BATCH)
        for x in some_inputs():
            _, state = core(x.unsqueeze(0), state)
            assert_close(core.unpack(state).h.norm(dim=2), torch.ones(BATCH, SLOTS, dtype=torch.float64), **TIGHT)

    def test_that_the_input_does_not_fit_keep_what_they_hold(self) -> None:
        core = tiny()
        state = torch.tensor([[0.6, 0.8, -0.8, 0.6]], dtype=torch.float64)
        opposite = torch.tensor([[[-1e4, 0.0]]], dtype=torch.float64)  # s h + s w is far below zero for the first slot
        _, after = core(opposite, state)
        assert_close(after[0, :2], state[0, :2], **TIGHT)
        assert (after[0, 2:] - state[0, 2:]).abs().max() > 0.1

    def test_do_not_read_from_each_other(self) -> None:
        core = build(readout="slots")
        state = some_state(core).requires_grad_()
        outputs, _ = core(some_inputs(), state)
        (gradient,) = torch.autograd.grad(outputs.view(LENGTH, BATCH, SLOTS, SIZE)[-1, :, 2].sum(), state)
        reached = gradient.view(BATCH, SLOTS, SIZE).abs().amax(dim=2) > 0
        assert reached.tolist() == [[False, False, True, False, False]] * BATCH

    def test_share_their_weights_so_that_only_keys_tell_them_apart(self) -> None:
        core, order = build(), torch.tensor([3, 0, 4, 1, 2])
        inputs, state = some_inputs(), some_state(core)
        straight, _ = core(inputs, state)
        core.keys.data = core.keys.data[order]
        shuffled, _ = core(inputs, core.unpack(state).h[:, order].flatten(1))
        assert_close(shuffled, straight, **TIGHT)

    def test_without_different_keys_are_all_the_same(self) -> None:
        core = build(readout="slots")
        core.keys.data = core.keys.data[:1].repeat(SLOTS, 1)
        slots = core(some_inputs(), core.initial_state(BATCH))[0].view(LENGTH, BATCH, SLOTS, SIZE)
        assert_close(slots, slots[:, :, :1].expand_as(slots), **TIGHT)


class TestKeys:
    def test_are_where_slots_start(self) -> None:
        core = build()
        assert torch.equal(core.unpack(core.initial_state(2)).h, core.keys.expand(2, -1, -1))

    def test_get_gradient_through_the_initial_state(self) -> None:
        core = build()
        (gradient,) = torch.autograd.grad(core.initial_state(BATCH).sum(), core.keys)
        assert torch.equal(gradient, torch.full_like(gradient, float(BATCH)))

    def test_get_the_same_gradient_from_a_reset_as_from_a_fresh_start(self) -> None:
        core = build()
        inputs, weight = some_inputs(), torch.randn(BATCH, SIZE, dtype=torch.float64)
        starts = torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[2] = True
        after_reset = (core(inputs, some_state(core), starts)[0][-1] * weight).sum()
        fresh = (core(inputs[2:], core.initial_state(BATCH))[0][-1] * weight).sum()
        assert_close(*(torch.autograd.grad(loss, core.keys)[0] for loss in (after_reset, fresh)), **TIGHT)

    def test_are_not_changed_by_what_slots_see(self) -> None:
        core = build()
        before = core.keys.clone()
        core(some_inputs(), core.initial_state(BATCH))
        assert torch.equal(core.keys, before)


class TestActivation:
    def test_starts_as_the_identity_because_its_slopes_start_at_one(self) -> None:
        prelu = make_core("entnet", INPUT_SIZE, num_slots=SLOTS, slot_size=SIZE)
        identity = make_core("entnet", INPUT_SIZE, num_slots=SLOTS, slot_size=SIZE, activation="identity")
        identity.load_state_dict(prelu.state_dict(), strict=False)
        inputs = some_inputs().float()
        one, other = (core(inputs, core.initial_state(BATCH))[0] for core in (prelu, identity))
        assert torch.equal(one, other)

    def test_other_parameters_start_from_a_normal_distribution_of_deviation_a_tenth(self) -> None:
        torch.manual_seed(0)
        core = make_core("entnet", 97)
        drawn = torch.cat([p.flatten() for name, p in core.named_parameters() if "slopes" not in name])
        assert_close(drawn.std().item(), 0.1, rtol=0.01, atol=0.0)
        assert abs(drawn.mean().item()) < 0.002


class TestReadout:
    def test_sees_what_was_written_in_the_same_step(self) -> None:
        core = build()
        inputs, state = some_inputs(1), some_state(core)
        outputs, after = core(inputs, state)
        q = inputs[0] @ core.ask
        p = torch.softmax(torch.einsum("bs,bks->bk", q, core.unpack(after).h), dim=1)
        expected = phi(q + torch.einsum("bk,bks->bs", p, core.unpack(after).h) @ core.from_read, core.output_slopes)
        assert_close(outputs[0], expected, **TIGHT)

    def test_of_all_slots_is_the_state(self) -> None:
        core = build(readout="slots")
        outputs, last = core(some_inputs(), core.initial_state(BATCH))
        assert core.output_size == core.state_size
        assert torch.equal(outputs[-1], last)


class TestBadSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"num_slots": 0}, ["num_slots", "0"]),
            ({"slot_size": 2.5}, ["slot_size", "2.5"]),
            ({"activation": "relu"}, ["activation", "prelu", "identity", "'relu'"]),
            ({"readout": "mean"}, ["readout", "query", "slots", "'mean'"]),
        ],
    )
    def test_are_refused_in_one_line_that_names_them(self, settings: dict[str, Any], named: list[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            EntNetConfig(**settings)
        assert "\n" not in str(caught.value)
        assert [word for word in named if word not in str(caught.value)] == []
