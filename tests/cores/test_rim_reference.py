"""The fast RIM against the slow one that is written like the paper: values and gradients over a grid of settings."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import RIM, RIMConfig, native
from rims_rl.cores.reference import reference_rim
from tests.cores.every_core import INPUT_SIZE, SMALL_RIM, some_resets

LENGTH, BATCH = 5, 2
VARIANTS: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "one-active": {"active_units": 1},
    "all-active": {"active_units": 5},
    "two-input-heads": {"input_heads": 2},
    "no-input-attention": {"input_attention": False, "active_units": 5},
    "no-communication": {"communication": False},
    "the-other-competition": {"competition": None},
    "the-other-message": {"gated_communication": None},
    "bounded-or-not": {"bounded_messages": None, "gated_communication": False},
    "the-other-show": {"inactive_show": None},
}
OTHER: dict[str, dict[str, Any]] = {
    "paper": {
        "competition": "units",
        "gated_communication": True,
        "inactive_show": "candidate",
        "bounded_messages": True,
    },
    "authors": {
        "competition": "null",
        "gated_communication": False,
        "inactive_show": "state",
        "bounded_messages": False,
    },
}
COMPILED = ("as-it-is", "one-active", "all-active", "two-input-heads", "no-communication", "bounded-or-not")
GRID = [
    *product(("gru",), ("paper", "authors"), (7,), VARIANTS),
    *product(("lstm",), ("paper", "authors"), (None,), VARIANTS),
    *product(("gru",), ("paper", "authors"), (None, 1), ("as-it-is",)),
    *product(("lstm",), ("paper", "authors"), (1, 7), ("as-it-is",)),
]


def build(cell: str, preset: str, variant: str, dtype: torch.dtype) -> RIM:
    changes = {
        name: OTHER[preset][name] if value is None else value for name, value in VARIANTS[variant].items()
    }  # None stands for what the other preset has
    torch.manual_seed(0)
    core = RIM(INPUT_SIZE, RIMConfig.from_settings(preset, **{**SMALL_RIM, "cell": cell, **changes}))
    return core.to(dtype)


def sequence(core: RIM, slots: int | None, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    shape = (LENGTH, BATCH, INPUT_SIZE) if slots is None else (LENGTH, BATCH, slots, INPUT_SIZE)
    inputs = torch.randn(shape, dtype=dtype, requires_grad=True)
    state = torch.randn(BATCH, core.state_size, dtype=dtype).tanh().requires_grad_()
    return inputs, state, some_resets(LENGTH, BATCH)


def values_and_gradients(run: Any, core: RIM, inputs: Tensor, state: Tensor, starts: Tensor) -> dict[str, Tensor]:
    outputs, last = run(inputs, state, starts)
    torch.manual_seed(1)
    loss = (outputs * torch.randn_like(outputs)).sum() + (last * torch.randn_like(last)).sum()
    leaves = {"inputs": inputs, "state": state, **dict(core.named_parameters())}
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    named = {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {"outputs": outputs, "last": last, **named}


def compare(core: RIM, arguments: tuple[Tensor, Tensor, Tensor], tolerance: float) -> None:
    fast = values_and_gradients(core, core, *arguments)
    slow = values_and_gradients(lambda *given: reference_rim(core, *given), core, *arguments)
    for name, value in slow.items():
        assert_close(fast[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("RIMS_RL_LOOP", loop)


@pytest.mark.parametrize("loop", ["unrolled", "eager"])
@pytest.mark.usefixtures("chosen")
class TestFastEqualsSlow:
    @pytest.mark.parametrize(("cell", "preset", "slots", "variant"), GRID)
    def test_in_float64(self, cell: str, preset: str, slots: int | None, variant: str) -> None:
        core = build(cell, preset, variant, torch.float64)
        compare(core, sequence(core, slots, torch.float64), 1e-10)

    @pytest.mark.parametrize(("cell", "preset", "slots"), list(product(("gru", "lstm"), ("paper", "authors"), (1, 7))))
    def test_in_float32(self, cell: str, preset: str, slots: int | None) -> None:
        core = build(cell, preset, "as-it-is", torch.float32)
        compare(core, sequence(core, slots, torch.float32), 1e-4)


@pytest.mark.skipif(not native.available(torch.float64), reason="no compiler for the loop in C")
class TestCompiledEqualsSlow:
    @pytest.mark.parametrize(
        ("cell", "variant"),
        list(product(("gru", "lstm"), COMPILED)),
    )
    @pytest.mark.parametrize("slots", [None, 1])
    def test_compiled_loop_in_float64(self, cell: str, slots: int | None, variant: str) -> None:
        core = build(cell, "paper", variant, torch.float64)
        compare(core, sequence(core, slots, torch.float64), 1e-10)

    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_compiled_loop_in_float32(self, cell: str) -> None:
        core = build(cell, "paper", "as-it-is", torch.float32)
        compare(core, sequence(core, None, torch.float32), 1e-4)


class TestTheComparisonMeansSomething:
    @pytest.mark.parametrize("preset", ["paper", "authors"])
    @pytest.mark.parametrize("slots", [None, 7])
    def test_every_unit_is_active_at_some_step_and_inactive_at_another(self, preset: str, slots: int | None) -> None:
        core = build("gru", preset, "as-it-is", torch.float64)
        _, _, found = core.diagnose(*sequence(core, slots, torch.float64))
        often = found["active"].double().mean(dim=(0, 1))
        assert ((often > 0.0) & (often < 1.0)).all()

    @pytest.mark.parametrize("name", ["value", "key", "weight_ih", "from_state", "bias", "bias_hn", "to_message"])
    def test_the_slow_one_depends_on_every_parameter(self, name: str) -> None:
        core = build("gru", "paper", "as-it-is", torch.float64)
        arguments = sequence(core, None, torch.float64)
        before, _ = reference_rim(core, *arguments)
        with torch.no_grad():
            getattr(core, name).mul_(1.1)
        assert not torch.allclose(reference_rim(core, *arguments)[0], before)
