"""Run folders: found, refused, locked, and described completely."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rims_rl.config import TrainConfig
from rims_rl.errors import ConfigError, RunExistsError
from rims_rl.runs import RunFolder, check_writable, load_config, locked, open_run, run_folder_for, save_config


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    found.create()
    return found


class TestWhereARunLies:
    def test_output_is_the_folder_itself(self) -> None:
        assert run_folder_for(TrainConfig(output=Path("here/it"))).path == Path("here/it")

    def test_a_name_is_a_folder_under_runs(self) -> None:
        assert run_folder_for(TrainConfig(name="first try/2")).path == Path("runs/first-try-2")

    def test_the_default_tells_environment_core_and_seed(self) -> None:
        path = run_folder_for(TrainConfig(env="ALE/Pong-v5", core="lstm", seed=3)).path
        assert path.parent == Path("runs")
        assert path.name.startswith("ALE-Pong-v5_lstm_3_")

    @pytest.mark.faults
    def test_two_that_begin_in_one_second_have_two_folders(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(time, "strftime", lambda *_: "20260102-030405")
        names = []
        for _ in range(3):
            folder = run_folder_for(TrainConfig())
            folder.create()
            names.append(folder.path.name)
        assert names == [f"pong_rim_0_20260102-030405{ending}" for ending in ("", "-2", "-3")]

    def test_no_name_leads_out_of_runs(self) -> None:
        assert run_folder_for(TrainConfig(name="../../etc")).path.parent == Path("runs")


class TestViews:
    def test_only_the_training_s_has_the_plain_names(self) -> None:
        folder = RunFolder(Path("run"))
        assert folder.evaluation_file == folder.evaluation_of("") == Path("run/evaluation.json")
        assert folder.video_of("best", 7, "") == Path("run/videos/best_7.mp4")

    def test_another_one_is_in_the_name_and_stays_in_the_folder(self) -> None:
        folder, view = RunFolder(Path("run")), "background:0.5:folder=../clips_held-out"
        evaluation, video = folder.evaluation_of(view), folder.video_of("best", 7, view)
        assert evaluation == Path("run/evaluation_background-0.5-folder-..-clips_held-out.json")
        assert video == Path("run/videos/best_7_background-0.5-folder-..-clips_held-out.mp4")


@pytest.mark.faults
class TestRefusals:
    def test_a_new_folder_is_accepted_and_not_made(self, tmp_path: Path) -> None:
        check_writable(RunFolder(tmp_path / "a" / "b"))
        assert list(tmp_path.iterdir()) == []

    def test_an_empty_folder_is_accepted(self, tmp_path: Path) -> None:
        check_writable(RunFolder(tmp_path))

    @pytest.mark.parametrize("name", ["config.yaml", "progress.csv", "checkpoints/best.safetensors", "model.zip"])
    def test_a_folder_that_holds_a_run_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir(parents=True)
        with pytest.raises(RunExistsError, match="already holds a run; go on with it by --resume"):
            check_writable(RunFolder(tmp_path))

    def test_a_file_in_the_folder_s_place_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        with pytest.raises(ConfigError, match="is a file, not a folder"):
            check_writable(RunFolder(tmp_path / "taken"))
        with pytest.raises(ConfigError, match="is a file, not a folder"):
            check_writable(RunFolder(tmp_path / "taken" / "below"))

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_permission_is_refused(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(ConfigError, match="no permission"):
            check_writable(RunFolder(tmp_path / "run"))

    def test_a_folder_without_a_run_is_not_opened(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no run folder"):
            open_run(tmp_path / "missing")
        with pytest.raises(ConfigError, match=r"holds no run: there is no config.yaml"):
            open_run(tmp_path)


@pytest.mark.faults
class TestLock:
    def test_a_second_owner_is_refused_until_the_first_is_gone(self, folder: RunFolder) -> None:
        with locked(folder), pytest.raises(RunExistsError, match="in use"), locked(folder):
            pass
        with locked(folder):
            assert folder.path.is_dir()

    def test_the_lock_is_freed_by_an_exception(self, folder: RunFolder) -> None:
        with pytest.raises(KeyError), locked(folder):
            raise KeyError
        with locked(folder):
            assert folder.path.is_dir()


class TestConfigFile:
    def test_what_is_saved_is_what_is_loaded(self, folder: RunFolder) -> None:
        config = replace(
            TrainConfig(), config="quick", env="breakout", core_kwargs={"num_units": 7}, learning_rate=3e-4,
            output=folder.path, wandb_tags=("a", "b"), bptt_length=16,
        )  # fmt: skip
        save_config(folder, config, ["rims-rl", "train"])
        assert load_config(folder) == config

    def test_it_holds_the_command_as_typed_and_the_versions(self, folder: RunFolder) -> None:
        save_config(folder, TrainConfig(), ["rims-rl", "train", "--name", "two words"])
        about = yaml.safe_load(folder.config_file.read_text())["about"]
        assert about["command"] == "rims-rl train --name 'two words'"
        assert {"python", "torch", "rims-rl", "stable-baselines3"} <= set(about["versions"])

    def test_a_resume_adds_its_command_to_the_first(self, folder: RunFolder) -> None:
        save_config(folder, TrainConfig(), ["first"])
        for command in ("second", "third"):
            save_config(folder, TrainConfig(resume=folder.path, total_timesteps=11), [command])
        about = yaml.safe_load(folder.config_file.read_text())["about"]
        assert about["command"] == "first"
        assert [entry["command"] for entry in about["resumed"]] == ["second", "third"]
        assert load_config(folder).total_timesteps == 11

    def test_nothing_is_left_beside_it(self, folder: RunFolder) -> None:
        save_config(folder, TrainConfig(), ["first"])
        assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "config.yaml", "videos"]

    def test_code_in_a_config_is_not_run(self, folder: RunFolder) -> None:
        folder.config_file.write_text("env: !!python/object/apply:os.getcwd []\n")
        with pytest.raises(ConfigError, match="is not valid YAML"):
            load_config(folder)
