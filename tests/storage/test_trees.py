"""Nested values become JSON and tensors, and come back as what they were."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from rims_rl.errors import CheckpointError
from rims_rl.storage.trees import pack, unpack

pytestmark = pytest.mark.faults


def there_and_back(value: Any) -> Any:
    tensors: dict[str, torch.Tensor] = {}
    data = json.loads(json.dumps(pack(value, "root", tensors)))
    return unpack(data, tensors)


class TestRoundTrip:
    @pytest.mark.parametrize(
        "value",
        [None, True, 0, -(2**127), 0.1, float("inf"), "", "$tensor", [], (), {}, [1, (2, [3])], {"a": {"b": 1}}],
    )
    def test_plain_values(self, value):
        back = there_and_back(value)
        assert back == value
        assert type(back) is type(value)

    @pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "uint32", "float32", "float64", ">f8", ">i4"])
    @pytest.mark.parametrize("shape", [(), (0, 3), (5, 7)])
    def test_arrays(self, dtype, shape):
        array = np.arange(35)[: int(np.prod(shape))].reshape(shape).astype(dtype)
        back = there_and_back({"deep": [array]})["deep"][0]
        assert isinstance(back, np.ndarray)
        assert back.dtype == array.dtype.newbyteorder("=")
        assert back.shape == shape
        np.testing.assert_array_equal(back, array)

    @pytest.mark.parametrize("scalar", [np.float32(0.1), np.float64(0.1), np.int64(-3), np.bool_(True), np.uint8(255)])
    def test_numpy_scalars_keep_their_type(self, scalar):
        back = there_and_back(scalar)
        assert type(back) is type(scalar)
        assert back == scalar

    def test_an_optimizer_keeps_its_numbered_state(self):
        parameter = torch.nn.Parameter(torch.arange(7.0))
        optimizer = torch.optim.Adam([parameter], lr=0.1, betas=(0.5, 0.7))
        parameter.sum().backward()
        optimizer.step()
        back = there_and_back(optimizer.state_dict())
        assert list(back["state"]) == [0]
        assert back["param_groups"] == optimizer.state_dict()["param_groups"]
        assert torch.equal(back["state"][0]["exp_avg"], optimizer.state[parameter]["exp_avg"])

    @pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
    def test_every_numpy_generator_goes_on_with_the_same_numbers(self, kind):
        bit_generator = getattr(np.random, kind)(7)
        np.random.Generator(bit_generator).random(13)
        other = getattr(np.random, kind)(11)
        other.state = there_and_back(bit_generator.state)
        np.testing.assert_array_equal(
            np.random.Generator(other).random(17), np.random.Generator(bit_generator).random(17)
        )

    @pytest.mark.parametrize("value", [{"$tensor": 3}, {"$pairs": []}, {1: "a", "1": "b"}, {"$x": {"$y": (1,)}}])
    def test_keys_that_look_like_marks(self, value):
        assert there_and_back(value) == value

    def test_names_that_would_meet_stay_apart(self):
        value = {"a/b": np.array([1]), "a": {"b": np.array([2])}}
        back = there_and_back(value)
        assert (back["a/b"].item(), back["a"]["b"].item()) == (1, 2)


class TestCopies:
    def test_packing_takes_copies(self):
        array, tensor = np.zeros(3), torch.zeros(3)
        tensors: dict[str, torch.Tensor] = {}
        pack({"array": array, "tensor": tensor}, "root", tensors)
        array += 1
        tensor += 1
        assert all(bool((stored == 0).all()) for stored in tensors.values())

    def test_unpacking_gives_copies(self):
        tensors: dict[str, torch.Tensor] = {}
        data = pack(np.zeros(3), "root", tensors)
        unpack(data, tensors)[:] = 7
        assert unpack(data, tensors).sum() == 0


class TestBadInput:
    @pytest.mark.parametrize(
        "value", [b"bytes", {1, 2}, object(), 3 + 4j, np.array(["a"]), np.array([None]), {(1, 2): 3}, len]
    )
    def test_other_kinds_are_refused_with_their_place(self, value):
        with pytest.raises(CheckpointError, match=r"^root/outer/0 cannot be stored"):
            pack({"outer": [value]}, "root", {})

    @pytest.mark.parametrize("data", [{"$tensor": "gone"}, {"$array": 3}, {"$unknown": "a"}, {"$scalar": ["a"]}])
    def test_a_damaged_tree_is_refused(self, data):
        with pytest.raises(CheckpointError, match="damaged"):
            unpack(data, {"a": torch.zeros(1)})
