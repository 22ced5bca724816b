"""The code in the guides runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

GUIDES = Path(__file__).parents[1] / "docs"


def code_of(guide: str) -> str:
    """Return the Python code of a guide, all blocks in their order."""
    text = (GUIDES / guide).read_text("utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def own_core() -> dict[str, Any]:
    """Return what the code of the guide leaves behind."""
    names: dict[str, Any] = {}
    exec(compile(code_of("your-own-core.md"), "your-own-core.md", "exec"), names)
    return names


class TestYourOwnCore:
    def test_it_trains_an_agent(self, own_core: dict[str, Any]) -> None:
        model = own_core["model"]
        assert model.num_timesteps == 4096
        assert isinstance(model.policy.core, own_core["Average"])
        untouched = torch.linspace(-2.0, 2.0, 32)
        assert not torch.equal(model.policy.core.decay, untouched)

    def test_it_is_about_as_long_as_it_says(self) -> None:
        lines = code_of("your-own-core.md").split("class Average")[1].split("env = ")[0].strip().splitlines()
        assert len(lines) <= 25

    def test_it_keeps_the_contract(self, own_core: dict[str, Any]) -> None:
        core = own_core["Average"](5, size=7).double()
        inputs, starts = torch.randn(11, 3, 5, dtype=torch.float64), torch.zeros(11, 3, dtype=torch.bool)
        starts[4, 1] = True
        outputs, state = core(inputs, core.initial_state(3), starts)
        stepwise = core.initial_state(3)
        for t in range(11):
            output, stepwise = core(inputs[t : t + 1], stepwise, starts[t : t + 1])
            assert_close(output[0], outputs[t])
        assert_close(stepwise, state)
        fresh, _ = core(inputs[4:, 1:2], core.initial_state(1))
        assert_close(outputs[4:, 1:2], fresh)
