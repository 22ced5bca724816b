"""Policies for sharing: weights beside a description, either of which may be anything."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rims_rl.agents import CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy, RIMPolicy
from rims_rl.agents.policy_files import load_policy, save_policy
from rims_rl.agents.spaces import space_from_json, space_to_json
from rims_rl.errors import CheckpointError
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from tests.agents.small_worlds import CORES, MIXED, SMALL_IMAGE, SMALL_RIM, VECTOR
from tests.fuzz.guard import survives
from tests.fuzz.hostile import fuzzed, nested

pytestmark = pytest.mark.faults
MADE: list[tuple[str, type[RIMPolicy], spaces.Space[Any], dict[str, Any]]] = [
    ("rim", MlpRIMPolicy, VECTOR, {"core": "rim", "core_kwargs": SMALL_RIM}),
    ("transformer", MlpRIMPolicy, VECTOR, {"core": "transformer", "core_kwargs": CORES["transformer"]}),
    ("dnc", MlpRIMPolicy, VECTOR, {"core": "dnc", "core_kwargs": CORES["dnc"]}),
    ("image", CnnRIMPolicy, SMALL_IMAGE, {"core": "rim", "core_kwargs": SMALL_RIM, "encoder": "nature-slots"}),
    ("mixed", MultiInputRIMPolicy, MIXED, {"core": "gru", "core_kwargs": CORES["gru"]}),
]
NAMES = [name for name, *_ in MADE]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one policy per name."""
    folder = tmp_path_factory.mktemp("good")
    for name, cls, space, settings in MADE:
        policy = cls(space, spaces.Discrete(3), lambda _: 0.0, **settings)
        save_policy(policy, folder / name, {"step": 7, "env": "here"})
        load(folder / name)  # compiled code is built and opened at its first use
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def with_sum(stem: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Return a description that names the weights beside it, as anyone can make it."""
    return entries | {"weights_sha256": hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()}


def load(stem: Path) -> Any:
    """Load what lies at a stem; what loads must act, too."""
    policy = load_policy(stem)
    policy.predict(policy.observation_space.sample())
    return policy


class TestMutations:
    @fuzzed(400)
    def test_descriptions(self, good, folder, by):
        name = by.one_of(NAMES)
        shutil.copy(good / f"{name}.safetensors", folder / "policy.safetensors")
        entries = json.loads((good / f"{name}.json").read_text())
        part = by.one_of(["settings", "observation_space", "action_space", None])
        changed = by.json(entries) if part is None else entries | {part: by.json(entries[part])}
        (folder / "policy.json").write_text(json.dumps(changed))
        survives(lambda: load(folder / "policy"), folder, names="policy")

    @fuzzed(150)
    def test_weights_that_are_whole_by_both_checksums(self, good, folder, by):
        name, stem = by.one_of(NAMES), folder / "policy"
        weights, manifest = read_tensors(good / f"{name}.safetensors")
        write_tensors(stem.with_suffix(".safetensors"), by.tensors(weights), manifest)
        entries = json.loads((good / f"{name}.json").read_text())
        stem.with_suffix(".json").write_text(json.dumps(with_sum(stem, entries)))
        survives(lambda: load(stem), folder, names="policy")

    @fuzzed(150)
    def test_bytes(self, good, folder, by):
        name, ending = by.one_of(NAMES), by.one_of([".json", ".safetensors"])
        for other in (".json", ".safetensors"):
            shutil.copy(good / f"{name}{other}", folder / f"policy{other}")
        (folder / f"policy{ending}").write_bytes(by.bytes((good / f"{name}{ending}").read_bytes()))
        survives(lambda: load(folder / "policy"), folder, names="policy")


class TestSizes:
    """Some bytes that ask for more memory or time than there is."""

    def refused(self, good: Path, name: str, **changes: Any) -> str:
        entries = json.loads((good / f"{name}.json").read_text())
        entries["settings"] |= changes.pop("settings", {})
        stem = good / f"large-{name}"
        shutil.copy(good / f"{name}.safetensors", stem.with_suffix(".safetensors"))
        stem.with_suffix(".json").write_text(json.dumps(entries | changes))
        found = survives(lambda: load_policy(stem), good, names=stem.name, seconds=3)
        assert isinstance(found, CheckpointError)
        return str(found)

    @pytest.mark.parametrize(
        ("name", "kwargs"),
        [
            ("rim", {"num_units": 10**9}), ("rim", {"unit_size": 10**12}), ("rim", {"input_heads": 10**9}),
            ("transformer", {"num_layers": 10**9}), ("transformer", {"window": 10**9}),
            ("transformer", {"window": 10**18}), ("transformer", {"feedforward_size": 10**13}),
            ("dnc", {"memory_rows": 10**9}), ("dnc", {"read_heads": 10**9}), ("dnc", {"memory_width": 10**30}),
            ("mixed", {"hidden_size": 10**15}),
        ],
    )  # fmt: skip
    def test_cores(self, good, name, kwargs):
        entries = json.loads((good / f"{name}.json").read_text())
        self.refused(good, name, settings={"core_kwargs": entries["settings"]["core_kwargs"] | kwargs})

    @pytest.mark.parametrize("core", ["rmc", "ntm", "entnet", "lstm", "feedforward"])
    @pytest.mark.parametrize("size", [10**9, 10**19])
    def test_other_cores(self, good, core, size):
        for setting in ("num_blocks", "mlp_layers", "memory_rows", "read_heads", "num_slots", "hidden_size"):
            self.refused(good, "rim", settings={"core": core, "core_kwargs": {setting: size}})

    @pytest.mark.parametrize("layers", [[10**9], [1] * 100_000, {"pi": [10**12], "vf": []}, {"pi": 10**9}])
    def test_heads(self, good, layers):
        self.refused(good, "rim", settings={"net_arch": layers})

    @pytest.mark.parametrize(
        "space",
        [
            {"kind": "Box", "shape": [10**9, 10**9], "low": 0, "high": 1, "dtype": "uint8"},
            {"kind": "Box", "shape": [4, 10**5, 10**5], "low": 0, "high": 255, "dtype": "uint8"},
            {"kind": "Box", "shape": [3], "low": 0, "high": 1, "dtype": "V1000000000"},
            {"kind": "Box", "shape": [3], "low": 0, "high": 1, "dtype": "O"},
            {"kind": "Discrete", "n": 10**18, "start": 0}, {"kind": "MultiBinary", "n": 10**12},
            {"kind": "MultiBinary", "n": [10**6, 10**6]}, {"kind": "MultiBinary", "n": [1] * 65},
            {"kind": "Box", "shape": [9] * 400_000, "low": 0, "high": 1, "dtype": "uint8"},
            {"kind": "Dict", "spaces": [
                [str(part), {"kind": "Box", "shape": [10**7], "low": 0, "high": 1, "dtype": "uint8"}]
                for part in range(1_000)
            ]},
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("which", ["observation_space", "action_space"])
    def test_spaces(self, good, space, which):
        self.refused(good, "rim", **{which: space})

    @pytest.mark.parametrize(
        ("core", "kwargs"),
        [
            ("rmc", {"num_slots": 8_192, "slot_size": 1, "heads": 1}),
            ("rim", {"num_units": 5_000, "active_units": 1, "unit_size": 1, "input_key_size": 1,
                     "communication_key_size": 1, "communication_value_size": 1}),
            ("ntm", {"memory_rows": 4_096, "memory_width": 2_048, "read_heads": 8, "hidden_size": 1}),
        ],
    )  # fmt: skip
    def test_a_step_that_takes_the_square_of_the_file(self, good, core, kwargs):
        policy = MlpRIMPolicy(
            VECTOR, spaces.Discrete(3), lambda _: 0.0, core=core, core_kwargs=kwargs, net_arch=[], ortho_init=False
        )
        save_policy(policy, good / "square")
        found = survives(lambda: load(good / "square"), good, names="square")
        assert "numbers beside its weights" in str(found)

    def layered(self, good: Path, layers: int, width: int, *, shared: bool) -> Path:
        """Write a policy of so many layers, whose weights are one tensor each or all the same."""
        weights, manifest = read_tensors(good / "rim.safetensors")
        entries, stem = json.loads((good / "rim.json").read_text()), good / "layered"
        first = weights["mlp_extractor.policy_net.0.weight"].shape[1]
        weights = {name: tensor for name, tensor in weights.items() if "mlp_extractor" not in name}
        same = {shape: torch.zeros(shape) for shape in ((width,), (width, width), (width, first))}
        for layer, net in itertools.product(range(layers), ("policy_net", "value_net")):
            for name, shape in (("weight", (width, width if layer else first)), ("bias", (width,))):
                weights[f"mlp_extractor.{net}.{2 * layer}.{name}"] = same[shape] if shared else torch.zeros(shape)
        weights |= {"action_net.weight": torch.zeros(3, width), "value_net.weight": torch.zeros(1, width)}
        entries["settings"]["net_arch"] = [width] * layers
        write_tensors(stem.with_suffix(".safetensors"), weights, manifest)
        stem.with_suffix(".json").write_text(json.dumps(with_sum(stem, entries)))
        return stem

    @pytest.mark.parametrize(("layers", "width"), [(3, 1024), (200, 1024)])
    def test_one_weight_under_many_names(self, good, layers, width):
        stem = self.layered(good, layers, width, shared=True)
        found = survives(lambda: load_policy(stem), good, names=stem.name, seconds=3)
        assert isinstance(found, CheckpointError)

    def test_as_many_weights_as_layers_are_taken(self, good):
        assert isinstance(load_policy(self.layered(good, 3, 64, shared=False)), RIMPolicy)

    def test_a_space_in_a_space_in_a_space(self, good):
        space: dict[str, Any] = {"kind": "Discrete", "n": 2, "start": 0}
        for _ in range(300):
            space = {"kind": "Dict", "spaces": [["a", space]]}
        self.refused(good, "rim", observation_space=space)

    def test_a_number_of_parameters_to_search_for(self, good):
        self.refused(good, "rim", settings={"core_parameters": 10**15})

    def test_depth_and_size_of_the_description(self, good):
        stem = good / "deep"
        shutil.copy(good / "rim.safetensors", stem.with_suffix(".safetensors"))
        for text in ("[" * 10**6, json.dumps(nested(900)), "1" * 10_000, " " * (17 * 2**20)):
            stem.with_suffix(".json").write_text(text)
            assert isinstance(survives(lambda: load_policy(stem), good, names="deep.json"), CheckpointError)


class TestClasses:
    @pytest.mark.parametrize("what", ["core", "encoder", "policy", "activation_fn"])
    def test_no_module_is_imported(self, good, what):
        said = TestSizes().refused(good, "rim", settings={what: "rims_canary:Evil"})
        assert "rims_canary:Evil" in said

    @pytest.mark.parametrize(
        "settings", [{"optimizer_class": "torch.optim.SGD"}, {"lr_schedule": 1}, {"use_sde": True}, {"dtype": "O"}]
    )
    def test_other_arguments_of_the_constructor_are_not_for_files(self, good, settings):
        assert "has a setting" in TestSizes().refused(good, "rim", settings=settings)


class TestSpaces:
    @fuzzed(300)
    def test_mutated_spaces(self, folder, by):
        every = [VECTOR, SMALL_IMAGE, MIXED, spaces.Discrete(5), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(7)]
        data = by.json(space_to_json(by.one_of([*every, spaces.Box(-1, 1, (2,), np.float64)])))
        space = survives(lambda: space_from_json(data), folder)
        if isinstance(space, spaces.Box | spaces.MultiBinary):
            assert np.prod(space.shape) <= 2**24

    @pytest.mark.parametrize("dtype", ["O", "V8", "S8", "U8", "M8[s]", "c8", "f16", "i4,i4", None, ["f4"], 7])
    def test_only_numbers_have_bounds(self, dtype):
        with pytest.raises(CheckpointError, match=r"a stored space is damaged: .*type"):
            space_from_json({"kind": "Box", "shape": [3], "low": 0, "high": 1, "dtype": dtype})


class TestOwnClasses:
    def test_are_not_sketched(self, good):
        """A class of the caller's own need not know how to be built without numbers."""

        class Own(CORE):
            def __init__(self, *given: Any, **named: Any) -> None:
                super().__init__(*given, **named)
                float(next(self.parameters()).detach().sum())

        policy = load_policy(good / "mixed", core=Own)
        assert isinstance(policy.core, Own)
        assert torch.equal(next(policy.parameters()), next(load_policy(good / "mixed").parameters()))


def _core() -> Any:
    from rims_rl.cores import core_class

    return core_class("gru")


CORE: Any = _core()
