"""Compares the loop of fused kernels with the eager one on a device: python -m tests.cores.fused_on cuda.

Sizes below and above a warp's, batches that Triton compiles anew for, and repeated calls, which replay a graph from the
second one on. On `cpu`, with TRITON_INTERPRET=1, the smallest of them, to test this file.
"""

from __future__ import annotations

import logging
import os
import sys

import torch
from torch import Tensor

from rims_rl.cores import RIM, RIMConfig, loops

REPEATS = 5


def everything(core: RIM, given: tuple[Tensor, Tensor, Tensor | None]) -> list[Tensor]:
    """Return outputs, last state and all gradients."""
    outputs, last = core(*given)
    loss = outputs.square().sum() + last.sin().sum()
    return [outputs.detach(), last.detach(), *torch.autograd.grad(loss, [*given[:2], *core.parameters()])]


def compare(core: RIM, given: tuple[Tensor, Tensor, Tensor | None]) -> None:
    """Check one RIM on one sequence, with and without gradient."""
    with loops.starting_at("eager"):
        expected = everything(core, given)
    with loops.starting_at("fused"):
        found = [everything(core, given) for _ in range(REPEATS)]
        with torch.no_grad():
            silent = [core(*given)[0] for _ in range(REPEATS)]
    for one, right in [pair for results in found for pair in zip(results, expected, strict=True)]:
        torch.testing.assert_close(one, right, rtol=1e-9, atol=1e-9)
    for outputs in silent:
        torch.testing.assert_close(outputs, expected[0], rtol=1e-9, atol=1e-9)


def main(device: str) -> None:
    """Check many, in float64, where rounding lets no other unit win."""
    small = device == "cpu"
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("rims_rl").addHandler(handler)
    os.environ[loops.SWITCH] = "fused"
    for cell in ("lstm", "gru"):
        for unit_size in (5,) if small else (10, 32, 85, 200):
            for steps, batch in ((2, 2),) if small else ((1, 1), (7, 3), (32, 16), (128, 64)):
                torch.manual_seed(0)
                core = RIM(11, RIMConfig(unit_size=unit_size, cell=cell)).to(device, torch.float64)  # type: ignore[arg-type]
                inputs = torch.randn(steps, batch, 11, dtype=torch.float64, device=device, requires_grad=True)
                state = torch.randn(batch, core.state_size, dtype=torch.float64, device=device).requires_grad_()
                for starts in (None, torch.rand(steps, batch, device=device) < 0.2):
                    compare(core, (inputs, state, starts))
    assert not warnings, warnings


if __name__ == "__main__":
    main(sys.argv[1])
