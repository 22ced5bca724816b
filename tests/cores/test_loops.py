"""Which loop serves, and the switch by which tests and benchmarks start further down."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from rims_rl.cores import RIM, RIMConfig, loops, native
from rims_rl.errors import UnknownNameError

RUNNERS = {"compiled": "_run_compiled", "unrolled": "_run_unrolled", "eager": "_run"}


def loop_that_ran(core: RIM, monkeypatch: pytest.MonkeyPatch, diagnose: bool = False) -> str:
    ran: list[str] = []

    def noting(loop: str, run: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            ran.append(loop)
            return run(*arguments)

        return noted

    for loop, method in RUNNERS.items():
        monkeypatch.setattr(core, method, noting(loop, getattr(core, method)))
    inputs = torch.zeros(2, 3, core.input_size, dtype=core.value.dtype)
    (core.diagnose if diagnose else core)(inputs, core.initial_state(3))
    (name,) = ran
    return name


class TestTheFastestThatServesIsTaken:
    @pytest.mark.skipif(not native.available(torch.float32), reason="no compiler for the loop in C")
    def test_in_c_where_there_is_a_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert loop_that_ran(RIM(7), monkeypatch) == "compiled"

    def test_by_hand_without_a_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "available", lambda _: False)
        assert loop_that_ran(RIM(7), monkeypatch) == "unrolled"

    def test_by_hand_for_settings_that_the_loop_in_c_does_not_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert loop_that_ran(RIM(7, RIMConfig.from_settings("authors")), monkeypatch) == "unrolled"

    def test_by_hand_for_number_types_that_the_loop_in_c_does_not_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert loop_that_ran(RIM(7).to(torch.bfloat16), monkeypatch) == "unrolled"

    def test_the_eager_one_to_look_inside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert loop_that_ran(RIM(7), monkeypatch, diagnose=True) == "eager"


class TestStartingAt:
    @pytest.mark.parametrize("loop", ["unrolled", "eager"])
    def test_takes_that_loop(self, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with loops.starting_at(loop):
            assert loop_that_ran(RIM(7), monkeypatch) == loop

    @pytest.mark.parametrize("before", [None, "unrolled"])
    def test_leaves_the_switch_as_it_was(self, before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(loops.SWITCH, raising=False)
        if before is not None:
            monkeypatch.setenv(loops.SWITCH, before)
        with pytest.raises(ZeroDivisionError), loops.starting_at("eager"):
            raise ZeroDivisionError
        assert os.environ.get(loops.SWITCH) == before

    def test_a_loop_that_there_is_not_is_refused_with_the_nearest_name(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown loop in RIMS_RL_LOOP 'eagre'; did you mean 'eager'"):  # noqa: SIM117
            with loops.starting_at("eagre"):
                pass

    def test_a_misspelt_switch_is_refused_at_the_first_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(loops.SWITCH, "unroled")
        with pytest.raises(UnknownNameError, match="did you mean 'unrolled'"):
            RIM(7)(torch.zeros(2, 3, 7), torch.zeros(3, RIM(7).state_size))
