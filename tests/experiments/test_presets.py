"""The experiments' presets and their command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rims_rl.cli import main
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.experiments.copying import CopyingConfig
from rims_rl.experiments.presets import preset_names, preset_settings
from rims_rl.experiments.registry import EXPERIMENTS, experiment_class, make_experiment
from rims_rl.options import parse_experiment

PRESETS = [(experiment, name) for experiment in EXPERIMENTS for name in preset_names(experiment)]


def parsed(*words: str) -> CopyingConfig:
    config: CopyingConfig = parse_experiment("copying", CopyingConfig, list(words))
    return config


class TestPresets:
    @pytest.mark.parametrize(("experiment", "name"), PRESETS)
    def test_every_one_can_work(self, experiment: str, name: str) -> None:
        config = preset_settings(experiment, name, experiment_class(experiment).config_class)
        config.check()
        made = make_experiment(experiment, config)
        for variant in made.variants():
            made.check_variant(variant)

    @pytest.mark.parametrize("experiment", list(EXPERIMENTS))
    def test_every_experiment_has_a_small_one_and_the_papers(self, experiment: str) -> None:
        assert {"small", "paper"} <= set(preset_names(experiment))

    def test_the_rims_settings_are_added_to_the_defaults(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text("rim: {unit_size: 7}\nupdates: 5\ntest_blanks: [1, 2]\n")
        config = preset_settings("copying", str(file), CopyingConfig)
        assert config.rim == {**CopyingConfig().rim, "unit_size": 7}
        assert (config.updates, config.test_blanks) == (5, (1, 2))

    def test_bad_ones_are_one_line(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text("test_blanks: [1, two]\n")
        with pytest.raises(ConfigError, match=r"test_blanks must be a list of whole numbers, got \[1, 'two'\]$"):
            preset_settings("copying", str(file), CopyingConfig)
        with pytest.raises(UnknownNameError, match=r"^unknown preset of copying 'smal'; did you mean 'small'\?$"):
            preset_settings("copying", "smal", CopyingConfig)
        with pytest.raises(ConfigError, match=r"^no preset file at none.yaml$"):
            preset_settings("copying", "none.yaml", CopyingConfig)


class TestCommandLine:
    def test_options_override_the_preset(self) -> None:
        config = parsed("--config", "small", "--updates", "7", "--rim", "unit_size:9", "--test-blanks", "3", "1e2")
        assert (config.updates, config.test_blanks, config.embedding_size) == (7, (3, 100), 32)
        assert config.rim == {**preset_settings("copying", "small", CopyingConfig).rim, "unit_size": 9}

    def test_models(self) -> None:
        assert parsed("--models", "rim", "lstm:hidden_size=300").models == ("rim", "lstm:hidden_size=300")

    def test_help_lists_the_experiments(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["experiment"]) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in EXPERIMENTS)

    def test_help_of_one_explains_its_options(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["experiment", "copying", "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "--train-blanks INT" in shown
        assert "Blanks between the symbols and the marker in training. (default: 50)" in shown

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["copyin"], "unknown experiment 'copyin'; did you mean 'copying'?"),
            (["--config", "small"], "experiment needs its name before --config: copying, adding, sequential-mnist, "),
            (["copying", "--blanks", "3"], "unknown option '--blanks'; did you mean '--test-blanks'"),
            (["copying", "--models", "rin"], "unknown core 'rin'; did you mean 'rim'"),
            (["copying", "--resume", "nowhere"], "nowhere holds no experiment: there is no config.yaml in it"),
            (
                ["copying", "--resume", "x", "--batch-size", "3"],
                "a resumed experiment keeps its own --batch-size; only these",
            ),
        ],
    )
    def test_bad_input_is_one_line_and_exit_code_2(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["experiment", *words]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"rims-rl: {message}")
        assert shown.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
