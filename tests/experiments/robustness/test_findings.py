"""What cells say together, and how it is told: numbers by hand, tables, notes, JSON and plots."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from rims_rl.config import TrainConfig
from rims_rl.experiments.robustness import plots, report, statistics
from rims_rl.experiments.robustness.conditions import CLEAN, Condition
from rims_rl.experiments.robustness.config import RobustnessConfig
from rims_rl.experiments.robustness.findings import Findings
from rims_rl.experiments.robustness.plots import draw_all
from rims_rl.experiments.robustness.report import all_notes, all_sheets, markdown, print_sheets, summary
from rims_rl.experiments.robustness.results import as_json
from rims_rl.experiments.robustness.statistics import Estimate
from rims_rl.experiments.robustness.subjects import Subject
from tests.experiments.robustness.small import findings_of, subjects_of


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 50)


PONG = TrainConfig(env="pong", core="rim")
WEAK, STRONG = Condition("balls", 0.5, "train"), Condition("balls", 1.0, "train")
OTHER, LAZY = Condition("balls", 0.5, "held-out"), Condition(variant="lazy_enemy")
CONFIG = RobustnessConfig(episodes=2, runs=(Path("run0"),))


def two_cores(seeds: int = 2) -> Findings:
    """Return RIMs that retain 80 % and 40 %, LSTMs that retain 60 % and 20 %, each a tenth less per seed."""
    runs = [replace(PONG, core=core, seed=seed) for core in ("rim", "lstm") for seed in range(seeds)]
    scores: dict[Any, list[float]] = {}
    for subject in subjects_of(*runs):
        best = (8.0 if subject.run.core == "rim" else 6.0) - subject.run.seed
        scores |= {(subject, CLEAN): [9.0, 11.0], (subject, WEAK): [best] * 2, (subject, STRONG): [best - 4] * 2}
        scores |= {(subject, OTHER): [5.0, 5.0], (subject, LAZY): [13.0, 13.0]}
    return findings_of(scores, {CLEAN: [-1.0, 1.0], LAZY: [3.0, 5.0]})


def onset(units: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"seed": 100_000, "condition": list(WEAK), "episodes": 2, "steps": [-1, 0, 1],
                             "divergence": [0.0, 0.5, 0.25], "same_action": [1.0, 0.5, 1.0],
                             "state_change": [0.0, 0.1, 0.3]}  # fmt: skip
    if units:
        active = {f"active_{name}": [[1.0, 0.0]] * 3 for name in ("clean", "disturbed")}
        found |= active | {"untouched": [1.0, 0.5, 0.0], "attention_lift": [None, 2.0, 4.0]}
    return found


class TestNumbers:
    def test_retained_is_of_each_run_by_its_own_scores(self) -> None:
        findings = two_cores()
        rim = findings.group("rim")[1]
        assert [findings.retained(rim, one) for one in (CLEAN, WEAK, STRONG, LAZY)] == pytest.approx(
            [1.0, 0.7, 0.3, 0.9]  # (13 - 4) / (10 - 0): random play is better at a lazy enemy, too
        )

    def test_a_run_s_number_for_a_family_is_the_mean_over_its_conditions(self) -> None:
        findings = two_cores()
        found = findings.by_run(findings.retained, "rim", findings.of_family("train"))
        assert found == pytest.approx({("pong", 0): 0.6, ("pong", 1): 0.5})
        over = findings.over_runs(findings.retained, "rim", findings.of_family("train"))
        assert over is not None
        assert (over.value, over.runs) == (pytest.approx(0.55), 2)

    def test_pairs_are_of_one_seed(self) -> None:
        findings = two_cores()
        pairs = findings.compared(findings.retained, "rim", "lstm", findings.of_family("train"))
        assert pairs is not None
        assert pairs.number == 2
        assert pairs.better == 1.0
        assert tuple(pairs.difference) == pytest.approx((0.2, 0.2, 0.2, 2))
        ties = findings.compared(findings.retained, "rim", "lstm", findings.of_family("held-out"))
        assert ties is not None
        assert (ties.better, ties.difference.value) == (0.5, 0.0)

    def test_two_runs_of_one_world_and_seed_are_one_seed(self) -> None:
        same = subjects_of(PONG, PONG)
        scores = {
            (subject, one): [mean] for subject, mean in zip(same, (4.0, 8.0), strict=True) for one in (CLEAN, WEAK)
        }
        findings = findings_of(scores, {CLEAN: [0.0]})
        assert findings.seeds("rim") == 1
        assert findings.over_runs(findings.mean, "rim", [CLEAN]) == Estimate(6.0, None, None, 1)
        assert "Only 1 seed " in " ".join(all_notes(CONFIG, findings))

    def test_worlds_are_kept_apart(self) -> None:
        pong, sticky = subjects_of(PONG, replace(PONG, protocol="machado"))
        findings = findings_of({(pong, CLEAN): [4.0], (sticky, CLEAN): [8.0]}, {CLEAN: [0.0]})
        assert findings.worlds == ["pong", "pong (machado)"]
        found = findings.over_runs(findings.mean, "rim", [CLEAN], "pong (machado)")
        assert found is not None
        assert found.value == 8.0
        assert [row[:3] for row in summary(findings).rows] == [
            ["rim", "pong", "1"], ["rim", "pong (machado)", "1"], ["rim", "all", "2"],
        ]  # fmt: skip

    def test_human_normalised_is_for_whole_games_as_they_are(self) -> None:
        plain, changed, task = subjects_of(
            PONG, replace(PONG, env_kwargs={"variant": "lazy_enemy"}), replace(PONG, env="rims_rl/PickObject-v0")
        )
        scores = {(one, condition): [-3.05] for one in (plain, changed, task) for condition in (CLEAN, WEAK, LAZY)}
        findings = findings_of(scores, {CLEAN: [0.0]})
        assert findings.human(plain, CLEAN) == findings.human(plain, WEAK) == pytest.approx(0.5)
        assert findings.human(plain, LAZY) is findings.human(changed, CLEAN) is findings.human(task, CLEAN) is None
        assert findings._replace(is_cut=True).human(plain, CLEAN) is None


class TestSummary:
    def test_one_row_per_core_with_the_scores_and_what_is_retained_of_each_family(self) -> None:
        sheet = summary(two_cores())
        row = dict(zip(sheet.headings, sheet.rows[0], strict=True))
        assert row["agent"] == "rim"
        assert (row["world"], row["seeds"], row["random"], row["clean"]) == (
            "pong",
            "2",
            "0.00",
            "10.00 [10.00, 10.00]",
        )
        assert row["score, distractors, train split"] == "5.50 [5.00, 6.00]"
        assert row["retained, distractors, train split"] == "55% [50%, 60%]"
        assert row["retained, distractors, held-out split"] == "50% [50%, 50%]"
        assert (row["score, variants"], row["retained, variants"]) == ("13.00 [13.00, 13.00]", "90% [90%, 90%]")

    def test_the_conditions_table_has_a_cell_for_every_core_and_split(self) -> None:
        (sheet,) = [sheet for sheet in all_sheets(two_cores()) if sheet.title.startswith("pong:")]
        assert sheet.headings == ["condition", "rim, train", "rim, held-out", "lstm, train", "lstm, held-out"]
        rows = {row[0]: row[1:] for row in sheet.rows}
        assert rows["clean"] == ["10.00"] * 4
        assert rows["balls 0.5"] == ["7.50 (75%)", "5.00 (50%)", "5.50 (55%)", "5.00 (50%)"]
        assert rows["balls 1"] == ["3.50 (35%)", "", "1.50 (15%)", ""]
        assert rows["lazy_enemy"] == ["13.00 (90%)"] * 4

    def test_intensities_that_differ_in_the_seventh_digit_have_rows_of_their_own(self) -> None:
        (subject,) = subjects_of(PONG)
        close = [Condition("balls", intensity, "train") for intensity in (0.1234567, 0.1234568)]
        scores = {(subject, one): [mean] * 2 for one, mean in zip(close, (3.0, 5.0), strict=True)}
        (sheet,) = [sheet for sheet in all_sheets(findings_of(scores, {})) if sheet.title.startswith("pong:")]
        assert sheet.rows == [["balls 0.1234567", "3.00"], ["balls 0.1234568", "5.00"]]

    def test_pairs_are_told_for_every_family(self) -> None:
        (sheet,) = [sheet for sheet in all_sheets(two_cores()) if sheet.title.startswith("Compared")]
        assert sheet.rows[0] == ["rim - lstm", "distractors, train split", "2", "20% [20%, 20%]", "100%"]
        assert [row[1] for row in sheet.rows] == [
            "distractors, train split", "distractors, held-out split", "variants",
        ]  # fmt: skip

    def test_one_core_alone_is_compared_with_nobody(self) -> None:
        (subject,) = subjects_of(PONG)
        findings = findings_of({(subject, CLEAN): [3.0], (subject, WEAK): [2.0]}, {CLEAN: [0.0]})
        assert not [sheet for sheet in all_sheets(findings) if sheet.title.startswith("Compared")]

    def test_the_memory_s_table_is_the_mean_from_the_onset_on(self) -> None:
        findings = two_cores()
        rim, lstm = findings.group("rim")[0], findings.group("lstm")[0]
        findings = findings._replace(mechanism={(rim, WEAK): onset(True), (lstm, WEAK): onset(False)})
        sheet = list(all_sheets(findings))[-1]
        assert sheet.rows[0] == ["balls 0.5, train", "rim", "0.375", "75%", "0.20", "25%", "3.00 x"]
        assert sheet.rows[1] == ["balls 0.5, train", "lstm", "0.375", "75%", "0.20", "", ""]


def without_a_lead(findings: Findings, *subjects: Subject) -> Findings:
    """Return findings in which some agents play no better than random."""
    flat = {(one, condition): np.zeros(2) for one, condition in findings.scores if one in subjects}
    return findings._replace(scores=findings.scores | flat)


def two_worlds() -> Findings:
    """Return two cores on two games, of whom the LSTM learned nothing on Breakout and retains less on Pong."""
    runs = [replace(PONG, core=core, env=env) for core in ("rim", "lstm") for env in ("pong", "breakout")]
    subjects = subjects_of(*runs)
    lost = dict(zip(subjects, (2.0, 5.0, 4.0, 0.0), strict=True))
    scores: dict[Any, list[float]] = {(one, CLEAN): [9.0, 11.0] for one in subjects}
    scores |= {(one, WEAK): [10 - lost[one]] * 2 for one in subjects}
    return without_a_lead(findings_of(scores, {CLEAN: [-1.0, 1.0]}), subjects[3])


class TestRunsBehindFigures:
    def test_a_figure_without_some_runs_says_of_how_many_it_is(self) -> None:
        findings = two_cores(5)
        findings = without_a_lead(findings, findings.group("rim")[0])
        sheet = summary(findings)
        rim, lstm = (dict(zip(sheet.headings, row, strict=True)) for row in sheet.rows)
        assert rim["seeds"] == "5"
        assert rim["retained, distractors, held-out split"] == "50% [50%, 50%] (4 of 5)"
        assert rim["score, distractors, held-out split"].endswith("]")
        assert lstm["retained, distractors, held-out split"] == "50% [50%, 50%]"
        compared, conditions = list(all_sheets(findings))[1:]
        assert [row[2] for row in compared.rows] == ["4 of 5"] * 3
        assert conditions.rows[1][2] == "4.00 (50%, 4 of 5)"

    def test_the_note_on_few_seeds_counts_the_runs_behind_a_figure(self) -> None:
        findings = two_cores(5)
        assert "fewer than 5" not in " ".join(all_notes(CONFIG, findings))
        weak = without_a_lead(findings, *findings.group("rim")[1:])
        assert "Only 1 seed per agent and world behind some figures" in " ".join(all_notes(CONFIG, weak))

    def test_an_agent_without_any_figure_does_not_make_it_none(self) -> None:
        findings = two_cores(5)
        weak = without_a_lead(findings, *findings.group("rim"))
        assert "fewer than 5" not in " ".join(all_notes(CONFIG, weak))
        assert [row[7] for row in summary(weak).rows] == ["", summary(findings).rows[1][7]]

    def test_over_all_worlds_there_is_a_number_only_where_all_agents_have_one_in_each(self) -> None:
        findings = two_worlds()
        sheet = summary(findings)
        rows = {(row[0], row[1]): row[-1] for row in sheet.rows}
        assert rows == {
            ("rim", "pong"): "80%", ("lstm", "pong"): "60%", ("rim", "breakout"): "50%", ("lstm", "breakout"): "",
            ("rim", "all"): "", ("lstm", "all"): "",
        }  # fmt: skip
        assert "Over all worlds a cell is empty" in " ".join(all_notes(CONFIG, findings))
        summed = as_json(CONFIG, findings, {})["summary"]
        assert all(one["retained"] is None for one in summed if one["world"] is None)

    def test_a_family_of_one_world_is_whole_beside_another_world(self) -> None:
        findings = two_worlds()
        kept = {key: found for key, found in findings.scores.items() if key[0].world == "pong" or key[1] == CLEAN}
        findings = findings._replace(scores=kept)
        assert [row[-1] for row in summary(findings).rows[-2:]] == ["80%", "60%"]
        assert "Over all worlds" not in " ".join(all_notes(CONFIG, findings))

    def test_worlds_without_a_human_s_score_lack_nothing(self) -> None:
        maze = replace(PONG, env="rims_rl/PickObject-v0")
        scores = {(one, CLEAN): [9.0, 11.0] for one in subjects_of(maze, replace(maze, env_kwargs={"size": 9}))}
        findings = findings_of(scores, {CLEAN: [-1.0, 1.0]})
        assert len(findings.worlds) == 2
        assert "Over all worlds" not in " ".join(all_notes(CONFIG, findings))

    def test_the_stored_figures_tell_of_how_many_seeds_they_are(self) -> None:
        findings = two_cores(5)
        found = as_json(CONFIG, without_a_lead(findings, findings.group("rim")[0]), {})
        (mine,) = [
            one for one in found["summary"] if (one["agent"], one["family"], one["world"]) == ("rim", "train", "pong")
        ]
        assert (mine["retained"]["runs"], mine["seeds"]) == (4, 5)
        assert {(one["pairs"], one["shared_seeds"]) for one in found["comparison"]} == {(4, 5)}


class TestUnfinished:
    def test_pairs_are_over_the_conditions_that_both_have(self) -> None:
        """Both retain the same of each condition, so a missing hard one is no lead."""
        rim, lstm = subjects_of(PONG, replace(PONG, core="lstm"))
        scores = {(one, CLEAN): [9.0, 11.0] for one in (rim, lstm)} | {(one, WEAK): [9.0] * 2 for one in (rim, lstm)}
        findings = findings_of({**scores, (rim, STRONG): [1.0, 1.0]}, {CLEAN: [-1.0, 1.0]}, missing=1)
        pairs = findings.compared(findings.retained, "rim", "lstm", findings.of_family("train"))
        assert pairs is not None
        assert (pairs.number, pairs.difference.value, pairs.better) == (1, 0.0, 0.5)

    def test_two_that_share_no_condition_are_no_pair(self) -> None:
        rim, lstm = subjects_of(PONG, replace(PONG, core="lstm"))
        scores = {(one, CLEAN): [9.0, 11.0] for one in (rim, lstm)}
        findings = findings_of({**scores, (rim, STRONG): [1.0] * 2, (lstm, WEAK): [9.0] * 2}, {CLEAN: [-1.0, 1.0]})
        assert findings.compared(findings.retained, "rim", "lstm", findings.of_family("train")) is None


class TestNotes:
    @pytest.mark.parametrize(("seeds", "told"), [(1, "Only 1 seed per"), (4, "Only 4 seeds per"), (5, ""), (7, "")])
    def test_few_seeds_are_told(self, seeds: int, told: str) -> None:
        notes = " ".join(all_notes(CONFIG, two_cores(seeds)))
        assert ("fewer than 5" in notes) == bool(told)
        assert told in notes

    def test_the_agent_with_fewest_seeds_counts(self) -> None:
        findings = two_cores(6)
        kept = {key: found for key, found in findings.scores.items() if key[0].run.core == "rim" or key[0].run.seed < 3}
        assert "Only 3 seeds" in " ".join(all_notes(CONFIG, findings._replace(scores=kept)))

    def test_an_agent_no_better_than_random_play_is_named(self) -> None:
        (subject,) = subjects_of(PONG)
        findings = findings_of({(subject, CLEAN): [0.0], (subject, WEAK): [2.0]}, {CLEAN: [0.0]})
        assert "nothing can be retained: run0." in " ".join(all_notes(CONFIG, findings))

    def test_an_agent_that_barely_beats_random_play_is_named_and_decides_nothing(self) -> None:
        """A point in twenty games above random play: 1.25 points under balls would be 2500 % of that."""
        findings = two_cores(5)
        one = findings.group("rim")[0]
        random = {("pong", CLEAN): np.array([-20.0, -20.0, -20.0, -21.0] * 25)}
        changed = {(one, CLEAN): np.array([-20.0] * 16 + [-21.0] * 4), (one, WEAK): np.full(20, -19.0)}
        findings = findings._replace(scores=findings.scores | changed, random=random)
        assert findings.retained(one, WEAK) is None
        assert "nothing can be retained: run0." in " ".join(all_notes(CONFIG, findings))
        pairs = findings.compared(findings.retained, "rim", "lstm", [WEAK])
        assert pairs is not None
        assert pairs.number == 4

    def test_an_agent_whose_clean_games_are_not_played_yet_is_not_called_weak(self) -> None:
        findings = two_cores()
        kept = {key: found for key, found in findings.scores.items() if key[1] != CLEAN}
        assert "random play in the clean" not in " ".join(all_notes(CONFIG, findings._replace(scores=kept)))

    def test_what_is_missing_is_told(self) -> None:
        assert not any("Unfinished" in note for note in all_notes(CONFIG, two_cores()))
        assert any("Unfinished: 3 cells" in note for note in all_notes(CONFIG, two_cores()._replace(missing=3)))

    def test_random_play_s_games_are_counted_as_they_are_played(self) -> None:
        assert "100 games" in all_notes(CONFIG, two_cores())[0]
        assert "random play: 300 games" in all_notes(replace(CONFIG, episodes=300), two_cores())[0]


class TestJson:
    def test_it_holds_every_number_and_is_strict(self) -> None:
        findings = two_cores()
        rim = findings.group("rim")[1]
        findings = findings._replace(mechanism={(rim, WEAK): onset(True)}, missing=3)
        about = {"command": "x", "added": {"by": [math.nan, math.inf]}}
        found = json.loads(json.dumps(as_json(CONFIG, findings, about), allow_nan=False))
        assert found["added"] == {"by": ["NaN", "Infinity"]}
        assert (found["missing"], len(found["scores"]), len(found["random"])) == (3, 20, 2)
        (mine,) = [
            one for one in found["scores"] if (one["run"], one["kind"], one["intensity"]) == ("run1", "balls", 1.0)
        ]
        assert (mine["seed"], mine["scores"], mine["mean"], mine["split"]) == (1, [3.0, 3.0], 3.0, "train")
        assert mine["retained"] == pytest.approx(0.3)

    def test_the_memory_s_seed_is_the_run_s(self) -> None:
        findings = two_cores()
        rim = findings.group("rim")[1]
        (found,) = as_json(CONFIG, findings._replace(mechanism={(rim, WEAK): onset(True)}), {})["mechanism"]
        assert (found["seed"], found["run"], found["kind"], found["split"]) == (1, "run1", "balls", "train")
        assert found["untouched"] == [1.0, 0.5, 0.0]

    def test_summary_and_pairs_are_those_of_the_tables(self) -> None:
        found = as_json(CONFIG, two_cores(), {})
        summed = {(one["agent"], one["family"], one["world"]): one for one in found["summary"]}
        mine, clean = summed["rim", "train", "pong"], summed["rim", "clean", "pong"]
        assert mine["retained"] == pytest.approx({"value": 0.55, "low": 0.5, "high": 0.6, "runs": 2})
        assert mine["score"]["value"] == pytest.approx(5.5)
        assert clean["human_normalised"]["value"] == pytest.approx((10 + 20.7) / (14.6 + 20.7))
        (pair,) = [one for one in found["comparison"] if one["family"] == "train"]
        assert (pair["first"], pair["second"], pair["pairs"], pair["better"]) == ("rim", "lstm", 2, 1.0)
        assert pair["difference"]["value"] == pytest.approx(0.2)


class TestOnTheTerminal:
    @pytest.mark.parametrize("width", [80, 200])
    def test_no_digit_is_lost_however_narrow_it_is(
        self, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(report, "get_console", lambda: Console(width=width, force_terminal=True, no_color=True))
        print_sheets(list(all_sheets(two_cores())), ["a note"])
        shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert max(map(len, shown.splitlines())) <= width
        written = "".join(text for sheet in all_sheets(two_cores()) for row in sheet.rows for text in row)
        headings = "".join(text for sheet in all_sheets(two_cores()) for text in sheet.headings)
        assert "…" not in shown
        for digit in "0123456789%":
            assert shown.count(digit) == (written + headings).count(digit)

    @pytest.mark.faults
    def test_control_characters_do_not_reach_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        evil = "lin_\x1b]0;x\x07"
        print_sheets([report.Sheet(evil, ["agent", evil], [["rim", evil]])], [evil])
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert "\x07" not in shown

    def test_brackets_are_no_markup(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_sheets([report.Sheet("title", ["agent"], [["rim, net=[red]"]])], ["[red] is a note"])
        shown = capsys.readouterr().out
        assert "rim, net=[red]" in shown
        assert "[red] is a note" in shown

    def test_markdown_has_every_sheet_and_every_note(self) -> None:
        sheets = list(all_sheets(two_cores()))
        text = markdown(sheets, ["first", "second"], {"command": "rims-rl robustness x"})
        assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## {one.title}" for one in sheets]
        assert "\nfirst\n" in text
        assert "`rims-rl robustness x`" in text
        tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
        assert all(count >= 3 for count in tables)


def without_names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


class TestPlots:
    def test_every_plot_is_a_picture(self, tmp_path: Path) -> None:
        findings = two_cores()
        rim, lstm = findings.group("rim")[0], findings.group("lstm")[0]
        findings = findings._replace(mechanism={(rim, WEAK): onset(True), (lstm, WEAK): onset(False)})
        made = draw_all(findings, tmp_path)
        names = {"score-intensity-pong.png", "heat-map-pong.png", "changes-pong.png", "mechanism.png"}
        assert {file.name for file in made} == names == without_names(tmp_path)
        for file in made:
            assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
            picture = cv2.imread(str(file))
            assert picture is not None
            assert picture.std() > 1

    def test_agents_that_can_retain_nothing_are_drawn_all_the_same(self, tmp_path: Path) -> None:
        (subject,) = subjects_of(PONG)
        findings = findings_of(
            {(subject, CLEAN): [0.0], (subject, WEAK): [0.0], (subject, LAZY): [0.0]}, {CLEAN: [0.0]}
        )
        assert len(draw_all(findings, tmp_path)) == 3

    def test_a_world_s_name_is_no_path(self, tmp_path: Path) -> None:
        task = replace(PONG, env="rims_rl/PickObject-v0", env_kwargs={"size": 9})
        (subject,) = subjects_of(task)
        changed = Condition(env="rims_rl/PickObject-novel-v0")
        findings = findings_of({(subject, CLEAN): [1.0], (subject, changed): [0.5]}, {CLEAN: [0.0], changed: [0.0]})
        (file,) = draw_all(findings, tmp_path)
        assert file.parent == tmp_path

    def test_the_heat_map_s_numbers_are_percentages_by_kind_and_intensity(self) -> None:
        findings = two_cores()
        table = plots._table(findings, findings.group("rim"), ["balls"], [STRONG, WEAK])
        np.testing.assert_allclose(table, [[75.0, 35.0]])
