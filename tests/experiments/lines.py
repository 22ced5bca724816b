"""A task that takes no time: fit a line. It serves the tests of what all experiments share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from rims_rl.errors import NonFiniteError
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Column, Experiment, Outcome
from rims_rl.experiments.trial import Findings, Trial, descend
from rims_rl.experiments.variants import Variant


class LineTrial(Trial):
    """Fit y = 2x with a weight that dropout disturbs, so that an update depends on random numbers."""

    watched = "error"

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.line = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.3))
        self.optimizer = torch.optim.Adam(self.line.parameters(), lr=config.learning_rate)
        super().__init__({"line": self.line}, {"adam": self.optimizer})
        self.remembered["seen"] = 0

    def update(self, step: int) -> dict[str, float]:
        self.remembered["seen"] += 1
        points = torch.rand(7, 1)
        return {"loss": descend(((self.line(points) - 2 * points) ** 2).mean(), self.optimizer)}

    def validate(self) -> dict[str, float]:
        assert not self.line.training
        points = torch.rand(11, 1)
        return {"error": float(((self.line(points) - 2 * points) ** 2).mean())}

    def test(self) -> Findings:
        assert not self.line.training
        return Findings(
            {"weight": float(self.line[0].weight), "seen": self.remembered["seen"]}, {"w": self.line[0].weight}
        )


class RisingTrial(LineTrial):
    """A trial whose validation gets worse after its third."""

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__(config)
        self.remembered["validations"] = 0

    def validate(self) -> dict[str, float]:
        self.remembered["validations"] += 1
        return {"error": abs(3.0 - self.remembered["validations"])}


class ClimbingTrial(RisingTrial):
    """A trial whose watched figure counts its validations, and the more the better."""

    higher_is_better = True

    def validate(self) -> dict[str, float]:
        self.remembered["validations"] += 1
        return {"error": float(self.remembered["validations"])}


class DivergingTrial(LineTrial):
    """A trial of which no update is finite from its fifth on."""

    def update(self, step: int) -> dict[str, float]:
        if step >= 4:
            raise NonFiniteError("the loss is nan; a smaller learning_rate may help")
        return super().update(step)


class DivergingLateTrial(LineTrial):
    """A trial of which no update is finite from its eighth on, after a validation that was the best."""

    def update(self, step: int) -> dict[str, float]:
        if step >= 7:
            raise NonFiniteError("the gradient's norm is inf")
        return super().update(step)

    def validate(self) -> dict[str, float]:
        return {"error": 10.0 - self.remembered["seen"]}


class StumblingTrial(LineTrial):
    """A trial of which three updates are not finite, two of them in a row."""

    def update(self, step: int) -> dict[str, float]:
        if step in (3, 7, 8):
            return {"loss": descend(self.line(torch.ones(1, 1)).sum() * float("inf"), self.optimizer)}
        return super().update(step)


class Lines(Experiment[ExperimentConfig]):
    """The task; `kinds` maps a variant's name to its trial's class."""

    name = "lines"
    config_class = ExperimentConfig
    trial_class = LineTrial
    kinds: ClassVar[dict[str, type[LineTrial]]] = {
        "rising": RisingTrial,
        "climbing": ClimbingTrial,
        "diverging": DivergingTrial,
        "diverging late": DivergingLateTrial,
        "stumbling": StumblingTrial,
    }

    def trial(self, variant: Variant, seed: int) -> Trial:
        return self.kinds.get(variant.name, LineTrial)(self.config)

    def variants(self) -> list[Variant]:
        return [Variant(name, "lstm") for name in self.config.models]

    @property
    def columns(self) -> Sequence[Column]:
        return [Column("weight", "weight", 2, paper={"line": "2.00"})]

    def references(self, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
        return {"(nothing)": {"weight": 0.25}}

    @property
    def caption(self) -> str:
        return "The weight should be 2."
