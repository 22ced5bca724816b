"""A stored policy acts like the one that was stored, and its files run nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rims_rl.agents.checkpoint import load_policy, save_policy, write_tensors
from rims_rl.agents.policies import CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy, RIMPolicy
from rims_rl.cores.gru import GRU
from rims_rl.errors import CheckpointError
from tests.storage.test_tensor_files import Malicious

pytestmark = pytest.mark.faults

BOX = spaces.Box(-np.inf, np.array([1.0, 2.0, np.inf], np.float32))
FRAMES = spaces.Box(0, 255, (2, 36, 36), np.uint8)
RIM = {"num_units": 3, "active_units": 2, "unit_size": 7}


class OwnCore(GRU):
    """A core class that is not one of rims_rl's."""


def make(
    policy: type[RIMPolicy] = MlpRIMPolicy, observation: Any = BOX, action: Any = None, **kwargs: Any
) -> RIMPolicy:
    settings = {"core": "rim", "core_kwargs": RIM, "ortho_init": False} | kwargs
    return policy(observation, action or spaces.Discrete(5), lambda _: 1e-3, **settings)


def actions_of(policy: RIMPolicy, steps: int = 7) -> list[Any]:
    """Play deterministic and sampled actions over a few steps of made-up observations."""
    space, state, taken = policy.observation_space, None, []
    space.seed(3)
    torch.manual_seed(3)
    for step in range(steps):
        sample = space.sample()
        batch = {key: value[None] for key, value in sample.items()} if isinstance(sample, dict) else sample[None]
        action, state = policy.predict(batch, state, np.array([step == 0]), deterministic=step % 2 == 0)
        taken.append(action.tolist())
    return taken


def edited(stem: Path, **changes: Any) -> Path:
    path = stem.with_name(stem.name + ".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return stem


def edited_settings(stem: Path, **changes: Any) -> Path:
    settings = json.loads(stem.with_name(stem.name + ".json").read_text())["settings"]
    return edited(stem, settings=settings | changes)


class TestRoundTrip:
    @pytest.mark.parametrize(
        "policy",
        [
            lambda: make(),
            lambda: make(core="lstm", core_kwargs={"hidden_size": 11}, net_arch={"pi": [5], "vf": [3, 2]}),
            lambda: make(action=spaces.Box(-1, 1, (2,)), activation_fn=nn.ReLU),
            lambda: make(action=spaces.MultiDiscrete([3, 2])),
            lambda: make(action=spaces.MultiBinary(4)),
            lambda: make(CnnRIMPolicy, FRAMES, encoder_kwargs={"features_dim": 13}),
            lambda: make(CnnRIMPolicy, FRAMES, encoder="nature-slots"),
            lambda: make(MultiInputRIMPolicy, spaces.Dict({"b": BOX, "a": spaces.Box(0, 1, (2,))})),
        ],
        ids=["rim", "lstm", "box", "multi-discrete", "multi-binary", "frames", "slots", "dictionary"],
    )
    def test_it_acts_the_same(self, tmp_path, policy):
        stored = policy()
        save_policy(stored, tmp_path / "policy", {"steps": 7})
        loaded = load_policy(tmp_path / "policy")
        assert type(loaded) is type(stored)
        assert loaded.observation_space == stored.observation_space
        assert actions_of(loaded) == actions_of(stored)

    def test_the_json_tells_what_it_is(self, tmp_path):
        save_policy(make(), tmp_path / "policy", {"env": "pong", "score": 19.5})
        entries = json.loads((tmp_path / "policy.json").read_text())
        assert entries["about"] == {"env": "pong", "score": 19.5}
        assert entries["settings"]["core_kwargs"] == RIM

    def test_a_name_with_a_dot_keeps_it(self, tmp_path):
        save_policy(make(), tmp_path / "pong.v2")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pong.v2.json", "pong.v2.safetensors"]
        load_policy(tmp_path / "pong.v2")

    @pytest.mark.parametrize("ending", [".safetensors", ".json"])
    def test_the_path_of_either_file_is_understood(self, tmp_path, ending):
        stored = make()
        save_policy(stored, tmp_path / "policy")
        assert actions_of(load_policy(tmp_path / f"policy{ending}")) == actions_of(stored)

    def test_loading_draws_no_random_numbers(self, tmp_path):
        save_policy(make(), tmp_path / "policy")
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        load_policy(tmp_path / "policy")
        assert torch.equal(torch.rand(3), expected)


class TestOwnClasses:
    def save(self, folder: Path) -> Path:
        save_policy(make(core=OwnCore, core_kwargs={"hidden_size": 11}), folder / "policy")
        return folder / "policy"

    def test_a_class_of_the_users_own_is_not_imported_from_the_file(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"uses the core class \S+:OwnCore, .* pass core="):
            load_policy(self.save(tmp_path))

    def test_it_is_taken_from_the_caller(self, tmp_path):
        loaded = load_policy(self.save(tmp_path), core=OwnCore)
        assert type(loaded.core) is OwnCore
        assert actions_of(loaded) == actions_of(make_like(loaded))

    def test_a_module_named_in_the_file_is_not_imported(self, tmp_path, monkeypatch):
        (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Core: pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        save_policy(make(), tmp_path / "policy")
        for name in ("evil_module:Core", "evil_module.Core", "evil_module"):
            for setting in ("core", "encoder", "policy", "activation_fn"):
                with pytest.raises(CheckpointError, match="evil_module"):
                    load_policy(edited_settings(tmp_path / "policy", **{setting: name}))
                save_policy(make(), tmp_path / "policy")
        assert not (tmp_path / "ran").exists()


def make_like(policy: RIMPolicy) -> RIMPolicy:
    """Return another policy with the same weights."""
    twin = make(core=OwnCore, core_kwargs={"hidden_size": 11})
    twin.load_state_dict(policy.state_dict())
    return twin


class TestBadInput:
    @pytest.fixture
    def stem(self, tmp_path):
        save_policy(make(), tmp_path / "policy")
        return tmp_path / "policy"

    def refused(self, stem: Path, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_policy(stem)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("ending", [".safetensors", ".json"])
    def test_a_missing_file_is_named(self, stem, ending):
        stem.with_name(f"policy{ending}").unlink()
        self.refused(stem, rf"policy\{ending} does not exist")

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other"}', "\x00\x01", "[" * 99_999])
    def test_a_garbled_description_is_named(self, stem, text):
        stem.with_name("policy.json").write_text(text)
        self.refused(stem, r"policy\.json (cannot be read|is not a policy of rims_rl)")

    def test_a_truncated_weights_file_is_named(self, stem):
        path = stem.with_name("policy.safetensors")
        path.write_bytes(path.read_bytes()[:-9])
        self.refused(stem, r"policy\.safetensors is truncated")

    def test_weights_of_another_save_are_noticed(self, stem):
        write_tensors(stem.with_name("policy.safetensors"), {"x": torch.zeros(1)}, {"kind": "policy"})
        self.refused(stem, "not the one that policy.json describes")

    def test_a_pickle_in_place_of_the_weights_is_not_run(self, stem, tmp_path):
        stem.with_name("policy.safetensors").write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
        self.refused(stem, r"policy\.safetensors is not a safetensors file")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"core_kwargs": {"num_units": 3, "active_units": 2, "unit_size": 5}}, "does not fit this network: core"),
            ({"core_kwargs": {"num_units": 3, "active_units": 4}}, "cannot be built: .*active_units"),
            ({"core_kwargs": {"nonsense": 3}}, "cannot be built: .*nonsense"),
            ({"core": "rimm"}, "cannot be built: unknown core 'rimm'"),
            ({"unheard": 1}, "cannot be built: .*unheard"),
            ({"policy": "system"}, "has the policy 'system'; known are MlpRIMPolicy"),
            ({"activation_fn": "Module"}, "has the activation_fn 'Module'; known are Tanh"),
        ],
    )
    def test_settings_that_do_not_fit(self, stem, settings, message):
        self.refused(edited_settings(stem, **settings), message)

    def test_a_missing_entry_is_named(self, stem):
        self.refused(edited(stem, observation_space=None), "a stored space is damaged")
        self.refused(edited(stem, settings={}), "is damaged: it lacks 'policy'")
