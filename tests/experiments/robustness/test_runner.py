"""A whole report from the command line: its numbers, going on with it, what fails in it, and what is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from gymnasium.spaces import Discrete

from rims_rl.cli import main
from rims_rl.config import TrainConfig
from rims_rl.errors import CheckpointError
from rims_rl.experiments.robustness import cells, play, plots, runner
from rims_rl.experiments.robustness.cells import read_cell, run_cell
from rims_rl.experiments.robustness.conditions import CLEAN, Condition
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.folder import RobustnessFolder, load_settings
from rims_rl.experiments.robustness.grid import Grid, make_grid
from rims_rl.experiments.robustness.play import Cell, RandomPolicy, play_cell
from rims_rl.experiments.robustness.statistics import advantage
from rims_rl.experiments.robustness.subjects import Subject, read_subjects
from rims_rl.runs import RunFolder, locked, save_config
from tests.experiments.robustness.small import (
    BALLS,
    CORES,
    EPISODES,
    ONE_KIND,
    OPTIONS,
    RANDOM_GAMES,
    STEPS,
    figures_of,
    results_of,
    untrained_run,
)
from tests.pong_run import files_of

PICK = TrainConfig(env="rims_rl/PickObject-v0", core="rim", core_kwargs=CORES["rim"])
FEW_GAMES = [*ONE_KIND, *OPTIONS, "--no-mechanism"]


def robustness(*arguments: Any) -> int:
    return main(["robustness", *map(str, arguments)])


def grid_of(report: Path) -> Grid:
    config = load_settings(report)
    return make_grid(config, RobustnessFolder(report), read_subjects(config.runs))


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of an error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rims-rl: ")
    return lines[0]


class TestReport:
    def test_scores_are_those_of_evaluate_on_the_same_games(self, report: Path, runs: list[Path]) -> None:
        found = {(Path(one["run"]).name, one["kind"]): one for one in results_of(report)["scores"]}
        assert len(found) == 4
        file = report / "evaluation.json"
        options = ["--episodes", str(EPISODES), "--n-envs", "2", "--seed", "7", "--max-episode-steps", str(STEPS)]
        for (run, kind), scored in found.items():
            seen = ["balls:0.5", "--distractor-split", "held-out"] if kind else ["none"]
            folder = next(str(folder) for folder in runs if folder.name == run)
            assert main(["evaluate", folder, *options, "--json", str(file), "--distractor", *seen]) == 0
            games = json.loads(file.read_text())["games"]
            assert scored["scores"] == [game["score"] for game in games]
            cell = next(report.glob(f"cells/scores_{run}-*{kind or 'clean'}*.json"))
            assert json.loads(cell.read_text())["lengths"] == [game["length"] for game in games]

    def test_random_play_is_measured_over_many_games_by_the_same_rules(self, report: Path) -> None:
        (found,) = results_of(report)["random"]
        assert len(found["scores"]) == RANDOM_GAMES
        assert len(set(found["scores"])) > 1
        name = f"scores_random-breakout-{zlib.crc32(b'breakout'):08x}_clean.json"
        cell = json.loads((report / "cells" / name).read_text())
        assert cell["truncated"] == RANDOM_GAMES
        assert set(cell["lengths"]) == {STEPS}

    def test_what_is_retained_follows_from_the_scores(self, report: Path) -> None:
        found = results_of(report)
        random = found["random"][0]
        clean = {one["run"]: one["scores"] for one in found["scores"] if one["family"] == "clean"}
        for one in found["scores"]:
            whole = advantage(np.array(clean[one["run"]]), np.array(random["scores"]))
            expected = None if whole is None else (one["mean"] - random["mean"]) / whole
            assert one["retained"] == (expected if expected is None else pytest.approx(expected))
            assert one["human_normalised"] is None  # games were cut

    def test_the_memories_were_watched(self, report: Path) -> None:
        found = {one["agent"]: one for one in results_of(report)["mechanism"]}
        assert set(found) == {"rim", "lstm"}
        for one in found.values():
            assert (one["seed"], one["kind"], one["intensity"], one["split"]) == (0, *BALLS[:3])
            assert one["steps"] == list(range(-20, 5))
            assert one["divergence"][:20] == [0.0] * 20
            assert max(one["divergence"]) > 0
        assert found["rim"]["untouched"][:20] == [1.0] * 20
        assert found["rim"]["attention_lift"][19] is None
        assert found["rim"]["attention_lift"][20] > 0

    def test_it_is_a_table_too_and_says_how_few_seeds_there_are(self, report: Path) -> None:
        text = (report / "table.md").read_text()
        assert "Only 1 seed per agent and world behind some figures, fewer than 5" in text
        assert "| rim | breakout | 1 |" in text
        assert "Unfinished" not in text

    def test_plots_are_pictures(self, report: Path) -> None:
        assert {file.name for file in (report / "plots").iterdir()} == {
            "score-intensity-breakout.png", "heat-map-breakout.png", "mechanism.png",
        }  # fmt: skip
        assert all(cv2.imread(str(file)) is not None for file in (report / "plots").iterdir())

    def test_nothing_half_written_is_left(self, report: Path, runs: list[Path]) -> None:
        assert not [name for name in files_of(report) if "unfinished" in name]
        assert not [name for run in runs for name in files_of(run) if "evaluation" in name]


class TestGoingOn:
    def test_what_is_there_is_not_played_again(self, report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before, expected = files_of(report / "cells"), figures_of(report)
        monkeypatch.setattr(cells, "play_cell", lambda cell: pytest.fail(f"{cell.file} was measured again"))
        assert robustness("--resume", report) == 0
        assert files_of(report / "cells") == before
        assert figures_of(report) == expected

    def test_interrupted_and_resumed_equals_uninterrupted(
        self, report: Path, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts, played = tmp_path / "parts", []

        def play_three_then_stop(cell: Cell) -> dict[str, Any]:
            played.append(cell)
            if len(played) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return play_cell(cell)

        monkeypatch.setattr(cells, "play_cell", play_three_then_stop)
        assert robustness(*runs, *ONE_KIND, *OPTIONS, "--output", parts) == 130
        assert len(list((parts / "cells").iterdir())) == len(played) == 3
        assert results_of(parts)["missing"] == 4
        assert "Unfinished: 4 cells" in (parts / "table.md").read_text()
        assert robustness("--resume", parts) == 0
        assert len(played) == 7
        assert figures_of(parts) == figures_of(report)
        assert len(yaml.safe_load((parts / "config.yaml").read_text())["about"]["resumed"]) == 1

    def test_more_kinds_are_added(self, report: Path) -> None:
        before, earlier = files_of(report / "cells"), results_of(report)["scores"]
        assert robustness("--resume", report, "--kinds", "noise", "--no-mechanism") == 0
        after = files_of(report / "cells")
        assert before.items() < after.items()
        assert len(after) == len(before) + 2
        found = results_of(report)["scores"]
        assert {one["kind"] for one in found} == {None, "balls", "noise"}
        assert [one for one in found if one["kind"] != "noise"] == earlier

    def test_how_games_are_played_may_not_change(self, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = files_of(report)
        assert robustness("--resume", report, "--episodes", 3) == 2
        assert "a resumed report keeps its own --episodes" in told(capsys)
        assert files_of(report) == before

    def test_a_damaged_cell_is_one_line(self, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
        cell = next(report.glob("cells/scores_lstm*clean.json"))
        whole = cell.read_text()
        cell.write_text(whole[:40])
        before = files_of(report)
        assert robustness("--resume", report) == 2
        line = told(capsys)
        assert f"report/cells/{cell.name} is damaged" in line
        assert "remove it to measure it anew" in line
        assert files_of(report) == before
        cell.unlink()
        assert robustness("--resume", report) == 0
        assert json.loads(cell.read_text())["scores"] == json.loads(whole)["scores"]

    def test_every_kind_of_damage_is_seen(self, report: Path) -> None:
        cell = next(cell for (subject, _), cell in grid_of(report).scores.items() if subject.label == "lstm")
        whole = json.loads(cell.file.read_text())
        spoilt: list[dict[str, Any]] = [{"scores": scores} for scores in ([], [1.0], [1.0, None], [1.0, math.nan], 3)]
        texts = ["", "{", "[1, 2]", "7", "null", "{}", *(json.dumps(whole | one) for one in spoilt)]
        for content in [*(text.encode() for text in texts), b"\xff\xfe"]:
            cell.file.write_bytes(content)
            with pytest.raises(CheckpointError, match="is damaged") as refused:
                read_cell(cell)
            assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        ("changes", "name"),
        [({"episodes": 3}, "episodes"), ({"trained_steps": 1}, "trained_steps"), ({"seed": 1}, "seed")],
    )
    def test_a_cell_of_other_rules_or_weights_is_refused(
        self, report: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, int], name: str
    ) -> None:
        cell = next(report.glob("cells/scores_rim*clean.json"))
        whole = json.loads(cell.read_text())
        scores = (whole["scores"] * 2)[: changes.get("episodes", EPISODES)]
        cell.write_text(json.dumps(whole | changes | {"scores": scores}))
        assert robustness("--resume", report) == 2
        assert f"was measured with another {name}" in told(capsys)

    def test_a_run_that_was_trained_further_is_not_mixed_in(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run, folder = untrained_run(tmp_path / "run"), tmp_path / "report"
        assert robustness(run, *FEW_GAMES, "--output", folder) == 0
        capsys.readouterr()
        untrained_run(run, steps=26)
        before = files_of(folder)
        assert robustness("--resume", folder) == 2
        assert "another trained_steps" in told(capsys)
        assert files_of(folder) == before

    def test_a_run_without_its_weights_is_not_called_damage(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run, folder = untrained_run(tmp_path / "run"), tmp_path / "report"
        assert robustness(run, *FEW_GAMES, "--checkpoint", "final", "--output", folder) == 0
        capsys.readouterr()
        for file in run.glob("policy.*"):
            file.unlink()
        assert robustness("--resume", folder) == 2
        assert "has no final policy yet" in told(capsys)

    def test_settings_are_read_back_as_they_were(self, report: Path, runs: list[Path]) -> None:
        config = load_settings(report)
        assert (config.kinds, config.intensities, config.splits) == (("balls",), (0.5,), ("held-out",))
        assert (config.runs, config.episodes, config.onset, config.resume) == (tuple(runs), EPISODES, 23, report)

    @pytest.mark.parametrize("intensities", ["[a]", "[true]", "0.5"])
    def test_damaged_settings_are_one_line(
        self, report: Path, capsys: pytest.CaptureFixture[str], intensities: str
    ) -> None:
        file = report / "config.yaml"
        file.write_text(file.read_text().replace("intensities:\n- 0.5\n", f"intensities: {intensities}\n"))
        assert robustness("--resume", report) == 2
        assert "intensities must be a list of numbers" in told(capsys)


class TestFailures:
    def test_one_cell_that_fails_takes_no_other_with_it(
        self, report: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for file in report.glob("cells/*_clean.json"):
            file.unlink()

        def fail_for_the_lstm(cell: Cell) -> dict[str, Any]:
            if cell.path == runs[1]:
                raise ZeroDivisionError("of all things\nhere")
            return play_cell(cell)

        monkeypatch.setattr(cells, "play_cell", fail_for_the_lstm)
        assert robustness("--resume", report) == 1
        shown = capsys.readouterr().out
        assert "1 failed: ZeroDivisionError: of all things here" in shown
        assert "1 of 7 cells have no result; go on with --resume" in shown
        assert results_of(report)["missing"] == 1
        assert len(list(report.glob("cells/scores_*_clean.json"))) == 2

    def test_a_score_that_is_no_number_is_a_failure_and_leaves_no_cell(
        self, report: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cell = next(report.glob("cells/scores_rim*clean.json"))
        cell.unlink()
        honest = play.play_episodes

        def spoil(*arguments: Any, **options: Any) -> Any:
            found = honest(*arguments, **options)
            return replace(found, episodes=[found.episodes[0]._replace(score=float("nan")), *found.episodes[1:]])

        monkeypatch.setattr(play, "play_episodes", spoil)
        assert robustness("--resume", report) == 1
        assert "score is not finite" in capsys.readouterr().out
        assert not cell.exists()
        results_of(report)

    def test_without_matplotlib_all_but_the_plots_is_there(
        self, report: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.rmtree(report / "plots")
        (report / "results.json").unlink()
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert robustness("--resume", report) == 0
        assert "no plots: plots need matplotlib" in capsys.readouterr().out
        assert len(results_of(report)["scores"]) == 4
        assert plots.draw_all is not None

    def test_a_full_disk_is_one_line(
        self, report: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(28, "No space left on device", "there")

        monkeypatch.setattr(runner, "save_settings", refuse)
        assert robustness("--resume", report) == 2
        assert "there: No space left on device" in told(capsys)


class TestRefusals:
    @pytest.fixture
    def run(self, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Copy a run into an empty folder, and work there."""
        monkeypatch.chdir(tmp_path)
        return shutil.copytree(runs[1], tmp_path / "run").relative_to(tmp_path)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "at least one run"),
            (["nowhere"], "no run folder at nowhere"),
            (["run", "run"], "given twice"),
            (["run", "--kinds", "bals"], "did you mean 'balls'"),
            (["run", "--kind", "balls"], "unknown option '--kind'; did you mean '--kinds'"),
            (["run", "--intensities", "2"], "intensity must be from 0 to 1"),
            (["run", "--intensities", "much"], "much"),
            (["run", "--splits", "test"], "unknown distractor split 'test'"),
            (["run", "--variants", "lazy_enemy"], "unknown variant of breakout 'lazy_enemy'"),
            (["run", "--variants", "mode:77"], "breakout has no mode 77"),
            (["run", "--kinds", "none"], "nothing to change"),
            (["run", "--episodes", "0"], "episodes must be from 1"),
            (["run", "--checkpoint", "77"], "has no checkpoint '77'; choose final"),
            (["run", "--device", "cud"], "device 'cud' cannot be used"),
            (["run", "--max-episode-steps", "41"], "games of 41 steps end before --onset 100"),
            (["run", "--output", "run"], "already holds a run"),
            (["run", "--output", "run/config.yaml"], "is a file, not a folder"),
            (["--resume", "run"], "holds no robustness report, but something else"),
            (["--resume", "nowhere"], "holds no robustness report"),
            (["--resume", "run", "--seed", "3"], "keeps its own --seed"),
        ],
    )
    def test_bad_input_is_one_line_and_makes_nothing(
        self, run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = files_of(Path())
        assert robustness(*arguments) == 2
        assert message in told(capsys)
        assert files_of(Path()) == before
        assert [path.name for path in Path().iterdir()] == [run.name]

    def test_damaged_weights_are_told_before_anything_is_made(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        weights = RunFolder(run).policy_stem.with_suffix(".safetensors")
        weights.write_bytes(weights.read_bytes()[:-7])
        assert robustness(run, *ONE_KIND) == 2
        assert "truncated" in told(capsys)
        assert [path.name for path in Path().iterdir()] == [run.name]

    @pytest.mark.parametrize(
        ("task", "message"), [("CartPole-v1", "trained with actions"), ("Acrobot-v1", "trained with observations")]
    )
    def test_a_task_that_the_agent_cannot_play_is_told_before_anything_is_made(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, message: str
    ) -> None:
        run = untrained_run(tmp_path / "run", replace(PICK, env="MountainCar-v0"))
        assert robustness(run, "--test-envs", task, "--output", tmp_path / "report") == 2
        assert message in told(capsys)
        assert not (tmp_path / "report").exists()

    def test_a_report_in_use_is_left_alone(self, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = files_of(report)
        with locked(RobustnessFolder(report)):
            assert robustness("--resume", report) == 2
        assert "is in use" in told(capsys)
        assert files_of(report) == before

    def test_a_finished_report_is_not_overwritten(
        self, report: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = files_of(report)
        assert robustness(runs[0], *FEW_GAMES, "--output", report) == 2
        assert "already holds a run" in told(capsys)
        assert files_of(report) == before

    def test_help_explains_every_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert robustness("--help") == 0
        assert "--max-episode-steps" in capsys.readouterr().out


class TestChangedTasks:
    @pytest.fixture
    def pick(self, tmp_path: Path) -> Path:
        pytest.importorskip("minigrid")
        return untrained_run(tmp_path / "run", PICK)

    def test_a_report_covers_them_with_random_play_of_their_own(self, pick: Path, tmp_path: Path) -> None:
        folder = tmp_path / "report"
        assert robustness(pick, *OPTIONS, "--output", folder) == 0
        found = results_of(folder)
        tasks = [None, "rims_rl/PickObject-novel-v0", "rims_rl/PickObject-many-v0", "rims_rl/PickObject-novel-many-v0"]
        assert [one["env"] for one in found["scores"]] == [one["env"] for one in found["random"]] == tasks
        assert {one["family"] for one in found["scores"]} == {"clean", "task"}
        assert found["mechanism"] == []
        assert (folder / "plots" / "changes-rims_rl-PickObject-v0.png").stat().st_size > 1000
        for one in found["scores"]:
            random = next(other["mean"] for other in found["random"] if other["env"] == one["env"])
            whole = advantage(*(np.array(found[who][0]["scores"]) for who in ("scores", "random")))
            expected = None if whole is None else (one["mean"] - random) / whole
            assert one["retained"] == (expected if expected is None else pytest.approx(expected))

    def test_games_are_those_of_the_task(self, pick: Path, tmp_path: Path) -> None:
        config = RobustnessConfig(runs=(pick,), n_envs=2, episodes=3)
        (subject,) = read_subjects([pick])
        grid = make_grid(config, RobustnessFolder(tmp_path), [subject])
        many = grid.scores[subject, Condition(env="rims_rl/PickObject-many-v0")]
        env = play.world(many)
        assert env.num_envs == 2
        assert env.get_attr("spec")[0].id == "rims_rl/PickObject-many-v0"
        env.close()


class TestGrid:
    def test_each_world_has_random_play_once_for_every_change_of_its_dynamics(self, tmp_path: Path) -> None:
        pong = TrainConfig(env="pong", core="lstm", core_kwargs=CORES["lstm"])
        changed = replace(pong, env_kwargs={"mode": 1}, route="gym")
        for name, run in (("a", pong), ("b", replace(pong, seed=1)), ("c", changed)):
            RunFolder(tmp_path / name).create()
            save_config(RunFolder(tmp_path / name), run, [])
        config = RobustnessConfig(episodes=3, kinds=("balls", "noise"), variants=("lazy_enemy",))
        grid = make_grid(config, RobustnessFolder(tmp_path), read_subjects([tmp_path / name for name in "abc"]))
        lazy = Condition(variant="lazy_enemy")
        assert list(grid.random) == [(world, one) for world in ("pong", "pong (mode=1)") for one in (CLEAN, lazy)]
        assert len(grid.scores) == 3 * (1 + 2 * 3 * 2 + 1)
        assert Counter(condition.intensity for _, condition in grid.mechanism) == {0.5: 3 * 2 * 2}
        files = [cell.file for cell in grid.cells]
        assert len(set(files)) == len(files)
        assert {cell.config.episodes for cell in grid.random.values()} == {RANDOM_GAMES}

    def watched(self, folder: RobustnessFolder, config: RobustnessConfig, names: str = "a") -> list[tuple[str, str]]:
        """Return at which conditions the memories of which agents are watched."""
        run = TrainConfig(env="pong", core="lstm")
        grid = make_grid(config, folder, [Subject(folder.path / name, run, "lstm") for name in names])
        return [(subject.path.name, condition.name) for subject, condition in grid.mechanism]

    def test_memories_that_were_watched_stay_when_intensities_are_added(self, tmp_path: Path) -> None:
        """So does the intensity: agents that are added are watched where the others were."""
        folder = RobustnessFolder(tmp_path)
        folder.create()
        first = RobustnessConfig(kinds=("balls",), splits=("train",))
        more = first.joined_by(RobustnessConfig(kinds=("noise",), splits=("train",), intensities=(0.75, 0.9)))
        assert self.watched(folder, first) == [("a", "balls 0.5")]
        assert self.watched(folder, more) == [("a", "balls 0.75"), ("a", "noise 0.75")]
        subject = Subject(tmp_path / "a", TrainConfig(env="pong", core="lstm"), "lstm")
        folder.cell(subject.key, Condition("balls", 0.5, "train"), "mechanism").touch()
        assert self.watched(folder, more, "ab") == [
            (name, f"{kind} 0.5") for name in "ab" for kind in ("balls", "noise")
        ]
        assert self.watched(folder, replace(more, mechanism=False), "ab") == [("a", "balls 0.5")]

    @pytest.fixture
    def swings(self, tmp_path: Path) -> Grid:
        """A grid of two agents on pendulums whose gravities differ in a sign that no file's name has."""
        up, down = (TrainConfig(env="Pendulum-v1", env_kwargs={"g": g}, core="lstm") for g in (9.8, -9.8))
        subjects = [Subject(tmp_path / "up", up, "lstm"), Subject(tmp_path / "down", down, "lstm")]
        config = RobustnessConfig(episodes=2, max_episode_steps=5, test_envs=("CartPole-v1",), mechanism=False)
        return make_grid(config, RobustnessFolder(tmp_path), subjects)

    def test_random_play_in_each_world_has_a_file_of_its_own(self, swings: Grid) -> None:
        files = [cell.file for cell in swings.random.values()]
        assert len(set(files)) == len(files) == 4

    @pytest.mark.faults
    def test_random_play_of_another_world_is_refused(self, swings: Grid) -> None:
        up, down = (cell for (_, condition), cell in swings.random.items() if condition == CLEAN)
        up.file.parent.mkdir()
        run_cell(up)
        assert read_cell(up) is not None
        up.file.rename(down.file)
        with pytest.raises(CheckpointError, match="was measured with another world"):
            read_cell(down)

    def test_random_actions_are_those_of_the_seed_and_even(self) -> None:
        starts = np.zeros(500, dtype=bool)
        first, again = (RandomPolicy(Discrete(5), 3).predict(None, None, starts)[0] for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert np.bincount(first, minlength=5).min() > 60
        assert (RandomPolicy(Discrete(5), 4).predict(None, None, starts)[0] != first).any()


class TestWorlds:
    def test_all_conditions_start_from_the_same_games(self, report: Path) -> None:
        rewards = []
        for (subject, _), cell in grid_of(report).scores.items():
            if subject.label == "rim":
                env = play.world(cell)
                env.reset()
                actions = np.random.default_rng(3).integers(env.action_space.n, size=(60, env.num_envs))
                played = [env.step(chosen) for chosen in actions]
                rewards.append([(step[1].tolist(), [info["lives"] for info in step[3]]) for step in played])
                env.close()
        assert len(rewards) == 2
        assert rewards[0] == rewards[1]


# ---------------------------------------------------------------------- several processes


def start(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rims_rl", "robustness", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_cells(folder: Path, number: int, seconds: float = 120) -> None:
    for _ in range(int(seconds / 0.05)):
        if len(list((folder / "cells").glob("*.json"))) >= number:
            return
        time.sleep(0.05)
    raise AssertionError(f"{folder} did not get {number} cells")


def children_of(process: int) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return {int(number) for number in listed.stdout.split()}


@pytest.mark.slow
class TestSideBySide:
    TWO = ("--workers", "2")

    def test_two_processes_measure_what_one_does(self, report: Path, runs: list[Path], tmp_path: Path) -> None:
        options = OPTIONS[: OPTIONS.index("--workers")]
        assert robustness(*runs, *ONE_KIND, *options, *self.TWO, "--output", tmp_path / "two") == 0
        assert figures_of(tmp_path / "two") == figures_of(report)

    @pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_after_the_games_under_way_and_it_can_go_on(
        self, runs: list[Path], tmp_path: Path, stop: signal.Signals
    ) -> None:
        folder, options = tmp_path / "report", OPTIONS[: OPTIONS.index("--workers")]
        kinds = ["--kinds", "balls", "noise", "curtain", "flicker", "shake", "--no-mechanism"]
        process = start(*runs, *kinds, *options, *self.TWO, "--output", folder)
        try:
            wait_for_cells(folder, 2)
            os.killpg(process.pid, stop) if stop == signal.SIGINT else process.send_signal(stop)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 128 + stop, (out, err)
        assert "Traceback" not in err
        done = len(list((folder / "cells").glob("*.json")))
        assert 2 <= done < 10
        assert results_of(folder)["missing"] > 0
        assert not [name for name in files_of(folder) if "unfinished" in name]

    def test_a_worker_that_dies_takes_little_with_it(self, runs: list[Path], tmp_path: Path) -> None:
        folder, options = tmp_path / "report", OPTIONS[: OPTIONS.index("--workers")]
        kinds = ["--kinds", "balls", "noise", "curtain", "--no-mechanism"]
        process = start(*runs, *kinds, *options, *self.TWO, "--output", folder)
        try:
            wait_for_cells(folder, 2)
            workers = [child for child in children_of(process.pid) if b"spawn_main" in command_of(child)]
            os.kill(workers[0], signal.SIGKILL)
            out, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 1
        assert "a process died" in out
        assert 1 <= results_of(folder)["missing"] <= 2

    def test_no_worker_outlives_its_parent(self, runs: list[Path], tmp_path: Path) -> None:
        folder, options = tmp_path / "report", OPTIONS[: OPTIONS.index("--workers")]
        process = start(*runs, *options, *self.TWO, "--output", folder)
        try:
            wait_for_cells(folder, 1)
            workers = children_of(process.pid)
            assert len(workers) >= 2
        finally:
            process.kill()
        process.communicate(timeout=60)
        for _ in range(100):
            if not any(Path(f"/proc/{worker}").exists() for worker in workers):
                return
            time.sleep(0.1)
        raise AssertionError("workers go on")


def command_of(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()
