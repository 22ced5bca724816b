"""Checkpoints to go on from: whole by their checksum, which anyone can compute, and made to do harm."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from rims_rl.agents import RIMPPO
from rims_rl.agents.training_state import capture, restore
from rims_rl.envs.make import make_env
from rims_rl.errors import CheckpointError, RimsError
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from tests.fuzz.guard import check_message, survives
from tests.fuzz.hostile import Mischief, fuzzed

pytestmark = pytest.mark.faults
N_ENVS, N_STEPS = 2, 8
KINDS = ("cartpole", "normalised", "pick object", "pong")
State = tuple[dict[str, torch.Tensor], dict[str, Any]]


def environments(kind: str) -> VecEnv:
    if kind == "pong":
        return make_env("pong", 1, 3, route="gym", variant="lazy_enemy", distractor="noise:0.2", frame_stack=2)
    if kind == "pick object":
        return make_env("rims_rl/PickObject-v0", N_ENVS, 3)
    plain = make_env("cartpole-novel", N_ENVS, 3)
    return VecNormalize(plain) if kind == "normalised" else plain


@cache
def model_of(kind: str) -> RIMPPO:
    """Return a model that has made one update."""
    policy, encoder = ("CnnRIMPolicy", {"encoder": "nature", "encoder_kwargs": {"features_dim": 7}})
    if kind != "pong":
        policy, encoder = "MlpRIMPolicy", {}
    core = {"core": "rim", "core_kwargs": {"num_units": 3, "active_units": 2, "unit_size": 5}}
    model = RIMPPO(
        policy, environments(kind), n_steps=N_STEPS, batch_size=N_STEPS, n_epochs=1, seed=7, device="cpu",
        policy_kwargs={**core, **encoder},
    )  # fmt: skip
    model.set_logger(Logger(None, []))  # SB3's own makes a folder in the system's
    return model.learn(model.n_envs * N_STEPS)


@cache
def state_of(kind: str) -> State:
    return capture(model_of(kind), {"env": kind})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


def go_on(kind: str, file: Path) -> None:
    """Restore a file's state and, when it was taken, train on from it."""
    model = model_of(kind)
    restore(model, *read_tensors(file), str(file))
    try:
        model.learn(model.n_envs * N_STEPS, reset_num_timesteps=False)
    except RimsError as error:  # NaN in weights that fit, for example: it says itself what is wrong
        check_message(error, None)


def survives_restoring(kind: str, state: State, folder: Path) -> Any:
    file = folder / "state.safetensors"
    write_tensors(file, *state)
    return survives(lambda: go_on(kind, file), folder, names=file.name)


def mutated(by: Mischief, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest in which some part of the state, or the manifest itself, is another."""
    if by.random.random() < 0.15:
        return by.json(manifest)
    part = by.one_of(sorted(manifest["state"]))
    return manifest | {"state": manifest["state"] | {part: by.json(manifest["state"][part])}}


def survives_a_mutation(kind, folder, by):
    """Check that a damaged state of this kind is taken or refused in one line."""
    tensors, manifest = state_of(kind)
    survives_restoring(kind, (by.tensors(tensors), mutated(by, manifest)), folder)


class TestMutations:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_good_state_is_taken(self, folder, kind):
        assert survives_restoring(kind, state_of(kind), folder) is None

    @fuzzed(300)
    def test_cartpole(self, folder, by):
        survives_a_mutation("cartpole", folder, by)

    @fuzzed(80)
    def test_normalised(self, folder, by):
        survives_a_mutation("normalised", folder, by)

    @fuzzed(120)
    def test_pick_object(self, folder, by):
        survives_a_mutation("pick object", folder, by)

    @fuzzed(150)
    def test_pong(self, folder, by):
        tensors, manifest = state_of("pong")
        names = [name for name in tensors if name.endswith("emulator")]
        tensors = by.tensors(tensors)
        if by.random.random() < 0.5 and names[0] in tensors:
            content = by.bytes(bytes(state_of("pong")[0][names[0]].tolist()))
            tensors[names[0]] = torch.tensor(list(content), dtype=torch.uint8)
        survives_restoring("pong", (tensors, mutated(by, manifest)), folder)


class TestWhatWasFound:
    """Each of these ended a process, or a run much later, before it was looked for."""

    def refused(self, folder: Path, kind: str = "cartpole", **parts: Any) -> str:
        tensors, manifest = state_of(kind)
        extra = {name: value for name, value in parts.items() if isinstance(value, torch.Tensor)}
        state = manifest["state"] | {name: value for name, value in parts.items() if name not in extra}
        found = survives_restoring(kind, (tensors | extra, manifest | {"state": state}), folder)
        assert isinstance(found, CheckpointError)
        return str(found)

    def test_moments_that_are_smaller_than_their_parameter(self, folder):
        """PyTorch's fused Adam would read and write beyond them."""
        tensors, manifest = state_of("cartpole")
        changed = {
            name: tensor.flatten()[:1].clone() if name.endswith(("exp_avg", "exp_avg_sq")) else tensor
            for name, tensor in tensors.items()
        }
        assert changed.keys() == tensors.keys()
        said = survives_restoring("cartpole", (changed, manifest), folder)
        assert "does not fit a parameter of shape" in str(said)

    def test_a_place_beyond_numpys_random_state(self, folder):
        state = state_of("cartpole")[1]["state"]["random"]
        numpy_state = state["numpy"] | {"state": state["numpy"]["state"] | {"pos": 10**6}}
        assert "random state is damaged" in self.refused(folder, random=state | {"numpy": numpy_state})

    @pytest.mark.parametrize("name", ["num_timesteps", "_n_updates", "_episode_num"])
    @pytest.mark.parametrize("value", [-1, 2**80, 1.5, None, "7", True])
    def test_counters(self, folder, name, value):
        counters = state_of("cartpole")[1]["state"]["counters"] | {name: value}
        self.refused(folder, counters=counters)

    @pytest.mark.parametrize(
        "names", [[f"g{n}/x" for n in range(51)], [f"a/{n}" for n in range(5_001)], ["a/" + "x" * 100]]
    )
    def test_a_table_that_takes_hours(self, folder, names):
        log = {name: {"$tuple": [1.0, {"$tuple": []}]} for name in names}
        assert "more than any run does" in self.refused(folder, log=log)

    def test_a_matrix_that_no_table_shows_may_be_large(self, folder):
        log = {f"rims/comm_unit_{n}": {"$tuple": [1.0, {"$tuple": ["stdout", "log"]}]} for n in range(6_000)}
        tensors, manifest = state_of("cartpole")
        state = manifest["state"] | {"log": log}
        assert survives_restoring("cartpole", (tensors, manifest | {"state": state}), folder) is None

    def test_settings_of_the_optimizer(self, folder):
        optimizer = state_of("cartpole")[1]["state"]["optimizer"]
        group = optimizer["param_groups"][0]
        for change in ({"amsgrad": True}, {"betas": [1]}, {"lr": "x"}, {"lr": -1}, {"capturable": True}, {"eps": None}):
            changed = optimizer | {"param_groups": [group | change]}
            self.refused(folder, optimizer=changed)

    def test_attributes_of_an_environment_cannot_be_named(self, folder):
        tensors, manifest = state_of("pong")
        snapshot = manifest["state"]["environment"]["snapshots"][0]
        changed = snapshot | {"counters": snapshot["counters"] | {"ale": None, "actions": []}}
        environment = manifest["state"]["environment"] | {"snapshots": [changed]}
        state = manifest | {"state": manifest["state"] | {"environment": environment}}
        assert survives_restoring("pong", (tensors, state), folder) is None
        assert model_of("pong").env.get_attr("_actions")[0] != []

    @pytest.mark.parametrize("action", [20, 18, 40, -1, 10**9])
    def test_an_action_that_ale_would_end_the_process_for(self, folder, action):
        snapshot = state_of("pong")[1]["state"]["environment"]["snapshots"][0]
        changed = snapshot | {"counters": snapshot["counters"] | {"last_action": action}}
        environment = state_of("pong")[1]["state"]["environment"] | {"snapshots": [changed]}
        assert "damaged" in self.refused(folder, "pong", environment=environment)

    def test_an_observation_that_stands_for_nothing_is_refused(self, tmp_path):
        from gymnasium import spaces

        from rims_rl.agents.state_checks import _check_observations

        with pytest.raises(ValueError, match="an observation that is not in"):
            _check_observations(np.array([0, 7]), spaces.Discrete(5))
        _check_observations(np.array([0, 4]), spaces.Discrete(5))
