"""The relational memory computes what its equations say, starts with slots told apart, and gates what it keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import make_core
from rims_rl.cores.rmc import RMC, RMCConfig
from rims_rl.errors import ConfigError

LENGTH, BATCH, INPUT_SIZE, SLOTS, SIZE, HEADS, KEY_SIZE = 5, 3, 7, 5, 2 * 11, 2, 3
SMALL: dict[str, Any] = {"num_slots": SLOTS, "slot_size": SIZE, "heads": HEADS, "key_size": KEY_SIZE}
TIGHT = {"rtol": 1e-12, "atol": 1e-12}

variants = pytest.mark.parametrize(
    "settings",
    [{}, {"gate": "memory"}, {"gate": "none"}, {"num_blocks": 3}, {"mlp_layers": 3}, {"key_size": None}],
    ids=["unit", "memory", "none", "three-blocks", "three-layers", "default-key-size"],
)


def build(**settings: Any) -> RMC:
    torch.manual_seed(0)
    core = make_core("rmc", INPUT_SIZE, **{**SMALL, **settings}).double()
    assert isinstance(core, RMC)
    for parameter in core.parameters():  # biases too, so that none can be forgotten
        torch.nn.init.normal_(parameter, std=0.5)
    return core


def some_inputs(length: int = LENGTH) -> Tensor:
    return torch.randn(length, BATCH, INPUT_SIZE, dtype=torch.float64)


def some_state(core: RMC) -> Tensor:
    return torch.randn(BATCH, core.state_size, dtype=torch.float64)


class SlowRMC:
    """One step of one sequence, written like the paper and DeepMind's module: one row and one head at a time."""

    def __init__(self, core: RMC) -> None:
        self.core, self.config, self.weights = core, core.config, dict(core.named_parameters())

    def step(self, inputs: Tensor, memory: Tensor) -> Tensor:
        rows = [*memory, self.map("embed", inputs)]
        for i in range(self.config.num_blocks):
            read = self.attend(i, rows)
            rows = [self.norm(f"blocks.{i}.attention_norm", x + y) for x, y in zip(rows, read, strict=True)]
            rows = [self.norm(f"blocks.{i}.mlp_norm", x + self.mlp(x)) for x in rows]
        made = torch.stack(rows[:-1])
        return made if self.config.gate == "none" else self.gate(inputs, memory, made)

    def attend(self, i: int, rows: list[Tensor]) -> list[Tensor]:
        keys, width = self.config.head_key_size, self.config.slot_size // self.config.heads
        projected = [self.norm(f"projections.{i}.1", self.map(f"projections.{i}.0", row)) for row in rows]
        by_head = [row.split(2 * keys + width) for row in projected]
        read = []
        for reader in by_head:
            parts = []
            for head in range(self.config.heads):
                query = reader[head][:keys]
                scores = [query @ row[head][keys : 2 * keys] / math.sqrt(keys) for row in by_head]
                shares = torch.softmax(torch.stack(scores), dim=0)
                parts.append(sum(share * row[head][2 * keys :] for share, row in zip(shares, by_head, strict=True)))
            read.append(torch.cat(parts))
        return read

    def mlp(self, row: Tensor) -> Tensor:
        for layer in range(self.config.mlp_layers):
            row = self.map(f"mlp.{2 * layer}", torch.relu(row) if layer else row)
        return row

    def gate(self, inputs: Tensor, memory: Tensor, made: Tensor) -> Tensor:
        both = self.map("gates_from_input", self.map("embed", inputs))
        both = both + torch.tanh(memory) @ self.weights["gates_from_memory.weight"].t()
        input_gate, forget_gate = both.chunk(2, dim=-1)
        kept = torch.sigmoid(forget_gate + self.config.forget_bias) * memory
        return kept + torch.sigmoid(input_gate + self.config.input_bias) * torch.tanh(made)

    def map(self, name: str, x: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


def slowly(core: RMC, inputs: Tensor, state: Tensor) -> Tensor:
    slow, outputs = SlowRMC(core), []
    memory = core.unpack(state).h
    for x in inputs:
        memory = torch.stack([slow.step(x[b], memory[b]) for b in range(BATCH)])
        outputs.append(memory.flatten(1))
    return torch.stack(outputs)


class TestEqualsTheEquations:
    @variants
    def test_in_its_outputs(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, state = some_inputs(), some_state(core)
        outputs, last = core(inputs, state)
        assert_close(outputs, slowly(core, inputs, state), **TIGHT)
        assert_close(last, outputs[-1], **TIGHT)

    @variants
    def test_in_its_gradients(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, state = some_inputs(), some_state(core).requires_grad_()
        weight, wanted = torch.randn(LENGTH, BATCH, core.output_size, dtype=torch.float64), [state, *core.parameters()]
        fast = torch.autograd.grad((core(inputs, state)[0] * weight).sum(), wanted)
        slow = torch.autograd.grad((slowly(core, inputs, state) * weight).sum(), wanted)
        for one, other in zip(fast, slow, strict=True):
            assert_close(one, other, rtol=1e-9, atol=1e-9)


class TestInitialMemory:
    def test_is_the_identity_padded_with_zeros(self) -> None:
        memory = build().unpack(build().initial_state(2)).h
        padding = torch.zeros(SLOTS, SIZE - SLOTS, dtype=torch.float64)
        expected = torch.cat([torch.eye(SLOTS, dtype=torch.float64), padding], dim=1)
        assert torch.equal(memory, expected.expand(2, -1, -1))

    def test_is_the_identity_cut_off_where_slots_are_small(self) -> None:
        core = build(num_slots=3, slot_size=2)
        assert core.unpack(core.initial_state(1)).h.tolist() == [[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]]

    def test_tells_slots_apart_that_would_be_alike_from_zeros(self) -> None:
        core = build()
        after, _ = core(some_inputs(), core.initial_state(BATCH))
        alike, _ = core(some_inputs(), torch.zeros(BATCH, core.state_size, dtype=torch.float64))
        slots = alike.view(LENGTH, BATCH, SLOTS, SIZE)
        assert_close(slots, slots[:, :, :1].expand_as(slots), **TIGHT)
        assert torch.pdist(after[-1, 0].view(SLOTS, SIZE)).min() > 0.01

    def test_is_where_a_reset_in_mid_sequence_returns_to(self) -> None:
        core = build(gate="none", num_blocks=1)
        inputs, starts = some_inputs(), torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[-1] = True
        outputs, _ = core(inputs, some_state(core), starts)
        assert_close(outputs[-1], slowly(core, inputs[-1:], core.initial_state(BATCH))[0], **TIGHT)


class TestGates:
    def test_shut_to_the_new_and_open_to_the_old_keep_the_memory(self) -> None:
        core = build(forget_bias=1e4, input_bias=-1e4)
        state = some_state(core)
        outputs, last = core(some_inputs(), state)
        assert torch.equal(last, state)
        assert torch.equal(outputs, state.expand(LENGTH, -1, -1))

    def test_open_to_the_new_and_shut_to_the_old_replace_it_by_the_squashed_candidate(self) -> None:
        gated, plain = build(forget_bias=-1e4, input_bias=1e4), build(gate="none")
        plain.load_state_dict(gated.state_dict(), strict=False)
        inputs, state = some_inputs(1), some_state(gated)
        assert_close(gated(inputs, state)[0], torch.tanh(plain(inputs, state)[0]), **TIGHT)

    def test_per_unit_per_slot_or_none_have_the_parameters_of_deepminds_module_with_one_bias(self) -> None:
        sizes = {gate: sum(p.numel() for p in build(gate=gate).parameters()) for gate in ("unit", "memory", "none")}
        assert sizes["unit"] - sizes["none"] == 2 * SIZE * (2 * SIZE) + 2 * SIZE
        assert sizes["memory"] - sizes["none"] == 2 * SIZE * 2 + 2

    def test_are_by_default_biased_towards_keeping(self) -> None:
        core = make_core("rmc", INPUT_SIZE, **SMALL)
        assert isinstance(core, RMC)
        torch.nn.init.zeros_(core.gates_from_input.weight)
        torch.nn.init.zeros_(core.gates_from_memory.weight)
        _, _, found = core.diagnose(torch.randn(2, BATCH, INPUT_SIZE), core.initial_state(BATCH))
        assert_close(found["forget_gate"], torch.full((2, BATCH, SLOTS), 1.0 / (1.0 + math.exp(-1.0))))
        assert_close(found["input_gate"], torch.full((2, BATCH, SLOTS), 0.5))


class TestSlots:
    def test_have_no_order_but_for_the_initial_memory(self) -> None:
        core, order = build(num_blocks=2), torch.tensor([3, 0, 4, 1, 2])
        inputs, state = some_inputs(), some_state(core)
        shuffled = core.unpack(state).h[:, order].flatten(1)
        straight = core(inputs, state)[0].view(LENGTH, BATCH, SLOTS, SIZE)
        assert_close(core(inputs, shuffled)[0].view_as(straight), straight[:, :, order], **TIGHT)

    def test_read_from_each_other_and_from_the_input(self) -> None:
        core = build()
        inputs, state = some_inputs(1).requires_grad_(), some_state(core).requires_grad_()
        outputs, _ = core(inputs, state)
        read_by_slot_two = outputs.view(BATCH, SLOTS, SIZE)[:, 2].sum()
        to_state, to_inputs = torch.autograd.grad(read_by_slot_two, [state, inputs])
        assert (to_state.view(BATCH, SLOTS, SIZE).abs().amax(dim=2) > 0).all()
        assert (to_inputs.abs().amax(dim=2) > 0).all()

    def test_attend_with_shares_that_sum_to_one(self) -> None:
        core = build()
        _, _, found = core.diagnose(some_inputs(), some_state(core))
        assert found["attention"].shape == (LENGTH, BATCH, SLOTS, SLOTS + 1)
        assert_close(found["attention"].sum(dim=3), torch.ones(LENGTH, BATCH, SLOTS, dtype=torch.float64))


class TestBadSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"num_slots": 0}, ["num_slots", "0"]),
            ({"slot_size": 10, "heads": 3}, ["slot_size=10", "heads=3"]),
            ({"heads": 0}, ["heads", "0"]),
            ({"key_size": 0}, ["key_size", "0"]),
            ({"slot_size": 7.5}, ["slot_size", "7.5"]),
            ({"num_blocks": 0}, ["num_blocks", "0"]),
            ({"mlp_layers": 0}, ["mlp_layers", "0"]),
            ({"gate": "slot"}, ["gate", "unit", "memory", "none", "'slot'"]),
            ({"forget_bias": math.inf}, ["forget_bias", "inf"]),
            ({"input_bias": math.nan}, ["input_bias", "nan"]),
        ],
    )
    def test_are_refused_in_one_line_that_names_them(self, settings: dict[str, Any], named: list[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            RMCConfig(**settings)
        assert "\n" not in str(caught.value)
        assert [word for word in named if word not in str(caught.value)] == []
