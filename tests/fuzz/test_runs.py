"""A whole run's folder from a stranger: evaluated, filmed, resumed, drawn and compared."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from rims_rl.cli import main
from rims_rl.config import EvaluateConfig
from rims_rl.envs import make_env
from rims_rl.errors import ConfigError, RimsError
from rims_rl.evaluation import evaluate_run
from rims_rl.experiments.robustness.subjects import read_subjects
from rims_rl.loading import load_agent
from rims_rl.options import parse_train
from rims_rl.output import PrintableFormatter
from rims_rl.runs import RunFolder, load_config, locked, open_run
from rims_rl.storage.plain_files import check_only_files
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from rims_rl.tracking import WandbRun
from rims_rl.training import resume
from tests.fuzz.guard import CANARY, survives
from tests.fuzz.hostile import Mischief, fuzzed
from tests.pong_run import files_of

pytestmark = pytest.mark.faults
TRAIN = [
    "train", "--env", "cartpole-novel", "--core-kwargs", "num_units:3,active_units:2,unit_size:5", "--n-envs", "2",
    "--n-steps", "4", "--batch-size", "8", "--n-epochs", "1", "-n", "16", "--save-freq", "8", "--log-interval", "1",
    "--wandb", "disabled", "--verbose", "0", "--device", "cpu",
]  # fmt: skip
CONFIG, CHECKPOINT = "config.yaml", "checkpoints/step_000000016.safetensors"
DESCRIPTION, WEIGHTS, PROGRESS = "policy.json", "policy.safetensors", "progress.csv"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "run"
    assert main([*TRAIN, "--output", str(folder)]) == 0
    evaluate(folder, None)
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run lies that nothing may leave, beside a module that nobody may import."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / f"{CANARY}.py").write_text("raise SystemExit('the canary was imported')")
    return outside


@pytest.fixture(autouse=True)
def _canary_on_the_path(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(outside))


def copied(good: Path, outside: Path) -> Path:
    shutil.rmtree(outside / "run", ignore_errors=True)
    return shutil.copytree(good, outside / "run")


def spoiled(by: Mischief, run: Path, names: list[str]) -> str:
    """Spoil one of a run's files and return its name: as bytes, or as values under the right checksum."""
    name = by.one_of(names)
    file = run / name
    if by.random.random() < 0.3:
        file.write_bytes(by.bytes(file.read_bytes()))
    elif name == CONFIG:
        file.write_text(json.dumps(by.json(yaml.safe_load(file.read_text()))))
    elif name == DESCRIPTION:
        file.write_text(json.dumps(by.json(json.loads(file.read_text()))))
    elif name == CHECKPOINT:
        tensors, manifest = read_tensors(file)
        part = by.one_of(["about", "state", None, None])
        changed = by.json(manifest) if part is None else manifest | {part: by.json(manifest[part])}
        write_tensors(file, by.tensors(tensors), changed if isinstance(changed, dict) else {})
    else:
        file.write_bytes(by.bytes(file.read_bytes()))
    return name


def evaluate(run: Path, checkpoint: str | None) -> Any:
    config = EvaluateConfig(run=run, episodes=1, n_envs=1, checkpoint=checkpoint, max_episode_steps=3)
    return evaluate_run(config)


class TestMutations:
    @fuzzed(120)
    def test_evaluating(self, good, outside, by):
        run = copied(good, outside)
        spoiled(by, run, [CONFIG, CONFIG, DESCRIPTION, WEIGHTS, CHECKPOINT, CHECKPOINT])
        which = by.one_of([None, "final", "newest", "16"])
        survives(lambda: evaluate(run, which), run)

    @fuzzed(150)
    def test_loading(self, good, outside, by):
        run = copied(good, outside)
        spoiled(by, run, [DESCRIPTION, WEIGHTS, CHECKPOINT, CHECKPOINT, CHECKPOINT])
        which = by.one_of([None, "final", "newest", "16", "8", "best"])
        survives(lambda: load_agent(RunFolder(run), which), run)

    @fuzzed(60)
    def test_resuming(self, good, outside, by):
        run = copied(good, outside)
        spoiled(by, run, [CONFIG, CONFIG, CHECKPOINT, CHECKPOINT, CHECKPOINT, PROGRESS])

        def go_on() -> None:
            config = parse_train(["--resume", str(run), "-n", "24", "--wandb", "disabled", "--verbose", "0"])
            resume(config, ["rims-rl"])

        survives(go_on, run, seconds=30)

    @fuzzed(60)
    def test_comparing(self, good, outside, by):
        run = copied(good, outside)
        spoiled(by, run, [CONFIG])
        survives(lambda: read_subjects([run]), run, names=CONFIG)


def with_settings(good: Path, outside: Path, **settings: Any) -> Path:
    run = copied(good, outside)
    file = run / CONFIG
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))
    return run


class TestModulesToImport:
    """Gymnasium itself imports a module for `module:Name-v0`: whatever its author likes, from anywhere on the path."""

    @pytest.mark.parametrize(
        "env", [f"{CANARY}:Evil-v0", f"{CANARY}:CartPole-v1", f"{CANARY}:rims_rl/Atari-v0", "a:b:c"]
    )
    def test_no_command_on_a_run_does_it(self, good, outside, env):
        run = with_settings(good, outside, env=env)
        command = ["--resume", str(run), "-n", "24", "--wandb", "disabled", "--verbose", "0"]
        said = str(survives(lambda: evaluate(run, None), run))
        assert "names a module" in said
        assert "python -c 'import MODULE; from rims_rl.cli import main; exit(main())'" in said
        assert isinstance(survives(lambda: resume(parse_train(command), ["rims-rl"]), run), RimsError)

    def test_an_evaluation_in_a_changed_task_does_not_either(self, good, outside):
        said = main(["robustness", str(good), "--test-envs", f"{CANARY}:Evil-v0", "--output", str(outside / "report")])
        assert said == 2
        assert CANARY not in sys.modules

    @pytest.mark.parametrize("env", ["x'; rm -rf ~ #:E-v0", "$(reboot):E-v0"])
    def test_what_a_file_names_is_no_part_of_the_command_that_is_shown(self, env):
        with pytest.raises(ConfigError, match="names a module") as caught:
            make_env(env, 1)
        assert env.split(":")[0] not in str(caught.value).split("python -c")[1]

    def test_a_module_that_was_imported_goes_by_its_ids_alone(self, outside, tmp_path):
        (outside / "rims_own.py").write_text(
            "import gymnasium\n"
            "gymnasium.register('RimsOwn-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=9)\n"
        )
        importlib.import_module("rims_own")
        make_env("RimsOwn-v0", 1).close()


class TestSettingsOfTheEnvironment:
    @pytest.mark.parametrize("name", ["seed", "n_envs", "training", "name", "protocol", "route", "frame_stack"])
    def test_those_given_elsewhere_are_refused(self, good, outside, name):
        run = with_settings(good, outside, env_kwargs={name: 1})
        assert name in str(survives(lambda: evaluate(run, None), run))

    @pytest.mark.parametrize(
        "kwargs", [{"entry_point": "os:system"}, {"kwargs": 1}, {"id": "x"}, {"render_mode": "human"}]
    )
    def test_those_that_it_lacks_are_refused(self, good, outside, kwargs):
        run = with_settings(good, outside, env_kwargs=kwargs)
        assert isinstance(survives(lambda: evaluate(run, None), run), dict | RimsError)

    def test_as_many_distractors_as_the_file_is_long(self, good, outside):
        run = with_settings(good, outside, env="pong", distractor="+".join(["noise:1"] * 50_000))
        assert "at most 32 distractors" in str(survives(lambda: evaluate(run, "newest"), run))

    def test_markup_in_a_folders_name_is_shown_as_it_is(self, capsys):
        from rims_rl.evaluation import print_result

        figures = dict.fromkeys(("mean", "std", "median", "min", "max", "mean_length", "steps_per_second"), 1.0)
        print_result(
            {"env": "pong", "core": "rim", "trained_steps": 1, "truncated": 0, "episodes": 1, "actions": "sampled",
             "games_seed": 1, "checkpoint": "final", "distractor": "background:0.5:folder=[/]x", **figures}
        )  # fmt: skip
        assert "folder=[/]x" in capsys.readouterr().out


class TestSizes:
    """A run whose settings ask for more than its checkpoint holds, in every place where they stand."""

    @pytest.mark.parametrize(
        "core", [{"unit_size": 10**6}, {"num_units": 10**9, "active_units": 1}, {"input_heads": 10**8}]
    )
    def test_are_refused_before_anything_is_built(self, good, outside, core):
        run = copied(good, outside)
        file = run / CHECKPOINT
        tensors, manifest = read_tensors(file)
        kwargs = manifest["about"]["settings"]["core_kwargs"] | core
        manifest["about"]["settings"]["core_kwargs"] = kwargs
        write_tensors(file, tensors, manifest)
        (run / CONFIG).write_text(yaml.safe_dump(yaml.safe_load((run / CONFIG).read_text()) | {"core_kwargs": kwargs}))
        command = ["--resume", str(run), "-n", "24", "--wandb", "disabled", "--verbose", "0"]
        for use in (lambda: resume(parse_train(command), ["rims-rl"]), lambda: evaluate(run, "16")):
            assert isinstance(survives(use, run, seconds=3), RimsError)

    def test_weights_that_are_replaced_are_not_made_orthogonal(self, good, monkeypatch):
        """Which takes time with the cube of their size."""

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError

        monkeypatch.setattr(torch.nn.init, "orthogonal_", refuse)
        for which in ("16", "final"):
            assert load_agent(RunFolder(good), which).step == 16

    @pytest.mark.parametrize("step", [-1, 2**80, "16", None, 1.5, True])
    def test_so_are_steps_that_nobody_made(self, good, outside, step):
        run = copied(good, outside)
        tensors, manifest = read_tensors(run / CHECKPOINT)
        write_tensors(run / CHECKPOINT, tensors, manifest | {"num_timesteps": step})
        command = ["--resume", str(run), "-n", "24", "--wandb", "disabled", "--verbose", "0"]
        for use in (lambda: resume(parse_train(command), ["rims-rl"]), lambda: evaluate(run, "16")):
            assert "steps" in str(survives(use, run, names=Path(CHECKPOINT).name))


class TestLinks:
    """A run's folder may hold links that lead out of it; nothing is written through them."""

    @pytest.mark.parametrize(
        "name",
        [
            ".lock", ".progress.csv.new", "checkpoints", "videos", ".model.unfinished.zip", PROGRESS,
            "videos/.x.unfinished.mp4", "checkpoints/.best.safetensors.1.unfinished",
        ],
    )  # fmt: skip
    def test_a_resume_refuses_them(self, good, outside, name):
        run, victim = copied(good, outside), outside / "victim"
        victim.unlink(missing_ok=True)
        victim.write_text("precious")
        target: Path = victim
        if (run / name).is_dir():
            shutil.rmtree(run / name)
            target = outside / "elsewhere"
            target.mkdir(exist_ok=True)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(target)
        command = ["--resume", str(run), "-n", "24", "--wandb", "disabled", "--verbose", "0"]
        found = survives(lambda: resume(parse_train(command), ["rims-rl"]), run, names=Path(name).name)
        assert "is a link" in str(found)
        assert victim.read_text() == "precious"
        assert not list((outside / "elsewhere").glob("*"))

    @pytest.mark.parametrize("name", ["evaluation.json", f".evaluation.json.{os.getpid()}.unfinished"])
    def test_an_evaluation_writes_beside_them(self, good, outside, name):
        run, victim = copied(good, outside), outside / "victim"
        victim.unlink(missing_ok=True)
        victim.write_text("precious")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)
        with suppress(RimsError):
            evaluate(run, None)
        assert victim.read_text() == "precious"

    @pytest.mark.parametrize("name", ["videos/.a.unfinished.mp4", "videos/a.mp4", "frame.png", "videos/.frame.png"])
    def test_a_film_is_not_written_through_them(self, good, outside, name):
        run, victim = copied(good, outside), outside / "victim"
        victim.unlink(missing_ok=True)
        victim.write_text("precious")
        (run / name).symlink_to(victim)
        words = ["--output", run / "videos" / "a.mp4", "--frame", run / "frame.png", "--max-steps", "2"]
        assert main(["record", *map(str, [run, *words])]) == 0
        assert victim.read_text() == "precious"
        assert (run / "videos" / "a.mp4").read_bytes()[4:8] == b"ftyp"
        assert (run / "frame.png").read_bytes()[1:4] == b"PNG"
        assert not list(run.rglob(".*unfinished")) or name.startswith("videos/.a")
        assert oct((run / "videos" / "a.mp4").stat().st_mode) == oct((run / "frame.png").stat().st_mode)

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.mknod(path, 0o600 | 0o140000)])
    def test_pipes_and_sockets(self, good, outside, make: Callable[[Path], None]):
        run = copied(good, outside)
        make(run / "checkpoints" / "step_000000099.safetensors")

        def hold() -> None:
            with locked(RunFolder(run)):
                pass

        assert "neither a file nor a folder" in str(survives(hold, run, names="step_000000099"))

    def test_the_folder_itself_may_be_one(self, good, outside):
        run = copied(good, outside)
        (outside / "latest").unlink(missing_ok=True)
        (outside / "latest").symlink_to(run)
        check_only_files(outside / "latest")
        assert load_config(open_run(outside / "latest")).env == "cartpole-novel"

    def test_what_wandb_links_is_its_own(self, good, outside):
        run = copied(good, outside)
        (run / "wandb" / "run-1").mkdir(parents=True)
        (run / "wandb" / "latest-run").symlink_to(run / "wandb" / "run-1")
        check_only_files(run)

    @pytest.mark.parametrize("name", ["wandb", ".wandb"])
    def test_settings_of_wandb_are_refused(self, good, outside, name):
        run = copied(good, outside)
        (run / name).mkdir()
        (run / name / "settings").write_text("[default]\nbase_url = http://127.0.0.1:1\n")
        found = survives(lambda: check_only_files(run), run, names=f"{name}/settings")
        assert "would tell W&B what to do" in str(found)


class TestFolders:
    """Folders that lie where a run has files, and what the system does not let be looked at."""

    @pytest.mark.parametrize("name", [".lock", ".model.unfinished.zip"])
    def test_in_the_place_of_a_file(self, good, outside, name):
        run = copied(good, outside)
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()
        command = ["--resume", str(run), "-n", "24", "--wandb", "disabled", "--verbose", "0"]
        found = survives(lambda: resume(parse_train(command), ["rims-rl"]), run, names=run.name, seconds=30)
        assert "cannot be written: Is a directory" in str(found)

    def test_in_the_place_of_wandb_s_id(self, good, outside, monkeypatch, capsys):
        run = copied(good, outside)
        (run / "wandb_run.json").mkdir()
        tracker = WandbRun("offline", SimpleNamespace(id="abc", finish=lambda: None, log=lambda *_, **__: None))
        tracker.log_artifact = lambda *_: None
        monkeypatch.setattr("rims_rl.training.start_wandb", lambda *_: tracker)
        command = ["--resume", str(run), "-n", "24", "--wandb", "offline", "--verbose", "0"]
        assert survives(lambda: resume(parse_train(command), ["rims-rl"]), run, seconds=30) == 0
        assert "a resume will begin another W&B run" in capsys.readouterr().out

    def test_paths_of_thousands_of_characters(self, good, outside, monkeypatch):
        run = copied(good, outside)
        monkeypatch.chdir(run / "videos")
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
        try:
            found = survives(lambda: check_only_files(run), run, names=run.name)
        finally:
            os.chdir(outside)
            subprocess.run(["rm", "-rf", str(run)], check=True)
        assert "cannot be looked at: File name too long" in str(found)


ESCAPES = "\x1b]0;x\x07\x1b[2J"


class TestTerminals:
    """Control characters in files and in their names do nothing to whoever reads the messages."""

    def said(self, capfd: pytest.CaptureFixture[str], *words: Any, code: int = 2) -> str:
        assert main([*map(str, words)]) == code
        out, err = capfd.readouterr()
        assert not {"\x1b", "\x07"} & set(out + err)
        assert max(map(len, err.splitlines()), default=0) < 2_100
        return err

    @pytest.mark.parametrize("name", [ESCAPES, "A" * 2_000_000])
    def test_names_of_tensors(self, good, outside, capfd, name):
        run = copied(good, outside)
        tensors, manifest = read_tensors(run / CHECKPOINT)
        write_tensors(run / CHECKPOINT, tensors | {f"policy/{name}": torch.zeros(1)}, manifest)
        said = self.said(capfd, "evaluate", run, "--checkpoint", "16", "--episodes", "1")
        assert "which the network lacks" in said

    def test_names_of_files(self, good, outside, capfd):
        run = copied(good, outside)
        (run / "videos" / ESCAPES).symlink_to(outside)
        assert "is a link" in self.said(capfd, "record", run)

    def test_settings(self, good, outside, tmp_path, capfd):
        run = with_settings(good, outside, env=ESCAPES, device=ESCAPES)
        (run / PROGRESS).write_text("step,time/total_timesteps,rollout/ep_rew_mean\n1,1,1\n")
        other = shutil.copytree(run, tmp_path / "other")
        (other / CONFIG).write_text((other / CONFIG).read_text() + "\nenv: pong\n")
        self.said(capfd, "plot", run, other, "--output", tmp_path / "curves.png")
        self.said(capfd, "train", "--resume", run, "-n", "24")

    def test_what_a_checkpoint_has_logged(self, good, outside, capfd):
        run = copied(good, outside)
        tensors, manifest = read_tensors(run / CHECKPOINT)
        manifest["state"]["log"][f"{ESCAPES}/x"] = {"$tuple": [ESCAPES, {"$tuple": []}]}
        write_tensors(run / CHECKPOINT, tensors, manifest)
        words = ["--wandb", "disabled", "--verbose", "1"]
        self.said(capfd, "train", "--resume", run, "-n", "24", *words, code=0)

    def test_the_log(self):
        record = logging.LogRecord("rims_rl", logging.WARNING, __file__, 1, "%s\n%s", (ESCAPES, ESCAPES), None)
        lines = PrintableFormatter().format(record).split("\n")
        assert [line.isprintable() for line in lines] == [True, True]


class TestNames:
    """What a file says never becomes a path."""

    def test_a_runs_name_and_output_lead_nowhere(self, good, outside):
        run = with_settings(good, outside, name="../../evil", output=str(outside / "elsewhere-2"), wandb_project="../x")
        before = {name for name in files_of(outside) if not name.startswith("run/")}
        command = ["--resume", str(run), "-n", "24", "--wandb", "disabled", "--verbose", "0"]
        assert survives(lambda: resume(parse_train(command), ["rims-rl"]), run, seconds=30) == 0
        assert {name for name in files_of(outside) if not name.startswith("run/")} == before
