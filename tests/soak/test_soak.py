"""A soak survives what it should, and says so when something is lost."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from rims_rl.agents.checkpoint import CheckpointStore
from rims_rl.cli import main
from rims_rl.errors import ConfigError
from rims_rl.runs import RunFolder
from rims_rl.soak import SoakConfig
from rims_rl.soak.checks import account, difference
from rims_rl.soak.faults import ON_THE_PROCESS, WORKER_ENDS_THE_RUN, WORKER_IS_REPLACED, Fault
from rims_rl.soak.ledger import Ledger
from rims_rl.soak.processes import group_of, workers_of
from rims_rl.soak.runner import Soak
from rims_rl.soak.subject import Lost
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from tests.test_training import SMALL, UPDATE

pytestmark = pytest.mark.faults
STEPS = 3 * UPDATE


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("soak")
    for name in ("run", "reference"):
        assert main(["train", *SMALL, "-n", str(STEPS), "--output", str(folder / name)]) == 0
    return folder / "run", folder / "reference"


@pytest.fixture
def runs(_trained: tuple[Path, Path], tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """Two runs that are the same, in folders of one's own."""
    run, reference = (RunFolder(shutil.copytree(path, tmp_path / path.name)) for path in _trained)
    return run, reference


class TestAccount:
    def test_a_whole_run_has_nothing_missing(self, runs: tuple[RunFolder, RunFolder]) -> None:
        assert account(runs[0], STEPS) == []
        assert difference(*runs) == []

    def test_steps_that_are_missing_are_told(self, runs: tuple[RunFolder, RunFolder]) -> None:
        assert account(runs[0], STEPS + 1)[:2] == [f"{STEPS} steps are stored, {STEPS + 1} were trained"] * 2

    @pytest.mark.parametrize("spoil", [lambda rows: [*rows, rows[-1]], lambda rows: rows[:-1]], ids=["twice", "lost"])
    def test_rows_of_progress_are_there_once(
        self, runs: tuple[RunFolder, RunFolder], spoil: Callable[[list[str]], list[str]]
    ) -> None:
        file = runs[0].progress_file
        file.write_text("".join(spoil(file.read_text().splitlines(keepends=True))))
        assert "not each once" in account(runs[0], STEPS)[0]
        assert "progress.csv differs" in difference(*runs)[0]

    def test_a_checkpoint_that_cannot_be_read_is_told(self, runs: tuple[RunFolder, RunFolder]) -> None:
        for path in runs[0].checkpoints.iterdir():
            path.write_bytes(b"")
        assert "is truncated" in account(runs[0], STEPS)[0]

    def test_what_was_left_behind_is_told(self, runs: tuple[RunFolder, RunFolder]) -> None:
        (runs[0].checkpoints / ".step_000000001.safetensors.7.unfinished").touch()
        assert account(runs[0], STEPS) == [".step_000000001.safetensors.7.unfinished was left behind"]

    def test_weights_that_are_not_finite_are_told(self, runs: tuple[RunFolder, RunFolder]) -> None:
        change(runs[0].checkpoints / f"step_{STEPS:09d}.safetensors", lambda weight: weight * float("nan"))
        for path in runs[0].path.glob("policy.*"):
            path.unlink()
        assert "weights are not finite" in account(runs[0], STEPS)


def change(path: Path, how: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change one weight in a file, and its checksum with it."""
    tensors, manifest = read_tensors(path)
    name = next(name for name in tensors if name.endswith("value_net.weight"))
    write_tensors(path, {**tensors, name: how(tensors[name])}, manifest)


class TestDifference:
    def test_a_weight_that_differs_in_its_last_bit_is_told(self, runs: tuple[RunFolder, RunFolder]) -> None:
        def nudge(weight: torch.Tensor) -> torch.Tensor:
            return torch.nextafter(weight, weight + 1)

        change(runs[0].policy_stem.with_suffix(".safetensors"), nudge)
        assert difference(*runs) == ["policy.safetensors differs in value_net.weight"]
        change(CheckpointStore(runs[0].checkpoints).newest().path, nudge)
        assert difference(*runs)[1] == f"step_{STEPS:09d}.safetensors differs in policy/value_net.weight"

    def test_a_counter_that_differs_is_told(self, runs: tuple[RunFolder, RunFolder]) -> None:
        path, tensors, manifest = CheckpointStore(runs[0].checkpoints).newest()
        manifest["state"]["counters"]["_n_updates"] += 1
        write_tensors(path, tensors, manifest)
        assert "the counters are" in difference(*runs)[0]


class TestLedger:
    def test_it_is_clean_when_all_was_survived_and_runs_were_finished(self) -> None:
        ledger = Ledger()
        assert not ledger.is_clean
        ledger.injected["killed"] += 2
        ledger.survived["killed"] += 2
        assert not ledger.is_clean
        ledger.finished = 1
        assert ledger.is_clean
        assert ledger.as_json()["faults"] == {"killed": {"injected": 2, "survived": 2}}

    @pytest.mark.parametrize(
        "spoil", [lambda ledger: ledger.lost.append("x"), lambda ledger: ledger.injected.update("a")]
    )
    def test_it_is_not_when_something_was_lost(self, spoil: Callable[[Ledger], Any]) -> None:
        ledger = Ledger()
        ledger.injected["killed"] = ledger.survived["killed"] = ledger.finished = 1
        spoil(ledger)
        assert not ledger.is_clean


class Stand:
    """Stands for a training process: ends with a code, and is resumed or not."""

    def __init__(self, code: int | None, resumes: bool = True) -> None:
        self.code, self.resumes, self.step, self.is_training = code, resumes, 7, False
        self.folder, self.is_at_its_end = RunFolder(Path("run_1")), False
        self.waited: list[float] = []

    def wait(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        if until is None:
            self.waited.append(seconds)
        return self.code is not None or (until is not None and until())

    @property
    def has_ended_well(self) -> bool:
        return self.code == 0 or (self.code == 2 and self.is_at_its_end)

    def workers(self) -> list[int]:
        return []

    def start(self) -> None:
        self.code, self.is_training = (None, True) if self.resumes else (2, False)

    def last_words(self) -> str:
        return "its last words"


class TestRecovery:
    def recover(self, subject: Any, fault: Fault) -> None:
        Soak(SoakConfig(env="cartpole-novel"))._recover(subject, fault, 7)

    @pytest.mark.parametrize("fault", [*ON_THE_PROCESS, *WORKER_ENDS_THE_RUN], ids=lambda fault: fault.name)
    def test_an_end_that_the_fault_explains_is_resumed(self, fault: Fault) -> None:
        for code in fault.codes:
            subject = Stand(code)
            self.recover(subject, fault)
            assert subject.is_training

    @pytest.mark.parametrize("code", [1, 2, -signal.SIGSEGV])
    def test_another_end_is_a_loss_that_says_what_was_printed(self, code: int) -> None:
        for fault in (ON_THE_PROCESS[0], WORKER_IS_REPLACED[0]):
            with pytest.raises(Lost, match=f"{fault.name}: it ended with code {code}: its last words"):
                self.recover(Stand(code), fault)

    @pytest.mark.parametrize("fault", ON_THE_PROCESS[3:5], ids=lambda fault: fault.name)
    def test_a_signal_after_the_training_ends_the_program_as_any_other(self, fault: Fault) -> None:
        for code in fault.late_codes:
            with pytest.raises(Lost, match=f"it ended with code {code}"):
                self.recover(Stand(code), fault)
            subject = Stand(code)
            subject.is_at_its_end = True
            self.recover(subject, fault)
            assert subject.is_training

    @pytest.mark.parametrize("code", [-9, 2])
    def test_a_complete_run_whose_resume_is_refused_is_none(self, code: int) -> None:
        subject = Stand(code, resumes=False)
        subject.is_at_its_end = True
        self.recover(subject, ON_THE_PROCESS[0])
        assert subject.code == 2

    def test_a_run_that_cannot_be_resumed_is_a_loss(self) -> None:
        with pytest.raises(Lost, match="it could not be resumed"):
            self.recover(Stand(-9, resumes=False), ON_THE_PROCESS[0])

    @pytest.mark.parametrize("fault", [*ON_THE_PROCESS, *WORKER_ENDS_THE_RUN], ids=lambda fault: fault.name)
    def test_a_run_that_goes_on_where_it_must_end_is_a_loss(self, fault: Fault) -> None:
        subject = Stand(None)
        subject.step = 8
        if fault.may_go_on or not fault.codes:
            self.recover(subject, fault)
            return
        with pytest.raises(Lost, match=f"{fault.name}: it did not end within 60 s: its last words"):
            self.recover(subject, fault)

    @pytest.mark.parametrize("fault", WORKER_ENDS_THE_RUN, ids=lambda fault: fault.name)
    def test_a_dead_worker_ends_a_run_that_saves_once_more(self, fault: Fault) -> None:
        subject = Stand(2)
        subject.step = 8  # a checkpoint came before the end
        fault.act(cast(Any, subject), random.Random(0))
        self.recover(subject, fault)
        assert subject.waited == [60.0]
        assert subject.is_training

    def test_a_run_that_hangs_is_a_loss(self) -> None:
        with pytest.raises(Lost, match="it did not go on within"):
            self.recover(Stand(None), WORKER_IS_REPLACED[0])


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"minutes": 0.0}, "--minutes must be at least 0.25, got 0.0"),
            ({"minutes": float("nan")}, "--minutes must be at least"),
            ({"seed": -1}, "--seed must be at least 0"),
            ({"json": Path("nowhere/x.json")}, "there is no folder nowhere"),
        ],
    )
    def test_what_cannot_work_is_one_line(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SoakConfig(**settings).check()

    def test_a_folder_that_holds_something_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine").touch()
        with pytest.raises(ConfigError, match="is not empty"):
            SoakConfig(output=tmp_path).check()


def test_a_process_has_a_group_and_no_workers() -> None:
    import os

    assert os.getpid() in group_of(os.getpgrp())
    assert workers_of(2**22 + 1) == []


@pytest.mark.slow
def test_half_a_minute_of_faults_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["soak", "--minutes", "0.5", "--env", "cartpole-novel", "--json", str(tmp_path / "soak.json")]
    code = main(words)
    said = capsys.readouterr().out
    assert code == 0, said
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["injected"] == found["survived"] > 0
    assert found["lost"] == []
    assert found["runs_equal"] == found["runs_comparable"] >= 1
    assert "nothing lost" in said
