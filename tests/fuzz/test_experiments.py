"""The folders of experiments and robustness reports: checkpoints, results and cells."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rims_rl.config import TrainConfig
from rims_rl.errors import CheckpointError
from rims_rl.experiments import figures as shared
from rims_rl.experiments.bouncing_balls import drawing
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.folder import ExperimentFolder, read_about, save_settings
from rims_rl.experiments.inverse_mechanisms import figures as inverse_figures
from rims_rl.experiments.loop import TrialFolder, _Loop, read_outcome
from rims_rl.experiments.report import draw_all, print_table, write_results
from rims_rl.experiments.robustness.cells import head_of, read_cell
from rims_rl.experiments.robustness.conditions import CLEAN, Condition
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.findings import read_findings
from rims_rl.experiments.robustness.folder import RobustnessFolder
from rims_rl.experiments.robustness.grid import Grid
from rims_rl.experiments.robustness.play import Cell
from rims_rl.experiments.robustness.report import write_report
from rims_rl.experiments.robustness.subjects import Subject
from rims_rl.experiments.sequential_mnist import figures as mnist_figures
from rims_rl.experiments.variants import Variant
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from rims_rl.tracking import stored_run_id
from tests.experiments.lines import Lines
from tests.experiments.resuming import run
from tests.fuzz.guard import survives
from tests.fuzz.hostile import Mischief, fuzzed, nested

pytestmark = pytest.mark.faults
CONFIG = ExperimentConfig(models=("line",), updates=7, eval_freq=2)
LINE = Variant("line", "lstm")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished trial, and one that was stopped in the middle."""
    folder = tmp_path_factory.mktemp("trials")
    outcome = run(Lines(CONFIG), LINE, folder / "finished")
    assert outcome is not None
    whole = ExperimentFolder(folder / "whole")
    whole.create()
    draw_all(Lines(CONFIG), whole, [outcome])  # Matplotlib makes folders of its own at its first use
    assert run(Lines(CONFIG), LINE, folder / "stopped", stop_after=3) is None
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def copied(source: Path, folder: Path) -> Path:
    shutil.rmtree(folder / "trial", ignore_errors=True)
    return shutil.copytree(source, folder / "trial")


class TestCheckpoints:
    @fuzzed(250)
    def test_mutated_states(self, good, folder, by):
        trial = copied(good / "stopped", folder)
        file = trial / "checkpoint.safetensors"
        tensors, manifest = read_tensors(file)
        part = by.one_of([*manifest["trial"], None])
        changed = (
            by.json(manifest)
            if part is None
            else {"trial": manifest["trial"] | {part: by.json(manifest["trial"][part])}}
        )
        write_tensors(file, by.tensors(tensors), changed if isinstance(changed, dict) else {})

        def go_on() -> None:
            torch.manual_seed(0)
            loop = _Loop(Lines(CONFIG).trial(LINE, 3), 3, CONFIG, TrialFolder(trial), lambda *_: None)
            loop.load()
            if loop.course.update < 100 and (ended := loop.train(lambda: False)) is not None:
                loop.finish(Outcome("line", 3), ended)

        survives(go_on, trial)

    @pytest.mark.parametrize("part", ["modules", "best_weights"])
    def test_weights_of_another_model_are_refused_at_once(self, good, folder, part):
        """The best weights are needed after the last update alone."""
        trial = copied(good / "stopped", folder)
        file = trial / "checkpoint.safetensors"
        tensors, manifest = read_tensors(file)
        name = next(name for name in tensors if name.startswith(f"trial/{part}") and name.endswith("weight"))
        for other in (torch.zeros(3, 3), torch.zeros(1, 1, dtype=torch.float64)):
            write_tensors(file, tensors | {name: other}, manifest)
            loop = _Loop(Lines(CONFIG).trial(LINE, 3), 3, CONFIG, TrialFolder(trial), lambda *_: None)
            assert isinstance(survives(loop.load, trial, names=file.name), CheckpointError)

    @fuzzed(100)
    def test_bytes(self, good, folder, by):
        trial = copied(good / "stopped", folder)
        file = trial / "checkpoint.safetensors"
        file.write_bytes(by.bytes(file.read_bytes()))
        survives(lambda: _Loop(Lines(CONFIG).trial(LINE, 3), 3, CONFIG, TrialFolder(trial), print).load(), trial)


class TestResults:
    @fuzzed(250)
    def test_mutated_results(self, good, folder, by):
        trial = copied(good / "finished", folder)
        result = trial / "result.json"
        if by.random.random() < 0.3:
            result.write_bytes(by.bytes(result.read_bytes()))
        else:
            result.write_text(json.dumps(by.json(json.loads(result.read_text()))))
        survives(lambda: read_outcome(TrialFolder(trial), "line", 3), folder, names="trial")

    @fuzzed(25)
    def test_what_is_read_can_be_reported(self, good, folder, by):
        trial = copied(good / "finished", folder)
        result, arrays = json.loads((trial / "result.json").read_text()), trial / "arrays.safetensors"
        result |= {"figures": by.json(result["figures"]), "rows": by.json(result["rows"])}
        (trial / "result.json").write_text(json.dumps(result))
        write_tensors(arrays, by.tensors(read_tensors(arrays)[0]), {})
        whole = ExperimentFolder(folder / "report")
        whole.create()
        save_settings(whole, "lines", CONFIG)

        def report() -> None:
            outcome = read_outcome(TrialFolder(trial), "line", 3)
            write_results(Lines(CONFIG), whole, [outcome])
            print_table(Lines(CONFIG), [outcome])
            draw_all(Lines(CONFIG), whole, [outcome])

        survives(report, folder)

    def test_a_deep_result(self, good, folder):
        trial = copied(good / "finished", folder)
        (trial / "result.json").write_text("[" * 10**6)
        found = survives(lambda: read_outcome(TrialFolder(trial), "line", 3), folder, names="trial")
        assert isinstance(found, CheckpointError)


def drawn(monkeypatch: pytest.MonkeyPatch, module: Any, draw: Callable[[], Any]) -> Any:
    """Return the figure that would have been written."""
    figures: list[Any] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, file: figures.append(figure) or file)
    draw()
    return figures[0]


class TestDrawing:
    """Arrays of sizes that no experiment makes; every tick, panel and picture of a film takes time."""

    def outcome(self, **arrays: torch.Tensor) -> Outcome:
        return Outcome("rim", 0, 1, 1, 1, "finished", 1.0, figures={"x": 1.0}, arrays=arrays)

    def test_units_have_a_tick_each(self, folder, monkeypatch):
        found = self.outcome(active=torch.zeros(2, 5_000, dtype=torch.uint8))
        figure = drawn(monkeypatch, shared, lambda: shared.draw_activity([found], "active", folder / "x.png", {}))
        assert len(figure.axes[0].get_yticks()) == 64

    def test_units_and_digits_have_a_panel_each(self, folder, monkeypatch):
        found = self.outcome(
            shown_pixels=torch.zeros(4, 90, dtype=torch.bool), shown_active=torch.zeros(4, 90, 70, dtype=torch.bool),
            shown_labels=torch.zeros(90), shown_taken_for=torch.zeros(90),
        )  # fmt: skip
        figure = drawn(monkeypatch, mnist_figures, lambda: mnist_figures.draw_activity(found, folder / "x.png"))
        assert len(figure.axes) == 10 * 25

    def test_experts_have_a_tick_each(self, folder, monkeypatch):
        found = self.outcome(validated=torch.arange(2), assignments=torch.rand(2, 3, 900))
        draw = partial(inverse_figures.draw_assignment, found, ["a", "b", "c"], folder / "x.png")
        figure = drawn(monkeypatch, inverse_figures, draw)
        assert max(len(axes.get_xticks()) for axes in figure.axes) == 64

    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [((20, 1, 0, 0), torch.uint8), ((0, 1, 4, 4), torch.uint8), ((20, 0, 4, 4), torch.uint8),
         ((20, 1, 4), torch.uint8), ((20, 1, 4, 4), torch.float64)],
    )  # fmt: skip
    def test_films_of_nothing(self, folder, shape, dtype):
        found = self.outcome(**{"t/truth": torch.zeros(shape, dtype=dtype), "t/predicted": torch.zeros(shape)})
        for draw in (drawing.draw_strip, drawing.write_film):
            with pytest.raises(ValueError, match="has no pictures of t, but"):
                draw([found], "t", 2, folder / "x.mp4")

    def test_films_without_end(self, folder, monkeypatch):
        pictures = torch.zeros(50, 40, 1, 1, dtype=torch.uint8)
        monkeypatch.setattr(drawing, "_MOST_FRAMES", 7)
        monkeypatch.setattr(drawing, "_write", lambda *_: written.append(1))
        written: list[int] = []
        drawing.write_film([self.outcome(**{"t/truth": pictures, "t/predicted": pictures})], "t", 2, folder / "x.mp4")
        assert len(written) == 7 * 3  # two titles and a caption each


class TestAbouts:
    @fuzzed(100)
    def test_what_a_resume_adds_to(self, folder, by):
        whole = ExperimentFolder(folder / "about")
        whole.create()
        about = {"about": {"experiment": "lines", "command": "x", "resumed": [{"at": "now"}]}}
        whole.config_file.write_text(json.dumps(by.json(about)))
        survives(lambda: save_settings(whole, "lines", replace(CONFIG, resume=whole.path)), folder)

    def test_what_is_said_before_stays(self, folder):
        whole = ExperimentFolder(folder / "about-2")
        whole.create()
        save_settings(whole, "lines", CONFIG)
        save_settings(whole, "lines", replace(CONFIG, resume=whole.path))
        assert len(read_about(whole)["resumed"]) == 1


class TestRunIds:
    @fuzzed(150)
    def test_mutated(self, folder, by):
        file = folder / "wandb_run.json"
        text = json.dumps(by.json({"id": "a1b2c3d4", "mode": "offline"}))
        file.write_bytes(by.bytes(text.encode()) if by.random.random() < 0.5 else text.encode())
        found = survives(lambda: stored_run_id(file), folder)
        assert found is None or found.replace("_", "a").replace("-", "a").isalnum()

    @pytest.mark.parametrize("run_id", ["../../evil", "a/b", "", "a b", "x" * 500, 7, None, ["a"], nested(500)])
    def test_what_would_be_a_path_is_none(self, folder, run_id):
        (folder / "wandb_run.json").write_text(json.dumps({"id": run_id}))
        assert stored_run_id(folder / "wandb_run.json") is None

    @pytest.mark.parametrize("text", ["[" * 10**5, "", "7", "[]", "\0"])
    def test_other_texts(self, folder, text):
        (folder / "wandb_run.json").write_text(text)
        assert stored_run_id(folder / "wandb_run.json") is None


# Robustness reports

ONSET = Condition("noise", 0.5, "train")
RULES = RobustnessConfig(episodes=2, n_envs=1, onset=1, window=2)
COURSE: dict[str, Any] = {
    "steps": [-1, 0, 1], "games": [2, 2, 1], "divergence": [0.0, 0.5, 0.25], "same_action": [1.0, 0.5, 0.5],
    "state_change": [0.0, 0.1, 0.2], "active_clean": [[0.5, 0.5]] * 3, "active_disturbed": [[0.5, 0.5]] * 3,
    "null_clean": [[0.1, 0.2]] * 3, "null_disturbed": [[0.1, 0.2]] * 3, "untouched": [1.0, 0.5, 0.5],
    "unit_change": [[0.0, 0.1]] * 3, "attention_lift": [None, 1.0, 2.0], "seconds": 1.0,
}  # fmt: skip


def grid_in(folder: Path) -> Grid:
    """Return a grid over one agent, whose cells name no folder of weights."""
    run_config = TrainConfig(env="cartpole-novel")
    subject = Subject(folder / "agent", run_config, "rim")
    files = RobustnessFolder(folder / "report")

    def cell(name: str, condition: Condition, watches: bool = False) -> Cell:
        return Cell(run_config, None, condition, RULES, files.parts / f"{name}.json", watches)

    return Grid(
        {(subject, condition): cell(f"scores-{n}", condition) for n, condition in enumerate((CLEAN, ONSET))},
        {(subject.world, CLEAN): cell("random", CLEAN)},
        {(subject, ONSET): cell("mechanism", ONSET, True)},
    )


def results_of(cell: Cell) -> dict[str, Any]:
    if cell.watches_mechanism:
        return {**head_of(cell), **COURSE}
    scores = [1.0, 2.5] if cell.file.name.startswith("random") else [7.0, 9.5]
    return {**head_of(cell), "scores": scores, "lengths": [3, 4], "truncated": 0, "seconds": 1.0}


def spoiled_cell(by: Mischief, cell: Cell) -> None:
    good = results_of(cell)
    text = json.dumps(by.json(good))
    cell.file.write_bytes(by.bytes(json.dumps(good).encode()) if by.random.random() < 0.3 else text.encode())


class TestCells:
    @fuzzed(400)
    def test_mutated_cells(self, folder, by):
        grid = grid_in(folder)
        RobustnessFolder(folder / "report").create()
        cell = by.one_of(grid.cells)
        spoiled_cell(by, cell)
        found = survives(lambda: read_cell(cell), folder, names=cell.file.name)
        if isinstance(found, dict) and not cell.watches_mechanism:
            assert all(math.isfinite(score) for score in found["scores"])

    @fuzzed(30)
    def test_what_is_read_can_be_reported(self, folder, by):
        grid, files = grid_in(folder), RobustnessFolder(folder / "report")
        files.create()
        for cell in grid.cells:
            cell.file.write_text(json.dumps(results_of(cell)))
        spoiled_cell(by, by.one_of(grid.cells))

        def report() -> None:
            read_findings(grid)
            write_report(RULES, files, grid, {"report": "robustness", "command": "rims-rl robustness"})

        survives(report, folder, seconds=30)

    @pytest.mark.parametrize(
        "scores", [[1e308, 1e308], [5e-324, 1.0], [10**400, 1], [1.0, None], "12", {"a": 1}, [True, 1]]
    )
    def test_scores_that_means_and_ratios_break_at(self, folder, scores):
        grid = grid_in(folder)
        RobustnessFolder(folder / "report").create()
        cell = grid.cells[0]
        cell.file.write_text(json.dumps({**results_of(cell), "scores": scores}))
        assert isinstance(survives(lambda: read_cell(cell), folder, names=cell.file.name), CheckpointError)
