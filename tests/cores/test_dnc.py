"""The DNC against the equations of the paper's Methods written as loops, and what its state promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores.dnc import DNC, DNCConfig, DNCState, Interface
from rims_rl.errors import ConfigError

LENGTH, BATCH, INPUT, HIDDEN, ROWS, WIDTH, READS = 23, 3, 13, 17, 11, 7, 2


def dnc(**settings: Any) -> DNC:
    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "memory_rows": ROWS, "memory_width": WIDTH, "read_heads": READS, "output_size": 19}
    return DNC(INPUT, DNCConfig(**{**sizes, **settings})).double()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def content_as_written(key: Tensor, strength: Tensor, memory: Tensor) -> Tensor:
    """Weigh rows by likeness, with the smoothing that the core has; without it: `tests/cores/test_addressing.py`."""
    likeness = torch.stack([row @ key / ((row @ row + 1e-6) * (key @ key + 1e-6)).sqrt() for row in memory])
    return torch.exp(strength * likeness) / torch.exp(strength * likeness).sum()


def allocation_as_written(usage: Tensor) -> Tensor:
    """Weigh rows by freedom; ties go to the lower row."""
    order = sorted(range(ROWS), key=lambda row: (round(usage[row].item(), 9), row))
    weights = torch.zeros(ROWS, dtype=torch.float64)
    for j, row in enumerate(order):
        weights[row] = (1 - usage[row]) * usage[order[:j]].prod()
    return weights


def memory_step_as_written(told: Interface, before: DNCState, b: int) -> dict[str, Tensor]:
    """Take sequence b's memory one step further, in the order and words of Methods."""
    write_before, reads_before = before.write_weights[b], before.read_weights[b]
    retention = torch.ones(ROWS, dtype=torch.float64)
    for head in range(READS):
        retention = retention * (1 - told.free_gates[b, head] * reads_before[head])
    usage = (before.usage[b] + write_before - before.usage[b] * write_before) * retention
    content = content_as_written(told.write_key[b, 0], told.write_strength[b, 0, 0], before.memory[b])
    gate = told.allocation_gate[b]
    write = told.write_gate[b] * (gate * allocation_as_written(usage) + (1 - gate) * content)
    memory = before.memory[b] * (1 - torch.outer(write, told.erase[b, 0])) + torch.outer(write, told.add[b, 0])
    links = torch.zeros(ROWS, ROWS, dtype=torch.float64)
    for i in range(ROWS):
        for j in range(ROWS):
            if i != j:
                links[i, j] = (1 - write[i] - write[j]) * before.links[b, i, j] + write[i] * before.precedence[b, j]
    precedence = (1 - write.sum()) * before.precedence[b] + write
    read_weights = []
    for head in range(READS):
        backward, lookup, forward = told.read_modes[b, head]
        content = content_as_written(told.read_keys[b, head], told.read_strengths[b, head, 0], memory)
        was = reads_before[head]
        read_weights.append(backward * (links.t() @ was) + lookup * content + forward * (links @ was))
    return {
        "usage": usage,
        "write_weights": write,
        "memory": memory,
        "links": links,
        "precedence": precedence,
        "read_weights": torch.stack(read_weights),
        "reads": torch.stack([memory.t() @ weights for weights in read_weights]),
    }


class TestOneStepAsWritten:
    @pytest.mark.parametrize("steps_before", [0, 1, 7])
    def test_equals_the_papers_equations(self, steps_before: int) -> None:
        core, inputs = dnc(), random(8, BATCH, INPUT)
        state = core.initial_state(BATCH)
        if steps_before:
            _, state = core(3 * inputs[:steps_before], state)
        before, after = core.unpack(state), core.unpack(core(3 * inputs[-1:], state)[1])
        told = core._interface(after.h[:, 0])
        for b in range(BATCH):
            for name, expected in memory_step_as_written(told, before, b).items():
                assert torch.allclose(getattr(after, name)[b], expected, rtol=1e-9, atol=1e-12), name

    def test_controller_sees_the_input_and_what_was_read_last(self) -> None:
        core, inputs = dnc(), random(1, BATCH, INPUT)
        state = core(random(2, BATCH, INPUT), core.initial_state(BATCH))[1]
        before, after = core.unpack(state), core.unpack(core(inputs, state)[1])
        (from_input,) = core.controller.hoist(inputs)
        h, c = core.controller.step(from_input, before.reads.flatten(1), before.h[:, 0], before.c[:, 0])
        assert_close(after.h[:, 0], h)
        assert_close(after.c[:, 0], c)

    def test_output_is_a_linear_map_of_controller_and_reads(self) -> None:
        core = dnc()
        outputs, last = core(random(LENGTH, BATCH, INPUT), core.initial_state(BATCH))
        view = core.unpack(last)
        assert_close(outputs[-1], core.controller.outputs([view.h[:, 0]], [view.reads.flatten(1)])[0])


class TestInterface:
    def test_every_number_is_within_its_bounds(self) -> None:
        told = dnc()._interface(100 * random(BATCH, HIDDEN))
        assert (told.write_strength >= 1).all()
        assert (told.read_strengths >= 1).all()
        for gate in (told.erase, told.free_gates, told.allocation_gate, told.write_gate):
            assert ((gate >= 0) & (gate <= 1)).all()
        assert_close(told.read_modes.sum(dim=2), torch.ones(BATCH, READS).double())

    def test_each_number_of_the_controller_has_one_use(self) -> None:
        core = dnc()
        assert sum(part[0].numel() for part in core._interface(random(1, HIDDEN))) == (
            WIDTH * READS + 3 * WIDTH + 5 * READS + 3  # the size of the interface vector in Methods
        )


class TestStateStaysWhatItIs:
    @pytest.fixture
    def view(self) -> DNCState:
        """The state after a long and violent life."""
        core = dnc()
        return core.unpack(core(10 * random(101, BATCH, INPUT), core.initial_state(BATCH))[1].detach())

    def test_usage_is_a_fraction(self, view: DNCState) -> None:
        assert ((view.usage >= 0) & (view.usage <= 1)).all()

    @pytest.mark.parametrize("name", ["read_weights", "write_weights", "precedence"])
    def test_addresses_are_weightings(self, view: DNCState, name: str) -> None:
        weights = getattr(view, name)
        assert (weights >= 0).all()
        assert (weights.sum(dim=-1) <= 1 + 1e-12).all()

    def test_links_lead_to_at_most_one_row_and_never_to_itself(self, view: DNCState) -> None:
        assert (view.links >= 0).all()
        assert (view.links.sum(dim=1) <= 1 + 1e-12).all()
        assert (view.links.sum(dim=2) <= 1 + 1e-12).all()
        assert not view.links.diagonal(dim1=1, dim2=2).any()


class TestStart:
    def test_of_an_episode_is_zero_everywhere_and_its_gradients_are_finite(self) -> None:
        core = dnc().float()
        state = core.initial_state(BATCH).requires_grad_()
        assert not state.any()
        outputs, _ = core(torch.randn(LENGTH, BATCH, INPUT), state)
        outputs.sum().backward()
        assert state.grad is not None
        assert state.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in core.parameters())

    def test_extreme_inputs_leave_everything_finite(self) -> None:
        core = dnc().float()
        outputs, last = core(1e4 * torch.randn(50, BATCH, INPUT), core.initial_state(BATCH))
        outputs.sum().backward()
        assert last.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())

    def test_first_writes_go_to_the_first_rows_one_by_one(self) -> None:
        core = dnc()
        bias = core.controller.interface_bias.data
        gates = sum(core.interface_sizes[:2]) + WIDTH
        bias[gates : gates + READS] = -100.0  # free nothing
        bias[gates + READS : gates + READS + 2] = 100.0  # allocate, and write at every step
        _, _, found = core.diagnose(random(5, 1, INPUT), core.initial_state(1))
        assert_close(found["write_weights"][:, 0], torch.eye(5, ROWS).double())


class TestDiagnose:
    def test_tells_where_was_read_and_written_and_why(self) -> None:
        core = dnc()
        _, last, found = core.diagnose(random(LENGTH, BATCH, INPUT), core.initial_state(BATCH))
        sizes = {name: tuple(tensor.shape[2:]) for name, tensor in found.items()}
        assert sizes == {
            "read_weights": (READS, ROWS),
            "write_weights": (ROWS,),
            "usage": (ROWS,),
            "read_modes": (READS, 3),
            "allocation_gate": (1,),
            "write_gate": (1,),
        }
        view = core.unpack(last)
        for name in ("read_weights", "write_weights", "usage"):
            assert torch.equal(found[name][-1], getattr(view, name))


class TestSizes:
    def test_by_default_are_those_of_the_reference_implementation(self) -> None:
        config = DNC(9).config
        assert (config.hidden_size, config.memory_rows, config.memory_width, config.read_heads) == (64, 16, 16, 4)

    def test_without_an_output_size_the_controllers_is_taken(self) -> None:
        assert dnc(output_size=None).output_size == HIDDEN
        assert dnc(output_size=23).output_size == 23


class TestSettingsThatCannotWork:
    @pytest.mark.parametrize("name", ["hidden_size", "memory_rows", "memory_width", "read_heads", "output_size"])
    def test_a_size_below_one_is_refused(self, name: str) -> None:
        settings: dict[str, Any] = {name: 0}
        with pytest.raises(ConfigError, match=rf"^{name} must be a whole number of at least 1, got 0$"):
            DNCConfig(**settings)
