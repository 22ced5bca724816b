"""A whole experiment: trials side by side, what is left behind, interruption and resume, failing trials."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rims_rl.errors import ConfigError, NonFiniteError, RimsError, RunExistsError
from rims_rl.experiments import registry, runner, workers
from rims_rl.experiments.ablations import AblationsConfig
from rims_rl.experiments.copying import CopyingConfig, CopyingTrial
from rims_rl.experiments.folder import ExperimentFolder, load_settings
from rims_rl.experiments.presets import free_to_change
from rims_rl.experiments.runner import run_experiment
from rims_rl.options import parse_experiment

TINY = CopyingConfig(
    models=("rim", "lstm"), rim={"num_units": 3, "active_units": 2, "unit_size": 5, "preset": "paper"},
    embedding_size=7, train_blanks=3, test_blanks=(3, 5), test_sequences=6, batch_size=4, updates=4, eval_freq=2,
    seeds=2, workers=1, device="cpu", torch_threads=1,
)  # fmt: skip


def results(folder: Path) -> dict:
    found: dict = json.loads((folder / "results.json").read_text("utf-8"))
    return found


def figures(folder: Path) -> list[tuple]:
    return [(trial["variant"], trial["seed"], trial["figures"], trial["rows"]) for trial in results(folder)["trials"]]


class TestAWholeExperiment:
    def test_leaves_table_results_plots_and_settings(self, tmp_path: Path, capsys) -> None:
        assert run_experiment("copying", replace(TINY, output=tmp_path / "out")) == 0
        folder = tmp_path / "out"
        found = results(folder)
        assert [(trial["variant"], trial["seed"]) for trial in found["trials"]] == [
            ("rim", 0), ("lstm", 0), ("rim", 1), ("lstm", 1),
        ]  # fmt: skip
        assert all(set(trial["figures"]) == {"cross_entropy_3", "accuracy_3", "cross_entropy_5", "accuracy_5"}
                   for trial in found["trials"])  # fmt: skip
        assert found["settings"]["train_blanks"] == 3
        assert all(trial["versions"]["torch"] for trial in found["trials"])
        assert {file.name for file in (folder / "plots").iterdir()} == {
            "learning.png", "activity_3.png", "activity_5.png",
        }  # fmt: skip
        table = (folder / "table.md").read_text("utf-8")
        assert table.startswith("# copying\n\n| model | parameters | seeds | CE, 3 blanks |")
        assert "| rim |" in table
        assert str(tmp_path) not in (folder / "results.json").read_text("utf-8")
        assert "rim seed 0: finished after 4 updates" in capsys.readouterr().out

    @pytest.mark.slow
    def test_in_processes_gives_the_same_numbers_as_in_one(self, tmp_path: Path) -> None:
        one = replace(TINY, seeds=1)
        assert run_experiment("copying", replace(one, output=tmp_path / "one")) == 0
        assert run_experiment("copying", replace(one, output=tmp_path / "two", workers=2)) == 0
        assert figures(tmp_path / "two") == figures(tmp_path / "one")

    def test_of_equal_seeds_is_the_same_and_of_others_is_not(self, tmp_path: Path) -> None:
        config = replace(TINY, seeds=1, models=("rim",))
        for name, seed in (("a", 5), ("b", 5), ("c", 6)):
            run_experiment("copying", replace(config, output=tmp_path / name, first_seed=seed))
        assert figures(tmp_path / "a") == figures(tmp_path / "b")
        assert figures(tmp_path / "a")[0][2] != figures(tmp_path / "c")[0][2]


class TestInterruption:
    def test_a_signal_saves_and_a_resume_gives_the_whole_result(self, tmp_path: Path, monkeypatch, capsys) -> None:
        run_experiment("copying", replace(TINY, output=tmp_path / "whole"))
        update, made = CopyingTrial.update, []

        def interrupted(self: CopyingTrial, step: int) -> dict[str, float]:
            made.append(step)
            if len(made) == 6:  # the second trial's second update
                os.kill(os.getpid(), signal.SIGINT)
            return update(self, step)

        monkeypatch.setattr(CopyingTrial, "update", interrupted)
        assert run_experiment("copying", replace(TINY, output=tmp_path / "parts")) == 130
        assert f"3 of 4 trials have no result; go on with --resume {tmp_path / 'parts'}" in capsys.readouterr().out
        assert len(results(tmp_path / "parts")["trials"]) == 1
        monkeypatch.setattr(CopyingTrial, "update", update)
        config = load_settings(tmp_path / "parts", "copying", CopyingConfig)
        assert run_experiment("copying", config) == 0
        assert figures(tmp_path / "parts") == figures(tmp_path / "whole")

    def test_a_finished_experiment_is_reported_again_without_training(self, tmp_path: Path, monkeypatch) -> None:
        run_experiment("copying", replace(TINY, output=tmp_path))
        before = figures(tmp_path)
        monkeypatch.setattr(CopyingTrial, "update", lambda *_: pytest.fail("trained again"))
        (tmp_path / "table.md").unlink()
        assert run_experiment("copying", load_settings(tmp_path, "copying", CopyingConfig)) == 0
        assert figures(tmp_path) == before
        assert (tmp_path / "table.md").is_file()


class TestResumeForMore:
    @pytest.fixture
    def begun(self, tmp_path: Path) -> Path:
        """The folder of an experiment with one finished seed of two updates."""
        folder = tmp_path / "begun"
        run_experiment("copying", replace(TINY, output=folder, seeds=1, updates=2, models=("rim",)))
        return folder

    def test_more_seeds_and_updates_are_those_of_an_experiment_that_had_them_at_once(
        self, tmp_path: Path, begun: Path
    ) -> None:
        config = parse_experiment("copying", CopyingConfig, ["--resume", str(begun), "--seeds=2", "--updates=4"])
        assert run_experiment("copying", config) == 0
        run_experiment("copying", replace(TINY, output=tmp_path / "at once", models=("rim",)))
        assert [trial["updates"] for trial in results(begun)["trials"]] == [2, 4]
        assert figures(begun)[1] == figures(tmp_path / "at once")[1]

    def test_what_a_trial_learns_from_is_kept(self, begun: Path) -> None:
        with pytest.raises(ConfigError, match=r"keeps its own --learning-rate; only these .*--seeds.*--updates"):
            parse_experiment("copying", CopyingConfig, ["--resume", str(begun), "--learning-rate=1"])

    def test_updates_stay_where_a_schedule_depends_on_them(self) -> None:
        assert "updates" not in free_to_change(AblationsConfig)
        assert "seeds" in free_to_change(AblationsConfig)


class TestFailures:
    def test_a_trial_that_diverges_takes_nothing_with_it(self, tmp_path: Path, monkeypatch, capsys) -> None:
        update = CopyingTrial.update

        def diverging(self: CopyingTrial, step: int) -> dict[str, float]:
            if self.model.core.__class__.__name__ == "LSTM" and step == 1:
                raise NonFiniteError("the loss is nan")
            return update(self, step)

        monkeypatch.setattr(CopyingTrial, "update", diverging)
        tiny = replace(TINY, output=tmp_path / "out", seeds=1, most_skipped=0)
        assert run_experiment("copying", tiny) == 1
        found = {trial["variant"]: trial for trial in results(tmp_path / "out")["trials"]}
        assert found["rim"]["figures"]
        assert found["lstm"]["ended"] == "failed: training diverged at update 1: the loss is nan"
        assert "0 (1 failed)" in (tmp_path / "out" / "table.md").read_text("utf-8")
        assert "lstm seed 0 failed: training diverged at update 1" in " ".join(capsys.readouterr().out.split())

    def test_a_process_that_is_killed_is_told_from_one_that_ends(self) -> None:
        assert workers._death(-signal.SIGKILL).startswith("its process was killed, perhaps for lack of memory")
        assert workers._death(-signal.SIGSEGV) == "its process was ended by SIGSEGV"
        assert workers._death(3) == "its process ended with code 3"

    def test_a_trial_that_cannot_go_on_fails_alone(self, tmp_path: Path) -> None:
        run_experiment("copying", replace(TINY, output=tmp_path, seeds=1))
        broken = ExperimentFolder(tmp_path).trial("lstm", 0)
        broken.result.unlink()
        broken.checkpoint.write_bytes(b"damaged")
        assert run_experiment("copying", load_settings(tmp_path, "copying", CopyingConfig)) == 1
        found = {trial["variant"]: trial["ended"] for trial in results(tmp_path)["trials"]}
        assert found["rim"] == "finished"
        assert found["lstm"].startswith("failed: ")
        assert "checkpoint.safetensors" in found["lstm"]

    @pytest.mark.slow
    def test_a_process_that_is_killed_fails_its_trial_alone(self, tmp_path: Path) -> None:
        def kill_the_second() -> None:
            while len(started := sorted(multiprocessing.active_children(), key=lambda child: child.name)) < 2:
                time.sleep(0.01)
            os.kill(started[1].pid or 0, signal.SIGKILL)

        threading.Thread(target=kill_the_second, daemon=True).start()
        assert run_experiment("copying", replace(TINY, output=tmp_path / "out", workers=2, seeds=1)) == 1
        ended = [trial["ended"] for trial in results(tmp_path / "out")["trials"]]
        assert sorted(how.partition(",")[0] for how in ended) == ["failed: its process was killed", "finished"]

    def test_an_error_that_nobody_foresaw_fails_its_trial_alone_and_is_kept(self, tmp_path: Path, monkeypatch) -> None:
        update = CopyingTrial.update

        def broken(self: CopyingTrial, step: int) -> dict[str, float]:
            if self.model.core.__class__.__name__ == "RIM":
                raise RuntimeError("not enough memory\nfor this")
            return update(self, step)

        monkeypatch.setattr(CopyingTrial, "update", broken)
        assert run_experiment("copying", replace(TINY, output=tmp_path / "out", seeds=1)) == 1
        found = {trial["variant"]: trial for trial in results(tmp_path / "out")["trials"]}
        assert found["lstm"]["ended"] == "finished"
        assert found["rim"]["ended"] == (
            "failed: RuntimeError: not enough memory for this (more in rim_seed0/error.txt)"
        )
        trace = (tmp_path / "out" / "trials" / "rim_seed0" / "error.txt").read_text("utf-8")
        assert trace.startswith("Traceback")

    def test_a_damaged_result_is_told_and_left_out(self, tmp_path: Path, capsys) -> None:
        run_experiment("copying", replace(TINY, output=tmp_path, seeds=1))
        (tmp_path / "trials" / "rim_seed0" / "result.json").write_text("{")
        assert run_experiment("copying", load_settings(tmp_path, "copying", CopyingConfig)) == 1
        assert "remove the folder to redo it" in capsys.readouterr().out
        assert [trial["variant"] for trial in results(tmp_path)["trials"]] == ["lstm"]


class TestWorkers:
    def test_a_trial_in_this_process_has_its_threads_and_gives_them_back(self, tmp_path: Path, monkeypatch) -> None:
        seen, before = [], torch.get_num_threads()
        update = CopyingTrial.update

        def noting(self: CopyingTrial, step: int) -> dict[str, float]:
            seen.append(torch.get_num_threads())
            return update(self, step)

        monkeypatch.setattr(CopyingTrial, "update", noting)
        config = replace(TINY, output=tmp_path, seeds=1, models=("rim",), torch_threads=before + 1)
        run_experiment("copying", config)
        assert set(seen) == {before + 1}
        assert torch.get_num_threads() == before
        assert f"torch threads: {before + 1}" in results(tmp_path)["trials"][0]["measured_on"]

    def test_the_threads_of_a_trial_are_kept_for_a_resume(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(runner, "processor_cores", lambda: 6)
        run_experiment("copying", replace(TINY, output=tmp_path, workers=1, torch_threads=0, models=("rim",), seeds=1))
        assert load_settings(tmp_path, "copying", CopyingConfig).torch_threads == 6

    @pytest.mark.slow
    @pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
    def test_no_worker_outlives_its_parent(self, tmp_path: Path, kill: signal.Signals) -> None:
        words = "experiment copying --config small --updates 100000 --test-sequences 8 --workers 2 --seeds 1 --output"
        command = [sys.executable, "-m", "rims_rl", *words.split(), str(tmp_path / "out")]
        parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        checkpoints = tmp_path / "out" / "trials"
        until(lambda: len(list(checkpoints.glob("*/checkpoint.safetensors"))) == 2)
        workers = children_of(parent.pid)
        assert len(workers) >= 2
        parent.send_signal(kill)
        parent.send_signal(kill)  # the second SIGTERM ends the parent at once
        parent.wait()
        until(lambda: not any(is_running(worker) for worker in workers))


def until(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class TestBadInput:
    def test_leaves_nothing_behind(self, tmp_path: Path) -> None:
        for changes in (
            {"updates": 0}, {"models": ("rim", "nothing")}, {"models": ("lstm:hidden=3",)},
            {"device": "abacus"}, {"device": "meta"}, {"models": ("rim", "rim:")},
            {"rim": {"num_units": 2, "active_units": 3}},
        ):  # fmt: skip
            with pytest.raises(ConfigError):
                run_experiment("copying", replace(TINY, output=tmp_path / "out", **changes))
            assert not (tmp_path / "out").exists()

    def test_a_folder_that_holds_an_experiment_is_not_overwritten(self, tmp_path: Path) -> None:
        config = replace(TINY, output=tmp_path, seeds=1, models=("rim",))
        run_experiment("copying", config)
        with pytest.raises(RunExistsError, match="already holds a run"):
            run_experiment("copying", config)

    def test_trials_that_lie_about_are_not_taken_for_new_results(self, tmp_path: Path) -> None:
        config = replace(TINY, output=tmp_path, seeds=1, models=("rim",))
        run_experiment("copying", config)
        (tmp_path / "config.yaml").unlink()
        (tmp_path / "results.json").unlink()
        with pytest.raises(RunExistsError, match="already holds a run"):
            run_experiment("copying", config)

    def test_a_disk_that_refuses_is_one_line(self, tmp_path: Path, monkeypatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device", "results.json")

        monkeypatch.setattr(runner, "write_results", refuse)
        with pytest.raises(RimsError, match=r"^results.json: No space left on device$"):
            run_experiment("copying", replace(TINY, output=tmp_path, seeds=1, models=("rim",)))

    def test_a_folder_of_another_experiment_cannot_be_resumed(self, tmp_path: Path) -> None:
        run_experiment("copying", replace(TINY, output=tmp_path, seeds=1, models=("rim",)))
        with pytest.raises(ConfigError, match=r"holds copying, not the experiment adding$"):
            load_settings(tmp_path, "adding", CopyingConfig)
        with pytest.raises(ConfigError, match=r"holds no experiment: there is no config.yaml in it$"):
            load_settings(tmp_path / "plots", "adding", CopyingConfig)


def test_every_experiment_of_the_registry_can_be_imported() -> None:
    for name in registry.EXPERIMENTS:
        found = registry.experiment_class(name)
        assert found.name == name
        found.config_class().check()


def test_workers_share_the_processor_s_cores(monkeypatch) -> None:
    monkeypatch.setattr(runner, "processor_cores", lambda: 8)
    assert [runner._workers(replace(TINY, workers=wanted), 5) for wanted in (0, 1, 3, 9)] == [5, 1, 3, 5]
