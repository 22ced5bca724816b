"""A run from the command line: its files, its stops, and going on as if it had never stopped."""

from __future__ import annotations

import csv
import errno
import json
import multiprocessing
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from rims_rl import training
from rims_rl.agents import RIMPPO
from rims_rl.cli import main
from rims_rl.config import EvaluateConfig
from rims_rl.runs import RunFolder, locked
from rims_rl.storage.tensor_files import read_tensors
from rims_rl.tracking import WandbRun

SMALL = [
    "--env", "cartpole-novel", "--core-kwargs", "num_units:3,active_units:2,unit_size:5", "--n-envs", "2",
    "--n-steps", "16", "--batch-size", "16", "--n-epochs", "2", "--log-interval", "1", "--save-freq", "32",
    "--wandb", "disabled", "--verbose", "0", "--device", "cpu",
]  # fmt: skip
UPDATE = 32
Said = pytest.CaptureFixture[str]


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains for some steps in tmp_path/NAME and returns the folder."""

    def run(name: str, steps: int, *options: str, code: int = 0) -> Path:
        assert main(["train", *SMALL, "-n", str(steps), "--output", str(tmp_path / name), *options]) == code
        return tmp_path / name

    return run


class At(BaseCallback):
    """Does something once a step is reached."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        super().__init__()
        self.step, self.action = step, action

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.action()
        return True


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], Any]) -> None:
    """Let the next run do something when it reaches a step."""
    original = training._callbacks
    monkeypatch.setattr(training, "_callbacks", lambda *given: [*original(*given), At(step, action)])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "policy.safetensors")[0]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def progress(folder: Path) -> list[dict[str, str]]:
    with open(folder / "progress.csv", newline="") as handle:
        return list(csv.DictReader(handle))


class TestFiles:
    def test_a_finished_run_holds_what_was_promised(self, small: Callable[..., Path]) -> None:
        folder = small("run", 3 * UPDATE)
        promised = {"config.yaml", "progress.csv", "checkpoints", "model.zip", "policy.safetensors", "policy.json"}
        assert promised <= {path.name for path in folder.iterdir()}
        steps = sorted(path.name for path in (folder / "checkpoints").glob("step_*"))
        assert steps == [f"step_{step:09d}.safetensors" for step in (32, 64, 96)]
        assert not [path for path in folder.rglob("*") if "unfinished" in path.name]

    def test_progress_has_one_row_per_update_with_what_was_learned(self, small: Callable[..., Path]) -> None:
        rows = progress(small("run", 3 * UPDATE))
        assert [int(row["step"]) for row in rows] == [32, 64, 96]
        assert float(rows[-1]["train/learning_rate"]) < float(rows[1]["train/learning_rate"])
        assert 0 < float(rows[-1]["rims/active_unit_0"]) <= 1

    def test_updates_after_the_last_table_are_logged_too(self, small: Callable[..., Path]) -> None:
        rows = progress(small("run", 3 * UPDATE, "--log-interval", "2"))
        assert [int(row["step"]) for row in rows] == [64, 96]

    def test_model_zip_loads_in_sb3_with_its_falling_schedules(self, small: Callable[..., Path]) -> None:
        model = RIMPPO.load(small("run", UPDATE, "--learning-rate", "lin_1e-2") / "model.zip")
        assert model.lr_schedule(0.25) == pytest.approx(2.5e-3)
        assert model.clip_range(0.5) == pytest.approx(0.05)
        assert model.num_timesteps == UPDATE

    @pytest.mark.faults
    def test_the_same_seed_gives_the_same_agent_and_another_one_another(self, small: Callable[..., Path]) -> None:
        first, again = weights(small("a", 2 * UPDATE)), weights(small("b", 2 * UPDATE))
        assert same(first, again)
        assert not same(first, weights(small("c", 2 * UPDATE, "--seed", "1")))

    def test_environments_in_processes_of_their_own_give_the_same_agent(self, small: Callable[..., Path]) -> None:
        assert same(weights(small("a", 2 * UPDATE)), weights(small("b", 2 * UPDATE, "--subprocess")))

    @pytest.mark.faults
    def test_a_second_run_in_the_same_folder_is_refused(
        self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = weights(small("run", UPDATE))
        capsys.readouterr()
        folder = small("run", UPDATE, "--seed", "5", code=2)
        assert "already holds a run" in capsys.readouterr().err
        assert same(weights(folder), before)

    @pytest.mark.faults
    def test_a_disk_that_refuses_the_final_files_is_one_line_and_the_checkpoints_stay(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(training, "save_policy", refuse)
        folder = small("run", UPDATE, code=2)
        assert "the final files cannot be written: No space left on device" in capsys.readouterr().err
        assert [path.name for path in (folder / "checkpoints").glob("step_*")] == ["step_000000032.safetensors"]


def untimed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Leave out what depends on the clock."""
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


@pytest.mark.faults
class TestStopAndResume:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_saves_says_how_to_go_on_and_the_rest_is_as_if_it_had_not_come(
        self,
        small: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        number: signal.Signals,
        code: int,
    ) -> None:
        whole = small("whole", 5 * UPDATE)
        with monkeypatch.context() as patch:
            interrupt(patch, 2 * UPDATE - 10, lambda: signal.raise_signal(number))
            folder = small("stopped", 5 * UPDATE, code=code)
        assert f"--resume {folder}" in capsys.readouterr().out
        assert not same(weights(folder), weights(whole))
        assert main(["train", "--resume", str(folder)]) == 0
        assert same(weights(folder), weights(whole))
        assert untimed(progress(folder)) == untimed(progress(whole))

    @pytest.mark.parametrize("interval", ["2", "3"])
    def test_tables_come_when_they_would_have_come_and_say_the_same(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, interval: str
    ) -> None:
        whole = small("whole", 7 * UPDATE, "--log-interval", interval)
        assert [int(row["step"]) // UPDATE for row in progress(whole)] == (
            [2, 4, 6, 7] if interval == "2" else [3, 6, 7]
        )
        with monkeypatch.context() as patch:
            interrupt(patch, 4 * UPDATE + 2, lambda: signal.raise_signal(signal.SIGTERM))
            folder = small("stopped", 7 * UPDATE, "--log-interval", interval, code=143)
        assert main(["train", "--resume", str(folder)]) == 0
        assert untimed(progress(folder)) == untimed(progress(whole))

    def test_a_crash_goes_on_from_the_newest_checkpoint(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        whole = small("whole", 4 * UPDATE)
        with monkeypatch.context() as patch:
            interrupt(patch, 3 * UPDATE + 2, lambda: [][0])
            with pytest.raises(IndexError):
                small("crashed", 4 * UPDATE)
        assert main(["train", "--resume", str(tmp_path / "crashed")]) == 0
        assert same(weights(tmp_path / "crashed"), weights(whole))

    def test_numbers_that_are_not_finite_leave_their_evidence_and_a_way_on(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Said
    ) -> None:
        original = RIMPPO._loss

        def poisoned(model: RIMPPO, batch: Any) -> Any:
            loss, terms = original(model, batch)
            is_late = model.num_timesteps > 2 * UPDATE
            return (loss * float("nan"), terms | {"loss": float("nan")}) if is_late else (loss, terms)

        with monkeypatch.context() as patch:
            patch.setattr(RIMPPO, "_loss", poisoned)
            small("run", 4 * UPDATE, "--most-skipped", "3", code=2)
        said, folder = capsys.readouterr(), tmp_path / "run"
        assert "the loss is nan for 4 minibatches in a row" in said.err
        assert f"go on from step {2 * UPDATE} with: rims-rl train --resume {folder}" in said.out
        tensors, manifest = read_tensors(folder / f"not_finite_{3 * UPDATE:09d}.safetensors")
        assert manifest["reason"].startswith("the loss is nan")
        assert {"observations", "actions", "returns", "policy/core.value"} < set(tensors)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
        assert main(["train", "--resume", str(folder)]) == 0
        assert same(weights(folder), weights(small("whole", 4 * UPDATE)))

    def test_an_environment_whose_process_dies_is_replaced_and_counted(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def kill_one() -> None:
            multiprocessing.active_children()[0].kill()

        with monkeypatch.context() as patch:
            interrupt(patch, UPDATE + 8, kill_one)
            folder = small("run", 3 * UPDATE, "--subprocess")
        assert "died with exit code -9 (SIGKILL); a new process takes its place" in caplog.text
        assert [row["rollout/env_restarts"] for row in progress(folder)] == ["", "", "1"]
        assert RIMPPO.load(folder / "model.zip").num_timesteps == 3 * UPDATE

    def test_one_too_many_ends_the_run_which_goes_on_exactly(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Said
    ) -> None:
        whole = small("whole", 4 * UPDATE)
        with monkeypatch.context() as patch:
            interrupt(patch, 2 * UPDATE + 8, lambda: multiprocessing.active_children()[0].kill())
            small("run", 4 * UPDATE, "--subprocess", "--env-restarts", "0", code=2)
        said = capsys.readouterr()
        assert re.search(r"environment \d \(seed \d, last action \d\) died with exit code -9 \(SIGKILL\)", said.err)
        assert f"--resume {tmp_path / 'run'}" in said.out
        assert main(["train", "--resume", str(tmp_path / "run")]) == 0
        assert same(weights(tmp_path / "run"), weights(whole))

    def test_a_damaged_newest_checkpoint_is_passed_over(self, small: Callable[..., Path]) -> None:
        folder, longer = small("run", 3 * UPDATE), small("longer", 3 * UPDATE)
        for name in ("run", "longer"):
            newest = sorted((folder.parent / name / "checkpoints").glob("step_*"))[-1]
            newest.write_bytes(newest.read_bytes()[:-100]) if name == "run" else newest.unlink()
            assert main(["train", "--resume", str(folder.parent / name)]) == 0
        assert same(weights(folder), weights(longer))

    def test_a_finished_run_without_more_steps_is_one_line(
        self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = small("run", UPDATE)
        capsys.readouterr()
        assert main(["train", "--resume", str(folder)]) == 2
        assert "has done 32 of its 32 steps; train it further by a larger --total-timesteps" in capsys.readouterr().err

    def test_a_finished_run_goes_on_to_a_larger_total(self, small: Callable[..., Path]) -> None:
        folder = small("run", UPDATE)
        assert main(["train", "--resume", str(folder), "-n", str(3 * UPDATE)]) == 0
        assert [int(row["step"]) for row in progress(folder)] == [32, 64, 96]
        assert RIMPPO.load(folder / "model.zip").num_timesteps == 3 * UPDATE

    def test_an_environment_that_cannot_be_put_back_is_said(
        self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = small("run", UPDATE, "--env", "CartPole-v1")
        assert main(["train", "--resume", str(folder), "-n", str(2 * UPDATE)]) == 0
        assert "approximately: what the environments were doing is lost" in capsys.readouterr().out.replace("\n", " ")

    def test_a_run_in_use_is_refused(self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
        folder = small("run", UPDATE)
        with locked(RunFolder(folder)):
            assert main(["train", "--resume", str(folder), "-n", "999"]) == 2
        assert "is in use" in capsys.readouterr().err

    def test_a_run_that_was_ended_before_its_first_checkpoint_begins_anew(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Said
    ) -> None:
        whole, folder = small("whole", 3 * UPDATE), tmp_path / "crashed"
        with monkeypatch.context() as patch:
            interrupt(patch, UPDATE + 2, lambda: [][0])
            with pytest.raises(IndexError):
                small("crashed", 3 * UPDATE, "--save-freq", "0")
        assert not list((folder / "checkpoints").iterdir())
        assert main(["train", "--resume", str(folder)]) == 0
        assert "was ended before its first checkpoint: it begins anew" in capsys.readouterr().out.replace("\n", " ")
        assert same(weights(folder), weights(whole))
        assert [int(row["step"]) for row in progress(folder)] == [32, 64, 96]

    def test_final_files_that_the_disk_refused_are_written_by_a_resume(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = small("whole", 2 * UPDATE)

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(training, "save_policy", refuse)
            folder = small("run", 2 * UPDATE, code=2)
        assert main(["train", "--resume", str(folder)]) == 0
        assert same(weights(folder), weights(whole))
        assert main(["train", "--resume", str(folder)]) == 2

    def test_a_folder_that_was_made_and_nothing_more_can_be_used(
        self, small: Callable[..., Path], tmp_path: Path
    ) -> None:
        RunFolder(tmp_path / "run").create()
        small("run", UPDATE)

    def test_a_finished_run_without_checkpoints_is_one_line(
        self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = small("run", UPDATE)
        shutil.rmtree(folder / "checkpoints")
        assert main(["train", "--resume", str(folder), "-n", "999"]) == 2
        assert "holds no checkpoint" in capsys.readouterr().err

    def test_the_same_wandb_run_goes_on(self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str | None] = []

        def start(config: Any, folder: Any, run_id: str | None, extra: Any) -> WandbRun:
            asked.append(run_id)
            run = WandbRun()
            run.id = "prime23"
            return run

        monkeypatch.setattr(training, "start_wandb", start)
        folder = small("run", UPDATE)
        main(["train", "--resume", str(folder), "-n", str(2 * UPDATE)])
        assert asked == [None, "prime23"]


class TestOnTheWay:
    def test_evaluations_are_logged_and_the_last_one_is_kept(self, small: Callable[..., Path]) -> None:
        folder = small("run", 3 * UPDATE, "--eval-freq", "32", "--eval-episodes", "3")
        assert all(float(row["eval/mean_reward"]) > 0 for row in progress(folder)[1:])
        result = json.loads((folder / "evaluation.json").read_text())
        assert (result["episodes"], result["trained_steps"], len(result["games"])) == (3, 96, 3)

    @pytest.mark.faults
    def test_the_last_one_has_a_time_limit(self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[EvaluateConfig] = []
        monkeypatch.setattr(training, "evaluate_run", lambda config: asked.append(config) or {"mean": 0.0})
        small("run", UPDATE, "--eval-freq", "32", "--eval-episodes", "1")
        assert [config.max_minutes for config in asked] == [60.0]

    def test_evaluations_and_videos_do_not_change_what_is_learned(self, small: Callable[..., Path]) -> None:
        plain = weights(small("plain", 3 * UPDATE))
        watched = small("watched", 3 * UPDATE, "--eval-freq", "32", "--eval-episodes", "2", "--video-freq", "64")
        assert same(weights(watched), plain)
        assert [path.name for path in (watched / "videos").iterdir()] == ["step_000000064.mp4"]

    def test_the_table_and_the_closing_line_are_shown(
        self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = small("run", UPDATE, "--verbose", "1")
        shown = capsys.readouterr().out
        assert "step 32" in shown
        assert "done: 32 steps, " in shown
        assert f"rims-rl evaluate {folder}" in shown

    def test_a_profile_is_shown_where_it_is_asked_for_and_changes_nothing(
        self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        plain = small("plain", UPDATE)
        assert "where the time went" not in capsys.readouterr().out
        profiled = small("profiled", UPDATE, "--profile")
        shown = capsys.readouterr().out
        assert "where the time went: 32 steps, " in shown
        assert all(phase in shown for phase in ("environment", "inference", "core", "optimizer"))
        assert same(weights(profiled), weights(plain))


class TestAfterwards:
    def test_every_kept_agent_can_be_evaluated(self, small: Callable[..., Path]) -> None:
        folder = small("run", 3 * UPDATE)
        for which, step in (("final", 96), ("newest", 96), ("64", 64), ("32", 32)):
            assert main(["evaluate", str(folder), "--episodes", "3", "--checkpoint", which]) == 0
            assert json.loads((folder / "evaluation.json").read_text())["trained_steps"] == step

    def test_the_same_evaluation_gives_the_same_scores(self, small: Callable[..., Path], tmp_path: Path) -> None:
        folder, found = small("run", UPDATE), []
        for name in ("a.json", "b.json"):
            assert main(["evaluate", str(folder), "--episodes", "5", "--json", str(tmp_path / name)]) == 0
            found.append(json.loads((tmp_path / name).read_text())["games"])
        assert found[0] == found[1]

    def test_a_checkpoint_that_is_not_there_gets_the_list_of_those_that_are(
        self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = small("run", 2 * UPDATE)
        assert main(["evaluate", str(folder), "--checkpoint", "99"]) == 2
        assert "has no checkpoint '99'; choose final" in capsys.readouterr().err

    def test_an_unfinished_run_is_evaluated_at_its_newest_checkpoint(
        self, small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        interrupt(monkeypatch, 2 * UPDATE + 2, lambda: [][0])
        with pytest.raises(IndexError):
            small("crashed", 4 * UPDATE)
        assert main(["evaluate", str(tmp_path / "crashed"), "--episodes", "2"]) == 0
        assert json.loads((tmp_path / "crashed" / "evaluation.json").read_text())["checkpoint"] == "step_000000064"

    def test_an_episode_is_recorded(self, small: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
        folder = small("run", UPDATE)
        still = folder / "still.png"
        assert main(["record", str(folder), "--frame", str(still), "--seed", "3", "--max-steps", "20"]) == 0
        assert (folder / "videos" / "final_3.mp4").stat().st_size > 1000
        assert still.exists()
        assert "final_3.mp4" in capsys.readouterr().out
