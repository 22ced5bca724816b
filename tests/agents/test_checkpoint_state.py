"""A run that is captured, stored, read and restored goes on as if it had never stopped."""

from __future__ import annotations

import copy
import logging
import random
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from rims_rl.agents import RIMPPO
from rims_rl.agents.checkpoint import capture, read_tensors, restore, write_tensors
from rims_rl.envs.make import make_env
from rims_rl.errors import CheckpointError
from rims_rl.storage.random_states import random_state, set_random_state, untouched_random_state

pytestmark = pytest.mark.faults

N_ENVS, N_STEPS = 3, 10
ROLLOUT = N_ENVS * N_STEPS
STOP, TOTAL = 3 * ROLLOUT, 6 * ROLLOUT


class Wandering(gym.Env[Any, Any]):
    """A random walk that draws from its generator at every step and tells and takes back its whole state."""

    def __init__(self, dictionary: bool = False) -> None:
        box = spaces.Box(-np.inf, np.inf, (2,))
        self.observation_space = spaces.Dict({"a": box, "b": spaces.Discrete(4)}) if dictionary else box
        self.action_space = spaces.Discrete(2)
        self.place = np.zeros(2, np.float32)

    def _observation(self) -> Any:
        dictionary = isinstance(self.observation_space, spaces.Dict)
        return {"a": self.place.copy(), "b": int(abs(self.place[0])) % 4} if dictionary else self.place.copy()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2).astype(np.float32)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = self.place + self.np_random.normal(size=2).astype(np.float32) + float(action) - 0.5
        return self._observation(), float(self.place[1]), bool(self.np_random.random() < 0.1), False, {}


class Restorable(Monitor):
    """A monitored Wandering with snapshots."""

    def snapshot(self) -> dict[str, Any]:
        env = self.unwrapped
        generator = env.np_random.bit_generator.state
        return {"place": env.place, "generator": generator, "rewards": list(self.rewards), "reset": self.needs_reset}

    def restore(self, snapshot: dict[str, Any]) -> None:
        env = self.unwrapped
        env.place, env.np_random.bit_generator.state = snapshot["place"], snapshot["generator"]
        self.rewards, self.needs_reset = snapshot["rewards"], snapshot["reset"]


def make(kind: str) -> VecEnv:
    if kind == "cartpole-novel":
        return make_env(kind, n_envs=N_ENVS, seed=5)
    if kind == "without snapshots":
        return DummyVecEnv([lambda: Monitor(Wandering())] * N_ENVS)
    plain = DummyVecEnv([lambda: Restorable(Wandering(dictionary="dictionary" in kind))] * N_ENVS)
    if "normalised" in kind:
        keys = ["a"] if "dictionary" in kind else None
        return VecNormalize(plain, norm_obs_keys=keys)
    return plain


def make_model(kind: str, core: str = "rim", **settings: Any) -> RIMPPO:
    policy = "MultiInputRIMPolicy" if "dictionary" in kind else "MlpRIMPolicy"
    core_kwargs = {"num_units": 3, "active_units": 2, "unit_size": 7} if core == "rim" else {"hidden_size": 11}
    arguments = {
        "n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 2, "seed": 7, "device": "cpu",
        "learning_rate": lambda left: 1e-2 * left, "clip_range": lambda left: 0.2 * left,
        "policy_kwargs": {"core": core, "core_kwargs": core_kwargs},
    }  # fmt: skip
    return RIMPPO(policy, make(kind), **(arguments | settings))


class StoreAt(BaseCallback):
    """Stores the training state when a step is reached, between two updates."""

    def __init__(self, path: Path, step: int = STOP) -> None:
        super().__init__()
        self.path, self.step = path, step

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps == self.step:
            write_tensors(self.path, *capture(self.model, {"env": "here"}))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Return tensors and manifest of one stored state."""
    path = tmp_path_factory.mktemp("state") / "x.safetensors"
    make_model("cartpole-novel").learn(STOP + 1, callback=StoreAt(path))
    return read_tensors(path)


def assert_same_run(one: RIMPPO, other: RIMPPO) -> None:
    """Compare all that training has changed, bit for bit."""
    for name, tensor in one.policy.state_dict().items():
        assert torch.equal(tensor, other.policy.state_dict()[name]), name
    for left, right in zip(one.policy.optimizer.state.values(), other.policy.optimizer.state.values(), strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert (one.num_timesteps, one._n_updates) == (other.num_timesteps, other._n_updates)
    assert torch.equal(one._last_state, other._last_state)
    np.testing.assert_equal(one._last_obs, other._last_obs)
    np.testing.assert_array_equal(one._last_episode_starts, other._last_episode_starts)
    results = [[(episode["r"], episode["l"]) for episode in model.ep_info_buffer] for model in (one, other)]
    assert results[0] == results[1]


def generators() -> tuple[Any, ...]:
    """Return the states of all global generators as plain, comparable values."""
    state = random_state()
    return (
        state["python"],
        state["numpy"]["state"]["key"].tolist(),
        state["numpy"]["state"]["pos"],
        state["torch"].tolist(),
    )


def disturb_the_generators() -> None:
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)


def interrupted_and_uninterrupted(folder: Path, **settings: Any) -> tuple[RIMPPO, RIMPPO]:
    """Return the run that went through, and the one that was stored, built anew with another seed, and continued."""
    whole = make_model(**settings)
    whole.learn(TOTAL, callback=StoreAt(folder / "x.safetensors"))
    expected = generators()
    disturb_the_generators()
    again = make_model(**settings, seed=11)
    restore(again, *read_tensors(folder / "x.safetensors"))
    assert again.num_timesteps == STOP
    again.learn(TOTAL - again.num_timesteps, reset_num_timesteps=False)
    assert generators() == expected
    return whole, again


class TestResumeIsExact:
    @pytest.mark.parametrize(
        "kind", ["cartpole-novel", "wandering", "dictionary", "normalised", "normalised dictionary"]
    )
    def test_a_resumed_run_equals_the_uninterrupted_one(self, tmp_path, kind):
        whole, again = interrupted_and_uninterrupted(tmp_path, kind=kind)
        assert_same_run(whole, again)
        assert len(whole.ep_info_buffer) > 1

    @pytest.mark.parametrize("core", ["lstm", "gru", "feedforward"])
    def test_with_every_core(self, tmp_path, core):
        assert_same_run(*interrupted_and_uninterrupted(tmp_path, kind="wandering", core=core))

    def test_with_chunks_and_a_value_clip(self, tmp_path):
        settings = {"bptt_length": 5, "batch_size": 15, "clip_range_vf": 0.2, "normalize_advantage": False}
        assert_same_run(*interrupted_and_uninterrupted(tmp_path, kind="wandering", **settings))

    def test_the_statistics_of_a_normaliser_go_on(self, tmp_path):
        whole, again = interrupted_and_uninterrupted(tmp_path, kind="normalised")
        one, other = whole.get_vec_normalize_env(), again.get_vec_normalize_env()
        np.testing.assert_equal(vars(one.obs_rms), vars(other.obs_rms))
        np.testing.assert_equal(vars(one.ret_rms), vars(other.ret_rms))
        np.testing.assert_array_equal(one.returns, other.returns)

    def test_on_frames_of_a_real_game(self, tmp_path):
        def model(seed: int) -> RIMPPO:
            env = make_env("pong", n_envs=2, seed=seed, route="gym")
            core = {"num_units": 3, "active_units": 2, "unit_size": 7}
            kwargs = {"core_kwargs": core, "encoder_kwargs": {"features_dim": 16}, "ortho_init": False}
            sizes = {"n_steps": 8, "batch_size": 8, "n_epochs": 2}
            return RIMPPO("CnnRIMPolicy", env, **sizes, seed=seed, policy_kwargs=kwargs, device="cpu")

        whole = model(5)
        whole.learn(48, callback=StoreAt(tmp_path / "x.safetensors", 32))
        again = model(13)
        restore(again, *read_tensors(tmp_path / "x.safetensors"))
        again.learn(16, reset_num_timesteps=False)
        assert_same_run(whole, again)
        whole.env.close()
        again.env.close()


class TestResumeIsApproximate:
    def test_environments_without_snapshots_begin_new_episodes(self, tmp_path, caplog):
        whole = make_model("without snapshots")
        whole.learn(STOP + 1, callback=StoreAt(tmp_path / "x.safetensors"))
        tensors, manifest = read_tensors(tmp_path / "x.safetensors")
        assert manifest["exact"] is False
        first_of_the_run = make_model("without snapshots").env.reset()
        again = make_model("without snapshots")
        with caplog.at_level(logging.WARNING):
            restore(again, tensors, manifest)
        assert "the run goes on with new episodes" in caplog.text
        assert again._last_episode_starts.all()
        assert torch.equal(again._last_state, again.policy.initial_state(N_ENVS))
        assert not np.array_equal(again._last_obs, first_of_the_run)
        again.learn(ROLLOUT, reset_num_timesteps=False)
        assert again.num_timesteps == STOP + ROLLOUT

    def test_a_wrapper_with_a_state_of_its_own_makes_it_approximate(self):
        model = make_model("wandering")
        model.set_env(VecFrameStack(make("wandering"), 1))
        model.learn(ROLLOUT)
        assert capture(model)[1]["exact"] is False


class TestManifest:
    def test_it_tells_what_the_state_is_of(self, stored):
        manifest = stored[1]
        assert manifest["exact"] is True
        assert (manifest["num_timesteps"], manifest["n_envs"], manifest["about"]) == (STOP, N_ENVS, {"env": "here"})
        assert manifest["policy"]["core_kwargs"] == {"num_units": 3, "active_units": 2, "unit_size": 7}
        assert manifest["versions"]["torch"] == torch.__version__

    def test_capturing_changes_nothing_and_takes_copies(self):
        model = make_model("wandering")
        model.learn(ROLLOUT)
        before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        generators_before = generators()
        tensors, manifest = capture(model)
        assert generators() == generators_before
        frozen = copy.deepcopy((tensors, manifest))
        model.learn(ROLLOUT, reset_num_timesteps=False)
        assert all(torch.equal(tensors[f"policy/{name}"], tensor) for name, tensor in before.items())
        assert manifest == frozen[1]
        assert all(torch.equal(tensor, frozen[0][name]) for name, tensor in tensors.items())

    def test_other_versions_are_said(self, stored, caplog):
        tensors, manifest = stored
        changed = {**manifest, "versions": {**manifest["versions"], "torch": "1.0"}}
        with caplog.at_level(logging.WARNING):
            restore(make_model("cartpole-novel"), tensors, changed)
        assert "the checkpoint of step 90 was made with torch 1.0 (now" in caplog.text

    def test_before_the_first_rollout_there_is_nothing_to_store(self):
        with pytest.raises(CheckpointError, match="before the first rollout"):
            capture(make_model("wandering"))


class TestMismatch:
    """What does not fit is refused by its name, and the model stays as it was."""

    def refuse(self, model: RIMPPO, stored: tuple[Any, Any], message: str) -> None:
        before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        with pytest.raises(CheckpointError, match=message) as caught:
            restore(model, *stored)
        assert "\n" not in str(caught.value)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.policy.state_dict().items())
        assert model.num_timesteps == 0

    def test_another_size(self, stored):
        kwargs = {"core_kwargs": {"num_units": 3, "active_units": 2, "unit_size": 5}}
        model = make_model("cartpole-novel", policy_kwargs=kwargs)
        self.refuse(model, stored, r"the checkpoint of step 90 does not fit this network: core\.\S+ is float32 \(")

    def test_another_core(self, stored):
        self.refuse(make_model("cartpole-novel", core="gru"), stored, r"does not fit this network: it lacks core\.")

    def test_a_weight_too_many(self, stored):
        tensors, manifest = stored
        more = {**tensors, "policy/extra": torch.zeros(1)}
        self.refuse(make_model("cartpole-novel"), (more, manifest), "it has extra, which the network lacks")

    def test_another_number_of_environments(self, stored):
        env = make_env("cartpole-novel", n_envs=2, seed=5)
        kwargs = {"core_kwargs": {"num_units": 3, "active_units": 2, "unit_size": 7}}
        model = RIMPPO("MlpRIMPolicy", env, n_steps=10, batch_size=10, policy_kwargs=kwargs, device="cpu")
        self.refuse(model, stored, r"has n_envs=3, this run has 2")

    def test_another_observation(self, stored):
        tensors, manifest = stored
        other = {**tensors, "last_obs": torch.zeros(N_ENVS, 5)}
        message = r"has observations \{'observation': \(\(3, 5\), 'float32'\)\}, expected"
        self.refuse(make_model("cartpole-novel"), (other, manifest), message)

    def test_environments_that_cannot_be_put_back(self, stored):
        model = make_model("cartpole-novel")
        model.set_env(VecFrameStack(make("cartpole-novel"), 1))
        self.refuse(model, stored, r"from environments with snapshots, these are without: use the same route")

    def test_a_snapshot_of_another_environment(self, stored):
        tensors, manifest = copy.deepcopy(stored)
        for snapshot in manifest["state"]["environment"]["snapshots"]:
            snapshot.pop("env")
        self.refuse(make_model("cartpole-novel"), (tensors, manifest), "does not fit these environments")

    def test_a_file_of_another_kind(self, stored):
        self.refuse(make_model("cartpole-novel"), (stored[0], {"kind": "policy"}), "found 'policy'")


class TestRandomStates:
    def draw(self) -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    def test_setting_it_repeats_the_numbers(self):
        before = random_state()
        drawn = self.draw()
        assert self.draw() != drawn
        set_random_state(before)
        assert self.draw() == drawn

    def test_the_body_moves_nothing(self):
        before = generators()
        with untouched_random_state():
            self.draw()
        assert generators() == before

    def test_the_body_moves_nothing_when_it_fails(self):
        before = generators()
        with pytest.raises(ZeroDivisionError), untouched_random_state():
            raise ZeroDivisionError(self.draw())
        assert generators() == before
