"""The table of cores that must obey the contract's laws: a new core, or a new way to set one up, is one new line.

Sizes are primes and differ from each other, so that no wrong axis fits by chance.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rims_rl.cores import RecurrentCore, RIMConfig, make_core
from rims_rl.cores.loops import LOOPS as ALL_LOOPS

LOOPS = tuple(loop for loop in ALL_LOOPS if loop != "fused")
"""Without the one for GPUs, which has tests of its own: in Triton's interpreter it is slow."""
LENGTH, BATCH, INPUT_SIZE, SLOTS = 11, 3, 13, 7

SMALL_RIM: dict[str, Any] = {
    "num_units": 5,
    "active_units": 3,
    "unit_size": 17,
    "input_key_size": 19,
    "input_value_size": 2 * 23,
    "communication_heads": 2,
    "communication_key_size": 29,
    "communication_value_size": 31,
}

SMALL_NTM: dict[str, Any] = {"hidden_size": 17, "memory_rows": 7, "memory_width": 5, "output_size": 11}
SMALL_DNC: dict[str, Any] = {**SMALL_NTM, "read_heads": 3}


@dataclass(frozen=True)
class Case:
    """One core, its settings, and how many slots its inputs have (None: a plain vector)."""

    core: str
    settings: dict[str, Any] = field(default_factory=dict)
    slots: int | None = None
    loop: str = "compiled"
    """Which of the RIM's loops is tried first: compiled, unrolled or eager."""
    true_gradient: bool = True
    """Off: the core blocks a gradient on purpose, so that its gradient is not the derivative of its outputs."""

    def build(self, dtype: torch.dtype = torch.float64) -> RecurrentCore:
        """Return the core, the same at every call."""
        torch.manual_seed(0)
        return make_core(self.core, INPUT_SIZE, **self.settings).to(dtype)

    def inputs(self, length: int = LENGTH, batch: int = BATCH, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return random inputs, (T, B, I) or (T, B, N, I)."""
        middle = () if self.slots is None else (self.slots,)
        return torch.randn(length, batch, *middle, INPUT_SIZE, dtype=dtype)


def rim(slots: int | None = None, **settings: Any) -> Case:
    """Return a small RIM's case."""
    config = RIMConfig.from_settings(**{**SMALL_RIM, **settings})
    blocks = config.inactive_show == "candidate" and config.communication and config.active_units < config.num_units
    return Case("rim", {**SMALL_RIM, **settings}, slots, true_gradient=not blocks)


def on_every_loop(cases: dict[str, Case]) -> dict[str, Case]:
    """Return the RIM's cases on the first loop that serves, and, by name, on those that come after it."""
    found = dict(cases)
    for name, case in cases.items():
        config = RIMConfig.from_settings(**case.settings)
        in_c = config.competition == "null" and config.inactive_show == "state" and not config.gated_communication
        for loop in LOOPS[1:] if in_c and config.input_attention else LOOPS[2:]:
            found[f"{name}-{loop}"] = replace(case, loop=loop)
    return found


SMALL_TRANSFORMER: dict[str, Any] = {"model_size": 2 * 7, "num_layers": 3, "heads": 2, "window": 5}
SMALL_RMC: dict[str, Any] = {"num_slots": 5, "slot_size": 2 * 7, "heads": 2, "key_size": 3}
SMALL_ENTNET: dict[str, Any] = {"num_slots": 5, "slot_size": 7}

RIM_CASES: dict[str, Case] = {
    "rim-gru": rim(cell="gru"),
    "rim-gru-7-slots": rim(SLOTS, cell="gru"),
    "rim-lstm": rim(cell="lstm"),
    "rim-gru-paper": rim(cell="gru", preset="paper"),
    "rim-gru-paper-1-slot": rim(1, cell="gru", preset="paper"),
    "rim-gru-paper-7-slots": rim(SLOTS, cell="gru", preset="paper"),
    "rim-gru-authors": rim(cell="gru", preset="authors"),
    "rim-gru-authors-7-slots": rim(SLOTS, cell="gru", preset="authors"),
    "rim-lstm-paper": rim(cell="lstm", preset="paper"),
    "rim-lstm-paper-7-slots": rim(SLOTS, cell="lstm", preset="paper"),
    "rim-lstm-authors": rim(cell="lstm", preset="authors"),
    "rim-lstm-authors-7-slots": rim(SLOTS, cell="lstm", preset="authors"),
    "rim-gru-authors-showing-state": rim(cell="gru", preset="authors", inactive_show="state"),
    "rim-lstm-authors-showing-state-7-slots": rim(SLOTS, cell="lstm", preset="authors", inactive_show="state"),
    "rim-two-input-heads": rim(input_heads=2),
    "rim-gru-two-input-heads": rim(cell="gru", input_heads=2),
    "rim-two-input-heads-7-slots": rim(SLOTS, input_heads=2),
    "rim-authors-two-input-heads-7-slots": rim(SLOTS, preset="authors", input_heads=2),
    "rim-no-input-attention": rim(input_attention=False, active_units=5),
    "rim-no-input-attention-7-slots": rim(SLOTS, input_attention=False, active_units=5),
    "rim-no-communication": rim(communication=False),
    "rim-no-null-row": rim(competition="units"),
    "rim-inactive-show-candidate": rim(inactive_show="candidate"),
    "rim-gated-communication": rim(gated_communication=True),
    "rim-all-active": rim(active_units=5),
    "rim-authors-all-active": rim(preset="authors", active_units=5),
}

CASES: dict[str, Case] = {
    **on_every_loop(RIM_CASES),
    "lstm": Case("lstm", {"hidden_size": 17}),
    "gru": Case("gru", {"hidden_size": 17}),
    "feedforward": Case("feedforward", {"hidden_size": 17}),
    "ntm": Case("ntm", SMALL_NTM),
    "ntm-feedforward": Case("ntm", {**SMALL_NTM, "controller": "feedforward"}),
    "ntm-two-reads-three-writes": Case("ntm", {**SMALL_NTM, "read_heads": 2, "write_heads": 3}),
    "ntm-shifts-of-two-rows": Case("ntm", {**SMALL_NTM, "shift_range": 2}),
    "dnc": Case("dnc", SMALL_DNC),
    "dnc-one-read": Case("dnc", {**SMALL_DNC, "read_heads": 1}),
    "rmc": Case("rmc", SMALL_RMC),
    "rmc-gate-per-slot": Case("rmc", {**SMALL_RMC, "gate": "memory"}),
    "rmc-no-gate": Case("rmc", {**SMALL_RMC, "gate": "none"}),
    "rmc-two-blocks": Case("rmc", {**SMALL_RMC, "num_blocks": 2, "mlp_layers": 1}),
    "rmc-more-slots-than-slot-size": Case("rmc", {**SMALL_RMC, "num_slots": 17}),
    "entnet": Case("entnet", SMALL_ENTNET),
    "entnet-identity": Case("entnet", {**SMALL_ENTNET, "activation": "identity"}),
    "entnet-all-slots": Case("entnet", {**SMALL_ENTNET, "readout": "slots"}),
    "transformer": Case("transformer", SMALL_TRANSFORMER),
    "transformer-residual": Case("transformer", {**SMALL_TRANSFORMER, "gating": "residual"}),
    "transformer-learned-positions": Case("transformer", {**SMALL_TRANSFORMER, "positions": "learned"}),
    "transformer-window-1": Case("transformer", {**SMALL_TRANSFORMER, "window": 1}),
    "transformer-window-17": Case("transformer", {**SMALL_TRANSFORMER, "window": 17, "num_layers": 1}),
}


def lived_state(core: RecurrentCore, case: Case, batch: int = BATCH) -> Tensor:
    """Return a state that the core can really be in, without gradient: the one after two random inputs."""
    dtype = next(core.parameters()).dtype
    with torch.no_grad():
        return core(case.inputs(2, batch, dtype), core.initial_state(batch))[1]


def some_resets(length: int = LENGTH, batch: int = BATCH) -> Tensor:
    """Return episode starts (T, B) in which sequence b starts anew at steps b + 2 and b + 6, none at step 0."""
    steps, sequences = torch.arange(length).unsqueeze(1), torch.arange(batch)
    return (steps == sequences + 2) | (steps == sequences + 6)
