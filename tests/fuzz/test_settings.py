"""Settings: presets, and the config.yaml of runs, experiments and reports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from rims_rl.config import TrainConfig, as_plain
from rims_rl.errors import ConfigError
from rims_rl.experiments.copying import CopyingConfig
from rims_rl.experiments.folder import load_settings as load_experiment
from rims_rl.experiments.folder import plain_settings as plain_experiment
from rims_rl.experiments.presets import preset_settings
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.config import plain_settings as plain_report
from rims_rl.experiments.robustness.folder import load_settings as load_report
from rims_rl.options import parse_train
from rims_rl.presets import load_preset
from rims_rl.runs import RunFolder, load_config, save_config
from rims_rl.settings import parse_mapping
from rims_rl.validation import check_settings
from tests.fuzz.guard import survives
from tests.fuzz.hostile import Mischief, fuzzed

pytestmark = pytest.mark.faults
RUN = {**as_plain(TrainConfig(env="cartpole-novel")), "about": {"command": "rims-rl train", "resumed": [{"at": "now"}]}}
EXPERIMENT = {**plain_experiment(CopyingConfig()), "about": {"experiment": "copying"}}
REPORT = {**plain_report(RobustnessConfig(runs=(Path("a"), Path("b")))), "about": {"report": "robustness"}}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def written(by: Mischief, good: dict[str, Any], file: Path) -> Path:
    """Write mutated settings, as bytes, or as values in JSON, which is YAML."""
    if by.random.random() < 0.5:
        file.write_bytes(by.bytes(yaml.safe_dump(good, sort_keys=False).encode()))
    else:
        file.write_text(json.dumps(by.json(good)), "utf-8")
    return file


class TestRuns:
    @fuzzed(300)
    def test_loading(self, folder, by):
        written(by, RUN, folder / "config.yaml")
        survives(lambda: load_config(RunFolder(folder)), folder, names="config.yaml")

    @fuzzed(100)
    def test_resuming_up_to_the_environment(self, folder, by):
        written(by, RUN, folder / "config.yaml")

        def begin() -> None:
            config = parse_train(["--resume", str(folder)])
            check_settings(config)
            save_config(RunFolder(folder), config, ["rims-rl"])

        survives(begin, folder)

    def test_numbers_that_would_end_the_process_or_never_end(self):
        for settings in (
            {"torch_threads": 10**5}, {"n_envs": 10**12}, {"n_steps": 10**12, "batch_size": 10**12},
            {"eval_episodes": 10**18},
        ):  # fmt: skip
            with pytest.raises(ConfigError, match="must be at most"):
                check_settings(TrainConfig(**settings))


class TestOtherFolders:
    @fuzzed(120)
    def test_experiments(self, folder, by):
        written(by, EXPERIMENT, folder / "config.yaml")

        def load() -> None:
            load_experiment(folder, "copying", CopyingConfig).check()

        survives(load, folder)

    @fuzzed(120)
    def test_reports(self, folder, by):
        written(by, REPORT, folder / "config.yaml")
        survives(lambda: load_report(folder).check(), folder)

    @fuzzed(120)
    def test_presets(self, folder, by):
        file = str(written(by, {"description": "fast", **RUN}, folder / "preset.yaml"))
        survives(lambda: load_preset(file), folder, names="preset.yaml")
        survives(lambda: preset_settings("copying", file, CopyingConfig), folder, names="preset.yaml")


class TestYaml:
    @pytest.mark.parametrize(
        "text",
        [
            BOMB, BOMB.replace("a:", "n_envs:", 1), "<<: *x", "a: &a [*a]", "n_envs: 2026-99-99", "a: !!int x",
            "a: !!timestamp x", "x: 0b_", "x: 0x_", f"x: {'9' * 5_000}", f"x: 1{':1' * 200_000}", f"x: {'[' * 5_000}",
            f"x: {'{a: ' * 3_000}", "- " * 5_000, "? " * 5_000, "<<: [1]", "? [a, b]\n: 1", "\0", "a: 1\n---\nb: 1",
            "%YAML 9.9\n---\na: 1", f"{'x' * 900_000}: 1", f"a: {[1] * 100_000}", "a: !!python/name:os.system",
            "a: !!python/object/apply:os.system [true]", "a: !!python/module:rims_canary",
        ],
    )  # fmt: skip
    def test_texts_made_to_do_harm(self, folder, text):
        (folder / "config.yaml").write_text(text)
        found = survives(lambda: load_config(RunFolder(folder)), folder, names="config.yaml")
        assert isinstance(found, ConfigError)

    def test_dates_and_long_numbers_are_texts(self):
        found = parse_mapping("here", f"a: 2026-01-01\nb: {'7' * 301}\nc: 7")
        assert found == {"a": "2026-01-01", "b": "7" * 301, "c": 7}

    def test_a_large_file_is_not_read(self, folder):
        (folder / "config.yaml").write_bytes(b"#" * 2**21)
        assert "more than 1,048,576 bytes" in str(survives(lambda: load_config(RunFolder(folder)), folder))

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: file.symlink_to("/dev/zero")])
    def test_what_is_no_file(self, tmp_path, make):
        make(tmp_path / "config.yaml")
        found = survives(lambda: load_config(RunFolder(tmp_path)), tmp_path, names="config.yaml")
        assert isinstance(found, ConfigError)


class TestMessages:
    @pytest.mark.parametrize("value", ["x" * 10**5, [["y" * 100] * 100] * 100, {"z" * 10**4: 1}, 10**300])
    @pytest.mark.parametrize("name", ["env", "n_envs", "core_kwargs", "wandb_tags", "protocol", "unheard", "output"])
    def test_a_large_value_is_said_in_short(self, folder, name, value):
        (folder / "config.yaml").write_text(yaml.safe_dump({name: value}))
        survives(lambda: load_config(RunFolder(folder)), folder, names="config.yaml")
