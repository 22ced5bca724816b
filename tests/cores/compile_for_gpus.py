"""Compiles every kernel that a RIM's loop launches to a GPU's machine code: python -m tests.cores.compile_for_gpus 90.

The loop runs on the processor; in the place of a launch the kernel is compiled for the arguments that it was given, as
Triton would do it on a GPU of that compute capability before the launch. No GPU is needed. A process of its own,
because in the tests' process Triton interprets.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from rims_rl.cores import RIM, RIMConfig, loops
from rims_rl.cores.unrolled import fused, kernels

SETTINGS: list[dict[str, Any]] = [
    {"cell": "lstm"},
    {"cell": "gru"},
    {"cell": "lstm", "input_attention": False, "active_units": 6},
    {"cell": "gru", "communication": False, "input_heads": 2},
    {"cell": "lstm", "unit_size": 32},
    {"cell": "gru", "unit_size": 10},
]
SIZES = [(2, 3), (1, 1), (16, 16)]
"""Steps and sequences; Triton compiles anew for arguments of 1, and for multiples of 16."""


class Driver:
    """What Triton asks of a GPU's driver until it has compiled a kernel."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiling:
    """Stands in for the kernels: `compiling.name[grid](...)` compiles one."""

    def __init__(self) -> None:
        self.compiled: dict[str, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return Launcher(self, name)


class Launcher:
    """One kernel of them."""

    def __init__(self, kernels_: Compiling, name: str) -> None:
        self.kernels, self.name = kernels_, name

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **sizes: Any) -> None:
            found = getattr(kernels, self.name).warmup(*arguments, grid=grid, **sizes)
            self.kernels.compiled.setdefault(self.name, {})[found.hash] = found

        return launch


def main(capability: int) -> None:
    """Compile all, and print each kernel's name and in how many versions it was compiled."""
    driver.set_active(Driver(capability))
    compiling = Compiling()
    fused._kernels = lambda: compiling
    fused._found_right = lambda *_: True  # type: ignore[assignment]
    os.environ[loops.SWITCH] = "fused"
    for settings in SETTINGS:
        for dtype in (torch.float32, torch.float64):
            core = RIM(7, RIMConfig(**settings)).to(dtype)
            for size in SIZES if dtype == torch.float32 else SIZES[:1]:
                for starts in (None, torch.zeros(size, dtype=torch.bool)):
                    inputs, state = torch.zeros(*size, 7, dtype=dtype), core.initial_state(size[1])
                    core(inputs, state, starts)[0].sum().backward()  # type: ignore[no-untyped-call]
                    with torch.no_grad():
                        core(inputs, state, starts)
    for name, versions in compiling.compiled.items():
        assert all(found.asm["cubin"] for found in versions.values())
        print(name, len(versions))
    for found in compiling.compiled["update_backward"].values():  # which writes over what it has read
        assert "bar.sync" in found.asm["ptx"], "a warp may store before another one has loaded"


if __name__ == "__main__":
    main(int(sys.argv[1]))
