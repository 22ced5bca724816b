"""Spaces survive strict JSON, kinds and bounds and types alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from rims_rl.agents.spaces import space_from_json, space_to_json
from rims_rl.errors import CheckpointError, ConfigError

SPACES = [
    spaces.Box(0, 255, (4, 84, 84), np.uint8),
    spaces.Box(-np.inf, np.array([0.1, 7.0, np.inf], np.float32)),
    spaces.Box(-1.0, 1.0, (), np.float64),
    spaces.Box(np.array([[-3, 0, 2]]), np.array([[5, 0, 9]]), dtype=np.int64),
    spaces.Discrete(7),
    spaces.Discrete(3, start=-2),
    spaces.MultiDiscrete([3, 5]),
    spaces.MultiDiscrete([[3, 5], [2, 7]], start=[[0, 1], [2, 3]]),
    spaces.MultiBinary(5),
    spaces.MultiBinary([2, 3]),
    spaces.Dict([("z", spaces.Box(0, 1, (3,))), ("a", spaces.Dict({"deep": spaces.Discrete(2)}))]),
]


class TestRoundTrip:
    @pytest.mark.parametrize("space", SPACES, ids=str)
    def test_the_same_space_comes_back(self, space):
        text = json.dumps(space_to_json(space), allow_nan=False)
        back = space_from_json(json.loads(text))
        assert back == space
        assert back.dtype == space.dtype
        assert back.shape == space.shape

    def test_a_dictionary_keeps_its_order(self):
        assert list(space_from_json(space_to_json(SPACES[-1])).spaces) == ["z", "a"]

    def test_equal_bounds_take_one_number(self):
        assert len(json.dumps(space_to_json(SPACES[0]))) < 120


class TestBadInput:
    @pytest.mark.parametrize("space", [spaces.Text(5), spaces.Tuple([spaces.Discrete(2)])])
    def test_other_kinds_are_named(self, space):
        with pytest.raises(ConfigError, match=rf"a {type(space).__name__} space cannot be stored: expected Box"):
            space_to_json(space)

    @pytest.mark.parametrize(
        "data",
        [
            None, [], {}, {"kind": "Pickle"}, {"kind": ["Box"]}, {"kind": "Discrete", "n": -3, "start": 0},
            {"kind": "Discrete"}, {"kind": "MultiBinary", "n": "a"}, {"kind": "Dict", "spaces": [["a"]]},
            {"kind": "Box", "low": 0, "high": 1, "shape": [3], "dtype": "object"},
            {"kind": "Box", "low": [0, 1], "high": 1, "shape": [3], "dtype": "float32"},
            {"kind": "Box", "low": "x", "high": 1, "shape": [3], "dtype": "float32"},
        ],
    )  # fmt: skip
    def test_a_damaged_description_is_refused(self, data):
        with pytest.raises(CheckpointError, match="a stored space is damaged"):
            space_from_json(data)
