"""Agents from a run's folder: no stranger's code runs unless it is asked for, and only what is meant is loaded."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
import yaml
from stable_baselines3 import PPO

from rims_rl.agents.checkpoint import CheckpointStore
from rims_rl.cli import main
from rims_rl.cores import core_names
from rims_rl.errors import CheckpointError
from rims_rl.loading import load_archive
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from tests.test_training import SMALL, UPDATE

pytestmark = pytest.mark.faults
TINY = [
    "--env", "cartpole-novel", "--n-envs", "2", "--n-steps", "4", "--batch-size", "8", "--n-epochs", "1", "-n", "16",
    "--save-freq", "8", "--wandb", "disabled", "--verbose", "0", "--device", "cpu",
]  # fmt: skip
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *SMALL, "-n", str(UPDATE), "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def run(_trained: Path, tmp_path: Path) -> Path:
    """A folder of one's own with a small finished run."""
    return shutil.copytree(_trained, tmp_path / "run")


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.write_text, (self.path, "it ran"))


def poison(archive: Path, canary: Path) -> None:
    """Put an object that runs code into an archive of SB3's."""
    import base64

    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name) for name in source.namelist()}
    data = json.loads(members["data"])
    data["poison"] = {":type:": "x", ":serialized:": base64.b64encode(cloudpickle.dumps(Canary(canary))).decode()}
    members["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)


def evaluate(*words: Any) -> int:
    return main(["evaluate", *map(str, words), "--episodes", "1", "--max-episode-steps", "5"])


class TestArchives:
    @pytest.mark.parametrize("as_the_run", [True, False])
    def test_one_is_refused_with_one_line_and_not_opened(
        self, run: Path, tmp_path: Path, capsys: Said, as_the_run: bool
    ) -> None:
        poison(run / "model.zip", tmp_path / "canary")
        words = [run / "model.zip"] if as_the_run else [run, "--checkpoint", "model.zip"]
        assert evaluate(*words) == 2
        said = capsys.readouterr().err.strip()
        assert said == (
            f"rims-rl: {run / 'model.zip'} is an archive of Stable-Baselines3: loading it runs whatever code is in it; "
            "give --trust-pickle if you trust whoever made it"
        )
        assert not (tmp_path / "canary").exists()

    def test_the_canary_of_these_tests_sings(self, run: Path, tmp_path: Path) -> None:
        poison(run / "model.zip", tmp_path / "canary")
        evaluate(run / "model.zip", "--trust-pickle")
        assert (tmp_path / "canary").read_text() == "it ran"

    def test_with_trust_it_scores_as_the_same_weights_do(self, run: Path) -> None:
        assert evaluate(run) == 0
        own = json.loads((run / "evaluation.json").read_text())
        assert evaluate(run / "model.zip", "--trust-pickle") == 0
        archived = json.loads((run / "evaluation.json").read_text())
        assert (archived["checkpoint"], own["checkpoint"]) == ("model.zip", "final")
        assert archived["games"] == own["games"]

    def test_a_run_is_evaluated_without_opening_its_archive(self, run: Path, tmp_path: Path) -> None:
        poison(run / "model.zip", tmp_path / "canary")
        assert evaluate(run) == 0
        assert not (tmp_path / "canary").exists()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04N."])
    def test_a_damaged_one_is_one_line(self, run: Path, capsys: Said, content: bytes) -> None:
        (run / "model.zip").write_bytes(content)
        assert evaluate(run / "model.zip", "--trust-pickle") == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith(f"rims-rl: {run / 'model.zip'} cannot be loaded as a model of RIMPPO (")
        assert "\n" not in said

    def test_one_of_another_algorithm_is_named(self, tmp_path: Path) -> None:
        PPO("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "ppo.zip")
        with pytest.raises(CheckpointError, match=r"ppo\.zip (holds a ActorCriticPolicy|cannot be loaded)"):
            load_archive(tmp_path / "ppo.zip", trust=True)

    def test_members_do_not_leave_it(self, run: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(run / "model.zip", "a") as archive:
            archive.writestr("../../escaped", "out")
            archive.writestr(str(tmp_path / "escaped"), "out")
        before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
        assert load_archive(run / "model.zip", trust=True).step == UPDATE
        assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before

    def test_two_agents_at_once_are_refused(self, run: Path, capsys: Said) -> None:
        assert evaluate(run / "model.zip", "--checkpoint", "best") == 2
        assert "name two agents; give one of them" in capsys.readouterr().err

    def test_one_that_is_missing_is_said(self, run: Path, capsys: Said) -> None:
        assert evaluate(run / "other.zip", "--trust-pickle") == 2
        assert f"no file at {run / 'other.zip'}" in capsys.readouterr().err


def edit(run: Path, **settings: Any) -> None:
    """Change settings in a run's config.yaml."""
    entries = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**entries, **settings}))


def resume(run: Path) -> int:
    return main(["train", "--resume", str(run), "-n", str(3 * UPDATE)])


class TestTheRunOfACheckpoint:
    @pytest.mark.parametrize(("name", "value"), [("env", "CartPole-v1"), ("core", "lstm"), ("protocol", "machado")])
    def test_another_task_or_network_is_refused(self, run: Path, capsys: Said, name: str, value: str) -> None:
        before = yaml.safe_load((run / "config.yaml").read_text())[name]
        edit(run, **{name: value, **({"core_kwargs": {}} if name == "core" else {})})
        assert resume(run) == 2
        path = CheckpointStore(run / "checkpoints").newest().path
        assert capsys.readouterr().err.strip() == (
            f"rims-rl: {path} was made with {name} {before!r}, this run has {value!r}"
        )

    def test_other_settings_are_said_and_taken(self, run: Path, caplog: pytest.LogCaptureFixture) -> None:
        edit(run, gamma=0.9, ent_coef=0.0)
        with caplog.at_level(logging.WARNING):
            assert resume(run) == 0
        name = f"step_{UPDATE:09d}.safetensors"
        assert f"{name} was made with gamma 0.99 (now 0.9), ent_coef 0.01 (now 0.0)" in caplog.messages

    def test_how_far_it_goes_and_what_it_shows_may_differ_without_a_word(
        self, run: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        edit(run, log_interval=3, total_timesteps=2 * UPDATE, most_skipped=3, halve_on_oom=True, name="other")
        with caplog.at_level(logging.WARNING):
            assert resume(run) == 0
        assert not [message for message in caplog.messages if "was made with" in message]

    def test_a_checkpoint_that_does_not_say_is_taken(self, run: Path) -> None:
        path = CheckpointStore(run / "checkpoints").newest().path
        tensors, manifest = read_tensors(path)
        del manifest["about"]["settings"]
        write_tensors(path, tensors, manifest)
        assert resume(run) == 0

    def test_a_shared_policy_tells_its_settings_but_not_whose_it_is(self, run: Path) -> None:
        settings = json.loads((run / "policy.json").read_text())["about"]["settings"]
        assert settings["gamma"] == 0.99
        assert not {"wandb_entity", "output", "name", "device"} & set(settings)

    def test_an_agent_of_other_observations_is_refused(self, run: Path, capsys: Said) -> None:
        edit(run, env="Acrobot-v1")
        torch.manual_seed(0)
        assert evaluate(run) == 2
        assert "the agent was trained with" in capsys.readouterr().err


class TestMatchedCores:
    """A core whose width was searched for (`--core-parameters`) is searched for again where its weights are read."""

    @pytest.mark.parametrize("core", core_names())
    def test_its_checkpoint_is_evaluated_and_gone_on_with(self, tmp_path: Path, core: str) -> None:
        words = ["--core", core, "--core-parameters", "60000", "--output", str(tmp_path / "run")]
        assert main(["train", *TINY, *words]) == 0
        assert evaluate(tmp_path / "run", "--checkpoint", "newest") == 0
        assert main(["train", "--resume", str(tmp_path / "run"), "-n", "24"]) == 0
