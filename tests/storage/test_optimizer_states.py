"""Optimizers' states: those of optimizers that were made alike are taken, whichever they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from rims_rl.storage.optimizer_states import checked_optimizer_state

MADE: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.Adam, {"fused": True}), (torch.optim.Adam, {}), (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.RMSprop, {"momentum": 0.9}), (torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.Adagrad, {}),
]  # fmt: skip


def made(kind: type[torch.optim.Optimizer], settings: dict[str, Any], lr: float = 0.1) -> torch.optim.Optimizer:
    parameters = [nn.Parameter(torch.arange(6.0).reshape(2, 3)), nn.Parameter(torch.ones(5))]
    return kind(parameters, lr=lr, **settings)  # type: ignore[call-arg]


def stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


class Own(torch.optim.Optimizer):
    """One that needs what its defaults do not say, and keeps what it likes."""

    def __init__(self, parameters: Any, secret: int) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {"mean": parameter.grad.clone(), "count": 1, "total": parameter.grad.sum()}


@pytest.mark.parametrize(("kind", "settings"), MADE)
class TestAlike:
    def test_a_state_is_taken_before_and_after_a_step(self, kind, settings):
        for state in (made(kind, settings).state_dict(), stepped(made(kind, settings)).state_dict()):
            other = made(kind, settings)
            other.load_state_dict(checked_optimizer_state(other, state))
            assert other.state_dict()["state"].keys() == state["state"].keys()

    def test_it_goes_on_with_the_same_numbers(self, kind, settings):
        one = stepped(made(kind, settings))
        other = made(kind, settings)
        with torch.no_grad():
            for mine, theirs in zip(other.param_groups[0]["params"], one.param_groups[0]["params"], strict=True):
                mine.copy_(theirs)
        other.load_state_dict(checked_optimizer_state(other, copy.deepcopy(one.state_dict())))
        for mine, theirs in zip(
            stepped(other).param_groups[0]["params"], stepped(one).param_groups[0]["params"], strict=True
        ):
            assert torch.equal(mine, theirs)

    def test_the_step_size_is_the_stored_one(self, kind, settings):
        other = made(kind, settings, lr=0.7)
        assert checked_optimizer_state(other, made(kind, settings).state_dict())["param_groups"][0]["lr"] == 0.1


class TestOwnOptimizers:
    def test_one_that_cannot_be_tried_is_checked_by_shapes_alone(self):
        one = Own([nn.Parameter(torch.zeros(2, 3))], secret=7)
        state = stepped(one).state_dict()
        assert checked_optimizer_state(one, state)["state"][0]["count"] == 1
        state["state"][0]["mean"] = torch.zeros(7)
        with pytest.raises(ValueError, match="does not fit a parameter of shape"):
            checked_optimizer_state(one, state)


class TestRefusals:
    @pytest.mark.parametrize("state", [None, 7, {}, {"state": {}}, {"state": [], "param_groups": []}])
    def test_what_is_no_state(self, state):
        with pytest.raises(ValueError, match="it "):
            checked_optimizer_state(made(torch.optim.Adam, {}), state)

    @pytest.mark.parametrize("change", [{"betas": (0.5, 0.5)}, {"amsgrad": True}, {"lr": -1.0}, {"lr": float("nan")}])
    def test_other_settings(self, change):
        optimizer = made(torch.optim.Adam, {})
        state = optimizer.state_dict()
        state["param_groups"][0] |= change
        with pytest.raises(ValueError, match="its "):
            checked_optimizer_state(optimizer, state)

    def test_settings_that_another_version_had_are_left_out(self):
        optimizer = made(torch.optim.Adam, {})
        state = optimizer.state_dict()
        state["param_groups"][0].pop("maximize")
        state["param_groups"][0]["unheard"] = 7
        assert checked_optimizer_state(optimizer, state)["param_groups"][0]["maximize"] is False

    @pytest.mark.parametrize("number", [2, -1, "0", 0.0, True])
    def test_states_of_parameters_that_are_not_there(self, number):
        optimizer = stepped(made(torch.optim.Adam, {}))
        state = optimizer.state_dict()
        state["state"] = {number: state["state"][0]}
        with pytest.raises(ValueError, match="it has a state for parameter"):
            checked_optimizer_state(optimizer, state)
