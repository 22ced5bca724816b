"""The Neural Turing Machine against the paper's equations written as loops, and what its state promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores.ntm import NTM, Interface, NTMConfig, address
from rims_rl.errors import ConfigError

LENGTH, BATCH, INPUT, HIDDEN, ROWS, WIDTH, READS, WRITES, REACH = 5, 3, 13, 17, 11, 7, 2, 3, 2
HEADS = READS + WRITES


def ntm(**settings: Any) -> NTM:
    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "memory_rows": ROWS, "memory_width": WIDTH, "output_size": 19}
    heads = {"read_heads": READS, "write_heads": WRITES, "shift_range": REACH}
    return NTM(INPUT, NTMConfig(**{**sizes, **heads, **settings})).double()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def one_hot(row: int, size: int = ROWS) -> Tensor:
    return torch.eye(size, dtype=torch.float64)[row]


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Compare two vectors, with the smoothing that the core has; without it: `tests/cores/test_addressing.py`."""
    return u @ v / ((u @ u + 1e-6) * (v @ v + 1e-6)).sqrt()


def weighting_as_written(told: Interface, b: int, head: int, last: Tensor, memory: Tensor) -> Tensor:
    """Find one head's rows for one sequence by eq. 5 to 9; last (N,), memory (N, M)."""
    key, strength, gate = told.keys[b, head], told.strengths[b, head, 0], told.gates[b, head, 0]
    similarity = torch.stack([cosine(key, row) for row in memory])  # eq. 6
    content = torch.exp(strength * similarity) / torch.exp(strength * similarity).sum()  # eq. 5
    gated = gate * content + (1 - gate) * last  # eq. 7
    moved = torch.zeros(ROWS, dtype=torch.float64)
    for i in range(ROWS):
        for offset in range(-REACH, REACH + 1):
            moved[i] += gated[(i - offset) % ROWS] * told.shifts[b, head, offset + REACH]  # eq. 8
    return moved ** told.powers[b, head, 0] / (moved ** told.powers[b, head, 0]).sum()  # eq. 9


class TestOneStepAsWritten:
    def test_equals_the_papers_equations_head_by_head(self) -> None:
        core, inputs = ntm(), random(3, BATCH, INPUT)
        _, state = core(inputs[:2], core.initial_state(BATCH))
        before, after = core.unpack(state), core.unpack(core(inputs[2:], state)[1])
        told = core._interface(after.h[:, 0])
        for b in range(BATCH):
            memory = before.memory[b].clone()
            weights = [weighting_as_written(told, b, i, before.weights[b, i], memory) for i in range(HEADS)]
            for i in range(WRITES):
                memory = memory * (1 - torch.outer(weights[READS + i], told.erase[b, i]))  # eq. 3
            for i in range(WRITES):
                memory = memory + torch.outer(weights[READS + i], told.add[b, i])  # eq. 4
            reads = [torch.stack([w[i] * memory[i] for i in range(ROWS)]).sum(dim=0) for w in weights[:READS]]  # eq. 2
            assert_close(after.weights[b], torch.stack(weights))
            assert_close(after.memory[b], memory)
            assert_close(after.reads[b], torch.stack(reads))

    def test_controller_sees_the_input_and_what_was_read_last(self) -> None:
        core, inputs = ntm(), random(1, BATCH, INPUT)
        state = core(random(2, BATCH, INPUT), core.initial_state(BATCH))[1]
        before, after = core.unpack(state), core.unpack(core(inputs, state)[1])
        (from_input,) = core.controller.hoist(inputs)
        h, c = core.controller.step(from_input, before.reads.flatten(1), before.h[:, 0], before.c[:, 0])
        assert_close(after.h[:, 0], h)
        assert_close(after.c[:, 0], c)

    def test_output_is_a_linear_map_of_controller_and_reads(self) -> None:
        core = ntm()
        outputs, last = core(random(LENGTH, BATCH, INPUT), core.initial_state(BATCH))
        view = core.unpack(last)
        assert_close(outputs[-1], core.controller.outputs([view.h[:, 0]], [view.reads.flatten(1)])[0])


class TestInterface:
    def test_every_number_is_within_its_bounds(self) -> None:
        told = ntm()._interface(100 * random(BATCH, HIDDEN))
        for vector in (told.keys, told.add):
            assert (vector.abs() <= 1).all()
            assert (vector < 0).any()
        for fraction in (told.gates, told.erase, told.shifts):
            assert ((fraction >= 0) & (fraction <= 1)).all()
        assert (told.strengths >= 0).all()
        assert (told.powers >= 1).all()
        assert_close(told.shifts.sum(dim=2), torch.ones(BATCH, HEADS).double())

    def test_each_number_of_the_controller_has_one_use(self) -> None:
        per_head, per_write = WIDTH + 3 + 2 * REACH + 1, 2 * WIDTH
        parts = ntm()._interface(random(1, HIDDEN))
        assert sum(part.numel() for part in parts) == HEADS * per_head + WRITES * per_write
        assert ntm().controller.interface_bias.numel() == HEADS * per_head + WRITES * per_write


def told(**changes: Tensor) -> Interface:
    """Return what leaves one head where it is: gate shut, no shift, a high power."""
    key, one = torch.zeros(1, 1, WIDTH).double(), torch.ones(1, 1, 1).double()
    stay = Interface(key, one, 0 * one, one_hot(1, 3).view(1, 1, -1), 9 * one, key, key)
    return stay._replace(**changes)


class TestHeads:
    def test_stays_where_it_was(self) -> None:
        was = one_hot(4).view(1, 1, -1)
        assert_close(address(told(), was, random(1, ROWS, WIDTH)), was)

    def test_moves_from_the_last_row_on_to_the_first(self) -> None:
        onwards = one_hot(2, 3).view(1, 1, -1)
        moved = address(told(shifts=onwards), one_hot(ROWS - 1).view(1, 1, -1), random(1, ROWS, WIDTH))
        assert_close(moved[0, 0], one_hot(0))

    def test_goes_to_the_row_that_resembles_its_key_and_one_further(self) -> None:
        memory, sure = random(1, ROWS, WIDTH), torch.full((1, 1, 1), 200.0).double()
        found = told(keys=memory[:, 6:7], strengths=sure, gates=torch.ones(1, 1, 1).double())
        was = one_hot(4).view(1, 1, -1)
        assert_close(address(found, was, memory)[0, 0], one_hot(6), rtol=1e-4, atol=1e-4)
        onwards = found._replace(shifts=one_hot(2, 3).view(1, 1, -1))
        assert_close(address(onwards, was, memory)[0, 0], one_hot(7), rtol=1e-4, atol=1e-4)

    def test_a_blurred_address_is_sharpened(self) -> None:
        blurred = told(shifts=torch.tensor([[[0.1, 0.8, 0.1]]]).double())
        moved = address(blurred, one_hot(4).view(1, 1, -1), random(1, ROWS, WIDTH))
        assert moved[0, 0, 4] > 1 - 1e-7


class TestStart:
    def test_of_an_episode_is_a_memory_of_one_small_constant_and_learned_addresses(self) -> None:
        core = ntm()
        view = core.unpack(core.initial_state(BATCH))
        assert not view.h.any()
        assert not view.c.any()
        assert (view.memory == 1e-6).all()
        assert_close(view.weights.sum(dim=2), torch.ones(BATCH, HEADS).double())
        assert (view.reads.abs() < 1).all()

    def test_is_learned_wherever_in_a_sequence_an_episode_starts(self) -> None:
        core, starts = ntm(), torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[3, 1] = True
        state = core.initial_state(BATCH).detach()
        outputs, _ = core(random(LENGTH, BATCH, INPUT), state, starts)
        firsts = [core.first_reads, core.first_weights]
        before = torch.autograd.grad(outputs[:3].sum(), firsts, retain_graph=True)
        assert not any(gradient.any() for gradient in before)
        assert all(gradient.all() for gradient in torch.autograd.grad(outputs[3:].sum(), firsts))

    def test_is_what_a_reset_brings_back(self) -> None:
        core, starts = ntm(), torch.ones(1, BATCH, dtype=torch.bool)
        torch.nn.init.normal_(core.first_reads)
        inputs, elsewhere = random(1, BATCH, INPUT), random(BATCH, core.state_size)
        for after_reset, fresh in zip(
            core(inputs, elsewhere, starts), core(inputs, core.initial_state(BATCH)), strict=True
        ):
            assert torch.equal(after_reset, fresh)


class TestFeedforwardController:
    def test_remembers_by_the_memory_alone(self) -> None:
        core = ntm(controller="feedforward")
        view = core.unpack(core.initial_state(BATCH))
        assert view.h.shape == view.c.shape == (BATCH, 1, 0)
        assert core.state_size == READS * WIDTH + HEADS * ROWS + ROWS * WIDTH

    def test_its_output_is_a_linear_map_of_controller_and_reads_too(self) -> None:
        core, inputs = ntm(controller="feedforward"), random(1, BATCH, INPUT)
        state = core.initial_state(BATCH)
        outputs, last = core(inputs, state)
        seen = torch.cat([inputs[0], core.unpack(state).reads.flatten(1)], dim=1)
        h = torch.tanh(seen @ core.controller.weight + core.controller.bias)
        assert_close(outputs[0], core.controller.outputs([h], [core.unpack(last).reads.flatten(1)])[0])


class TestDiagnose:
    def test_tells_where_the_heads_were(self) -> None:
        core = ntm()
        _, last, found = core.diagnose(random(LENGTH, BATCH, INPUT), core.initial_state(BATCH))
        assert found["read_weights"].shape == (LENGTH, BATCH, READS, ROWS)
        assert found["write_weights"].shape == (LENGTH, BATCH, WRITES, ROWS)
        final = torch.cat([found["read_weights"][-1], found["write_weights"][-1]], dim=1)
        assert torch.equal(final, core.unpack(last).weights)
        assert_close(final.sum(dim=2), torch.ones(BATCH, HEADS).double())


class TestSizes:
    def test_by_default_are_those_of_the_papers_copy_task(self) -> None:
        config = NTM(9).config
        assert (config.hidden_size, config.memory_rows, config.memory_width) == (100, 128, 20)
        assert config.read_heads == config.write_heads == 1

    def test_without_an_output_size_the_controllers_is_taken(self) -> None:
        assert ntm(output_size=None).output_size == HIDDEN
        assert ntm(output_size=23).output_size == 23

    def test_extreme_inputs_leave_everything_finite(self) -> None:
        core = ntm().float()
        outputs, last = core(1e4 * torch.randn(50, BATCH, INPUT), core.initial_state(BATCH))
        outputs.sum().backward()
        assert last.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())


class TestSettingsThatCannotWork:
    @pytest.mark.parametrize(
        "name",
        ["hidden_size", "memory_rows", "memory_width", "read_heads", "write_heads", "shift_range", "output_size"],
    )
    def test_a_size_below_one_is_refused(self, name: str) -> None:
        settings: dict[str, Any] = {name: 0}
        with pytest.raises(ConfigError, match=rf"^{name} must be a whole number of at least 1, got 0$"):
            NTMConfig(**settings)

    def test_a_shift_by_more_rows_than_there_are_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^shift_range=4 needs memory_rows of at least 9, got 8$"):
            NTMConfig(memory_rows=8, shift_range=4)
        assert NTMConfig(memory_rows=9, shift_range=4).shifts == 9

    def test_an_unknown_controller_is_refused_with_the_known(self) -> None:
        with pytest.raises(ConfigError, match=r"^controller must be one of lstm, feedforward, got 'mlp'$"):
            NTMConfig(controller="mlp")
