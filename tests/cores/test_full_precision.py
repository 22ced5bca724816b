"""Cores run in their weights' own number type under autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rims_rl.cores.base import full_precision


class Noting(nn.Module):
    """Notes what its method gets, and whether autocast is on inside."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3, dtype=dtype))

    @full_precision
    def run(self, inputs: Tensor, state: Tensor, starts: Tensor | None = None) -> dict[str, Any]:
        """Return what was seen."""
        types = [None if tensor is None else tensor.dtype for tensor in (inputs, state, starts)]
        return {"types": types, "autocast": torch.is_autocast_enabled("cpu"), "product": inputs @ self.weight}


HALF, FULL = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3)


class TestUnderAutocast:
    def test_floating_point_is_converted_to_the_weights_type(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = Noting().run(HALF, FULL, starts=HALF)
        assert seen["types"] == [torch.float32] * 3
        assert seen["product"].dtype == torch.float32

    def test_weights_may_be_of_any_type(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert Noting(torch.float64).run(HALF, state=FULL)["types"] == [torch.float64, torch.float64, None]

    def test_other_types_are_left_alone(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = Noting().run(FULL, FULL.long(), FULL.bool())
        assert seen["types"] == [torch.float32, torch.int64, torch.bool]

    def test_autocast_is_off_inside_and_on_again_after(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not Noting().run(FULL, FULL)["autocast"]
            assert torch.is_autocast_enabled("cpu")


class TestWithoutAutocast:
    def test_nothing_is_converted(self) -> None:
        assert Noting().run(FULL, HALF, starts=HALF.double())["types"] == [torch.float32, torch.bfloat16, torch.float64]


class TestTheMethod:
    def test_keeps_its_name_and_its_words(self) -> None:
        assert Noting.run.__name__ == "run"
        assert Noting.run.__doc__ == "Return what was seen."
