"""Random generators: a state that a file holds is tried on a generator of its own before it reaches another."""

from __future__ import annotations

import copy
import json
import random
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from rims_rl.envs.random_state import dump_generator, load_generator
from rims_rl.errors import ConfigError
from rims_rl.storage.random_states import (
    _check_torch,
    check_random_state,
    random_state,
    set_random_state,
    untouched_random_state,
)
from tests.fuzz.hostile import fuzzed

pytestmark = pytest.mark.faults
STATE = random_state()
TEXT = dump_generator(np.random.default_rng(7))


def numpy_state(**changes: Any) -> dict[str, Any]:
    """Return a whole state with changes in NumPy's inner part."""
    state = copy.deepcopy(STATE)
    state["numpy"]["state"].update(changes)
    return state


def draw_from_all() -> None:
    """Draw in every way that has ever waited for a number that does not come."""
    random.gauss(0, 1), random.randrange(5)
    np.random.randn(100), np.random.randint(5, size=100)  # noqa: NPY002
    torch.randn(100), torch.randperm(100), torch.multinomial(torch.ones(5), 1)


class TestGlobalGenerators:
    def test_a_good_state_is_taken(self):
        check_random_state(STATE)

    @pytest.mark.parametrize("place", [625, 10**6, 2**62, 2**80, -1, -(10**6), 3.5, True, None])
    def test_a_place_beyond_numpys_array(self, place):
        with pytest.raises(ValueError, match="its random state is damaged"):
            check_random_state(numpy_state(pos=place))

    @pytest.mark.parametrize("key", [np.zeros(3, np.uint32), np.zeros(700, np.uint32), [1] * 3, None, "key"])
    def test_an_array_of_another_length(self, key):
        with pytest.raises(ValueError, match="its random state is damaged"):
            check_random_state(numpy_state(key=key))

    def test_generators_that_would_repeat_zero_for_ever(self):
        zeros = torch.get_rng_state().clone()
        zeros[24 : 24 + 8 * 624] = 0
        for state in (
            numpy_state(key=np.zeros(624, np.uint32)), STATE | {"torch": zeros},
            STATE | {"python": (3, (*[0] * 624, 624), None)},
        ):  # fmt: skip
            with pytest.raises(ValueError, match="repeats one number"):
                check_random_state(state)

    @pytest.mark.parametrize(
        ("left", "place"), [(624, 624), (624, 2), (300, 624), (2, 624), (624, 2**32 + 1), (1, 2**32), (0, 0), (-1, 1)]
    )
    def test_a_place_beyond_pytorchs_array(self, left, place):
        """PyTorch itself takes the first four of these, and then reads what lies behind its array."""
        head = torch.tensor(list(struct.pack("<QiiQ", 7, left, 1, place)), dtype=torch.uint8)
        with pytest.raises(ValueError, match="its random state is damaged"):
            check_random_state(STATE | {"torch": torch.cat([head, STATE["torch"][24:]])})

    @pytest.mark.parametrize("state", [STATE["torch"][:-8], STATE["torch"].to(torch.int64), [0] * 5056])
    def test_what_is_no_state_of_pytorchs(self, state):
        with pytest.raises(ValueError, match="its random state is damaged"):
            check_random_state(STATE | {"torch": state})

    def test_every_state_of_a_real_generator_is_taken(self):
        generator = torch.Generator()
        for _ in range(700):
            _check_torch(generator.get_state(), torch.Generator())
            torch.randint(5, (1,), generator=generator)

    @fuzzed(250)
    def test_mutated_states(self, by):
        state = copy.deepcopy(STATE)
        state["python"] = [3, list(STATE["python"][1]), STATE["python"][2]]
        kinds = {"numpy": state["numpy"], "python": state["python"]}
        state |= by.json(kinds)
        if by.random.random() < 0.2:
            state[by.one_of(["numpy", "python", "torch", "cuda"])] = by.junk()
        if isinstance(state.get("python"), list):
            state["python"] = tuple(tuple(part) if isinstance(part, list) else part for part in state["python"])
        if by.random.random() < 0.4:
            state["torch"] = by.one_of([by.tensor(), torch.tensor(list(by.bytes(bytes(STATE["torch"].tolist()))))])
        try:
            check_random_state(state)
        except ValueError:
            return
        with untouched_random_state():
            set_random_state(state)
            draw_from_all()


class TestOneGenerator:
    @fuzzed(250)
    def test_mutated_texts(self, by):
        generator = np.random.default_rng(3)
        text = by.one_of([by.bytes(TEXT.encode()).decode("utf-8", "replace"), json.dumps(by.json(json.loads(TEXT)))])
        with suppress(ConfigError):
            load_generator(generator, text)
        generator.integers(5, size=100)
        generator.normal(size=100)

    @pytest.mark.parametrize("increment", [0, 2, 2**127])
    def test_an_even_increment_of_pcg64_repeats_itself(self, increment):
        state = json.loads(TEXT)
        state["state"] = {"state": 0, "inc": increment}
        with pytest.raises(ConfigError, match="a stored generator is damaged"):
            load_generator(np.random.default_rng(3), json.dumps(state))

    def test_a_refused_state_leaves_the_generator_as_it_was(self):
        generator, other = np.random.default_rng(3), np.random.default_rng(3)
        with pytest.raises(ConfigError, match="damaged"):
            load_generator(generator, TEXT.replace("PCG64", "MT19937"))
        assert generator.random() == other.random()
