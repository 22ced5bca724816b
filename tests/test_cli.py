"""The command line: precedence, help, and refusals in one line that make nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from rims_rl.cli import main
from rims_rl.config import ConfigsConfig, CoresConfig, EvaluateConfig, RecordConfig, TrainConfig
from rims_rl.cores import core_class, core_names, matched_settings, parameter_count
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.options import given_options, parse, parse_train
from rims_rl.runs import RunFolder, save_config
from tests.pong_run import files_of, train_pong


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and make sure that it is empty still when the test is over."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, "-m", "rims_rl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


class TestPrecedence:
    def test_without_options_the_defaults_hold(self) -> None:
        assert parse_train([]) == TrainConfig()

    def test_a_number_of_parameters_takes_the_place_of_the_presets_width_alone(self) -> None:
        config = parse_train(["--config", "atari", "--core-parameters", "1e6"])
        assert config.core_parameters == 1_000_000
        assert "unit_size" not in config.core_kwargs
        assert config.core_kwargs["active_units"] == 4
        both = parse_train(["--config", "atari", "--core-parameters", "1e6", "--core-kwargs", "unit_size:7"])
        assert both.core_kwargs["unit_size"] == 7  # and is refused when it is checked

    def test_a_preset_overrides_the_defaults(self) -> None:
        config = parse_train(["--config", "quick"])
        assert (config.total_timesteps, config.n_epochs, config.config) == (20_480, 2, "quick")

    def test_the_command_line_overrides_the_preset(self) -> None:
        config = parse_train(["--n-epochs", "7", "--config=quick", "-n", "5_000"])
        assert (config.total_timesteps, config.n_epochs) == (5_000, 7)
        assert config.save_freq == 10_240  # the preset's

    def test_a_default_given_on_the_command_line_still_overrides_the_preset(self) -> None:
        assert parse_train(["--config", "quick", "--n-epochs", str(TrainConfig().n_epochs)]).n_epochs == 4

    def test_pairs_are_added_to_the_preset_s(self) -> None:
        config = parse_train(["--config", "quick", "--core-kwargs", "unit_size:11"])
        assert config.core_kwargs == {"num_units": 6, "active_units": 4, "unit_size": 11, "cell": "lstm"}

    def test_another_core_does_not_inherit_the_preset_core_s_settings(self) -> None:
        config = parse_train(["--config", "quick", "--core", "lstm", "--core-kwargs", "hidden_size:23"])
        assert config.core_kwargs == {"hidden_size": 23}
        assert parse_train(["--config", "quick", "--core", "lstm"]).core_kwargs == {}

    def test_underscores_and_dashes_are_the_same(self) -> None:
        assert parse_train(["--n_envs", "3"]) == parse_train(["--n-envs=3"])

    def test_switches_have_an_off_form(self) -> None:
        assert not parse_train(["--no-normalize-advantage"]).normalize_advantage

    def test_negative_numbers_are_values_and_not_options(self) -> None:
        assert given_options(["--seed", "-3", "--ent-coef", "-1e-3"], TrainConfig) == {
            "seed": "-3",
            "ent_coef": "-1e-3",
        }


class TestHelp:
    @pytest.mark.parametrize("command", ["train", "evaluate", "record", "configs"])
    def test_every_option_is_explained(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        kinds = {
            "train": TrainConfig,
            "evaluate": EvaluateConfig,
            "record": RecordConfig,
            "configs": ConfigsConfig,
            "cores": CoresConfig,
        }
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        for entry in fields(kinds[command]):
            assert entry.name.replace("_", "-") in shown.lower()
        assert "(required)" not in shown or "Folder of the run" in shown

    def test_without_a_command_the_commands_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {command} " in shown for command in ("train", "evaluate", "record", "configs"))

    def test_help_and_presets_need_neither_torch_nor_the_rest(self) -> None:
        heavy = "{'torch', 'wandb', 'stable_baselines3', 'gymnasium', 'ale_py'}"
        code = "import sys; from rims_rl.cli import main; main(['configs']); main(['train', '--help']); "
        code += f"sys.exit(len({heavy} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0

    def test_the_module_runs_as_the_command_does(self) -> None:
        done = run("--version")
        assert (done.returncode, done.stdout.split()[0]) == (0, "rims-rl")


class TestConfigs:
    def test_the_presets_are_listed_with_their_descriptions(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["configs"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("quick ") and "few minutes" in line for line in lines)

    def test_a_preset_is_printed_resolved(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["configs", "quick"]) == 0
        assert "total_timesteps: 20480\n" in capsys.readouterr().out

    def test_a_reader_that_stops_early_gets_no_traceback(self) -> None:
        command = f"{sys.executable} -m rims_rl train --help | head -1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert (done.stdout.count("\n"), done.stderr) == (1, "")


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.faults
class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["trian"], "unknown command 'trian'; did you mean 'train'?"),
            (["train", "--n-env", "3"], "unknown option '--n-env'; did you mean '--n-envs'"),
            (["train", "-x"], "unknown option '-x'"),
            (["train", "--config", "qick"], "unknown preset 'qick'; did you mean 'quick'?"),
            (["train", "--env", "pongg"], "did you mean 'pong'"),
            (["train", "--env", "ALE/Pongg-v5"], "did you mean 'pong'"),
            (["train", "--core", "rimm"], "unknown core 'rimm'; did you mean 'rim' or 'rmc'?"),
            (["train", "--core-kwargs", "num_unit:3"], "did you mean 'num_units'"),
            (["train", "--encoder", "natur"], "unknown encoder 'natur'; did you mean 'nature'"),
            (["train", "--protocol", "atari"], "invalid choice 'atari'"),
            (["train", "--n-envs", "many"], "'many' is not a whole number"),
            (["train", "-n"], "Missing value"),
            (["train", "leftover"], "leftover"),
            (
                ["train", "--config", "atari", "--core-parameters", "1e6", "--core-kwargs", "unit_size:7"],
                "unit_size is what the matching chooses",
            ),
            (["train", "--core-kwargs", "active_units:7"], "active_units=7 is more than num_units=6"),
            (["train", "--batch-size", "100"], "batch_size=100"),
            (["train", "--batch-size", "384"], "batch_size=384 does not divide n_envs x n_steps = 8 x 128"),
            (["train", "--bptt-length", "100"], "bptt_length=100 does not divide n_steps=128"),
            (["train", "--n-envs", "0"], "n_envs must be at least 1, got 0"),
            (["train", "--learning-rate", "cos_1"], "learning_rate must be a number or lin_<number>"),
            (["train", "--gamma", "1.5"], "gamma must lie in [0, 1], got 1.5"),
            (["train", "--seed", "-3"], "seed must be at least 0, got -3"),
            (["train", "--device", "cud"], "device 'cud' cannot be used"),
            (["train", "--device", "hpu"], "device 'hpu' cannot be used"),
            (["train", "--device", "privateuseone:0"], "device 'privateuseone:0' cannot be used"),
            (["train", "--env", "CartPole-v1", "--env-kwargs", "gravity_:3"], "gravity_"),
            (["train", "--distractor", "ballz:0.5"], "unknown kind of distractor 'ballz'; did you mean 'balls'?"),
            (["train", "--distractor", "balls:7"], "intensity must be from 0 to 1, got 7.0"),
            (["train", "--distractor", "balls:half"], "distractor 'balls:half' can't be read; write kind:intensity"),
            (["train", "--distractor", "background:0.5:folder=clips"], "there is no folder clips"),
            (["train", "--distractor-split", "held-out"], "distractor_split held-out needs a distractor"),
            (["train", "--distractor", "balls", "--distractor-split", "test"], "invalid choice 'test'"),
            (
                ["train", "--distractor", "balls", "--env-kwargs", "distractor:noise"],
                "distractor is given twice: 'balls' and 'noise' in env_kwargs",
            ),
            (["train", "--env", "CartPole-v1", "--distractor", "balls"], "CartPole-v1: distractors need RGB"),
            (["train", "--env-kwargs", "variant:lazy_enemy"], "variant: not available on route 'vector'"),
            (["train", "--route", "gym", "--env-kwargs", "variant:lazy_enemi"], "did you mean 'lazy_enemy'"),
            (["train", "--route", "gym", "--env-kwargs", "variant:mode:7"], "pong has no mode 7; available: 0, 1"),
            (["train", "--resume", "nowhere"], "no run folder at nowhere"),
            (["evaluate", "nowhere"], "no run folder at nowhere"),
            (["evaluate", "nowhere", "--episods", "3"], "did you mean '--episodes'"),
            (["evaluate"], "RUN"),
            (["record", "nowhere"], "no run folder at nowhere"),
            (["configs", "quik"], "did you mean 'quick'"),
        ],
    )
    def test_it_is_one_line_and_exit_code_2(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("rims-rl: ")
        assert shown.err.count("\n") == 1
        assert message in shown.err

    @pytest.mark.parametrize("path", ["~nobodyx/x", "a" * 5_000])
    @pytest.mark.parametrize(
        "arguments",
        [
            ["evaluate", "PATH"], ["record", "PATH"], ["plot", "PATH"], ["robustness", "PATH"],
            ["train", "--resume", "PATH"], ["train", "--output", "PATH"], ["train", "--config", "PATH"],
            ["robustness", "--resume", "PATH"], ["experiment", "copying", "--resume", "PATH"],
            ["experiment", "copying", "--config", "PATH"],
            ["experiment", "sequential-mnist", "--models", "lstm", "--data-dir", "PATH"],
        ],
    )  # fmt: skip
    def test_a_path_that_the_system_does_not_take(
        self, arguments: list[str], path: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([path if word == "PATH" else word for word in arguments]) == 2
        assert " cannot be used: " in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["evaluate", "record"])
    def test_a_seed_of_hundreds_of_digits(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([command, "run", "--seed", "1e300"]) == 2
        assert "--seed must be at most 2147483647" in capsys.readouterr().err

    @pytest.mark.faults
    @pytest.mark.parametrize(
        "error", [PermissionError(13, "Permission denied", "\x1b[2J"), MemoryError(), RecursionError("too deep"),
                  UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")],
    )  # fmt: skip
    def test_what_the_machine_refuses_is_one_line_too(
        self, error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(config: Any) -> None:
            raise error

        monkeypatch.setattr("rims_rl.core_listing.list_cores", refuse)
        assert main(["cores"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"rims-rl: cores was ended by {type(error).__name__}: ")
        assert said.strip().isprintable()

    def test_an_error_of_the_program_is_none_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rims_rl.core_listing.list_cores", lambda config: {}["x"])
        with pytest.raises(KeyError):
            main(["cores"])

    def test_where_output_is_ascii_it_is_one_short_line_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        done = run("train", "--seed", "many")
        (line,) = done.stderr.splitlines()
        assert line.endswith("'many' is not a whole number such as 30000, 30_000 or 3e4; see rims-rl train --help")

    def test_the_process_says_it_and_makes_nothing(self) -> None:
        done = run("train", "--env", "pongg", "--output", "made", "--wandb", "offline")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("rims-rl: unknown environment 'pongg'; did you mean 'pong'")


@pytest.mark.faults
class TestBadViews:
    @pytest.mark.parametrize("command", ["evaluate", "record"])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--distractor", "ballz:0.5"], "unknown kind of distractor 'ballz'; did you mean 'balls'?"),
            (["--distractor", "balls:7"], "intensity must be from 0 to 1, got 7.0"),
            (["--distractor", "background:0.5:folder=nowhere"], "there is no folder nowhere"),
            (["--distractor", "none", "--distractor-split", "held-out"], "split held-out needs a distractor"),
            (["--distractor-split", "test"], "invalid choice 'test'"),
            (["--variant", "lazy_enemi"], "unknown variant of pong 'lazy_enemi'; did you mean 'lazy_enemy'?"),
            (["--variant", "mode:7"], "pong has no mode 7; available: 0, 1"),
            (["--variant", "up_drift:9"], "up_drift takes a level from 1 to 5, got 9"),
        ],
    )
    def test_it_is_one_line_and_exit_code_2_and_nothing_is_written(
        self,
        command: str,
        options: list[str],
        message: str,
        distracted_run: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        before = files_of(distracted_run)
        assert main([command, str(distracted_run), *options]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("rims-rl: ")
        assert shown.err.count("\n") == 1
        assert message in shown.err
        assert files_of(distracted_run) == before

    def test_a_variant_on_the_vector_route_is_refused(
        self, distracted_run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["evaluate", str(distracted_run), "--variant", "lazy_enemy", "--route", "vector"]) == 2
        assert capsys.readouterr().err == "rims-rl: variant: not available on route 'vector', use route='gym'\n"

    def test_a_game_that_is_not_atari_s_has_no_variant(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = train_pong(tmp_path / "cart", "--env", "cartpole-novel", "--encoder", "flatten", "--encoder-kwargs")
        capsys.readouterr()
        assert main(["evaluate", str(folder), "--variant", "lazy_enemy"]) == 2
        assert "takes no environment setting 'variant'" in capsys.readouterr().err


class TestResumeOptions:
    @pytest.fixture
    def run_folder(self, tmp_path: Path) -> Path:
        folder = RunFolder(tmp_path / "run")
        folder.create()
        save_config(folder, TrainConfig(seed=41, n_steps=64, core_kwargs={"unit_size": 7}), ["rims-rl"])
        return folder.path

    def test_the_run_s_own_settings_hold(self, run_folder: Path) -> None:
        config = parse_train(["--resume", str(run_folder), "-n", "9e9"])
        assert (config.seed, config.n_steps, config.core_kwargs) == (41, 64, {"unit_size": 7})
        assert (config.total_timesteps, config.resume) == (9_000_000_000, run_folder)

    @pytest.mark.parametrize(
        "option", ["--gamma=0.5", "--config=quick", "--output=there", "--no-normalize-advantage", "--distractor=balls"]
    )
    def test_an_option_that_would_change_what_is_learned_is_refused(self, run_folder: Path, option: str) -> None:
        with pytest.raises(ConfigError, match=r"a resumed run keeps its own --[a-z-]+; only these may be given"):
            parse_train(["--resume", str(run_folder), option])

    def test_a_folder_is_needed(self) -> None:
        with pytest.raises(ConfigError, match="--resume needs the folder of a run"):
            parse_train(["--resume"])


class TestParse:
    def test_unknown_options_are_found_for_every_command(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean '--max-steps'"):
            parse(RecordConfig, ["run", "--max-step", "3"], "record")

    def test_distractors_are_read_as_they_are_written(self) -> None:
        options = ["--distractor", "balls:0.5+noise:0.2", "--distractor-split", "held-out"]
        for config in (parse_train(options), parse(EvaluateConfig, ["run", *options], "evaluate")):
            assert (config.distractor, config.distractor_split) == ("balls:0.5+noise:0.2", "held-out")

    def test_none_means_no_distractor_in_training_too(self) -> None:
        assert parse_train(["--distractor", "none"]).distractor is None

    def test_a_positional_stays_a_positional(self) -> None:
        config = parse(EvaluateConfig, ["runs/x", "--episodes", "7", "--protocol", "machado"], "evaluate")
        assert (config.run, config.episodes, config.protocol) == (Path("runs/x"), 7, "machado")


class TestCores:
    def test_every_core_is_listed_with_its_paper_and_parameters(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["cores"]) == 0
        shown = capsys.readouterr().out
        for name in core_names():
            line = next(line for line in shown.splitlines() if f" {name} " in line)
            assert core_class(name).paper in line
            assert f"{parameter_count(name, 512):,}" in line

    def test_cores_of_equal_size_are_shown_where_it_is_asked(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["cores", "--parameters", "1e6", "--input-size", "37"]) == 0
        shown = capsys.readouterr().out
        assert "cores on 37 inputs, matched to 1,000,000 parameters" in shown
        assert f"{parameter_count('gru', 37, **matched_settings('gru', 37, 1_000_000)):,}" in shown

    def test_one_core_is_shown_with_what_its_settings_mean(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["cores", "lstm"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "hidden_size │ 512 │ Size of the hidden state" in shown

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["lstn"], "unknown core 'lstn'"),
            (["--parameters", "10"], "comes near 10 parameters"),
            (["--input-size", "0"], "input_size must be a whole number of at least 1"),
        ],
    )
    def test_bad_input_is_one_line(self, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["cores", *options]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
