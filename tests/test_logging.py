"""The console's table, progress.csv and the progress bar."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from stable_baselines3.common.logger import Figure, HParam, Image, Logger, Video

from rims_rl.errors import ConfigError
from rims_rl.logging import ConsoleWriter, CsvWriter, ProgressCallback, clock, loggable, readable, short_count

TRAINING = {
    "rollout/ep_rew_mean": -20.31, "rollout/ep_len_mean": 912.4, "eval/mean_reward": -19.4, "eval/ep_length": 1043.2,
    "time/fps": 1843, "time/iterations": 100, "time/time_elapsed": 3661, "time/total_timesteps": 102_400,
    "train/approx_kl": 0.0081, "train/clip_fraction": 0.1034, "train/clip_range": 0.0989, "train/entropy_loss": -1.7521,
    "train/explained_variance": 0.234, "train/learning_rate": 2.47e-4, "train/loss": 0.00213, "train/n_updates": 400,
    "train/value_loss": 0.0312, "train/policy_gradient_loss": -0.0081, "eval/truncated": 0, "rims/null_inactive": 0.51,
    "rims/active_unit_0": 0.66, "rims/use_entropy": 1.72, "rims/use_evenness": 0.96,
}  # fmt: skip


def table(values: dict[str, Any], width: int, excluded: dict[str, tuple[str, ...]] | None = None) -> list[str]:
    """Return the printed lines."""
    console = Console(record=True, width=width, file=io.StringIO())
    ConsoleWriter(console).write(values, excluded or dict.fromkeys(values), 102_400)
    return console.export_text().splitlines()


class TestTable:
    @pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 200])
    def test_it_fits_the_terminal_and_every_line_is_as_wide(self, width):
        lines = [line.rstrip() for line in table(TRAINING, width)[1:]]
        assert len({len(line) for line in lines}) == 1
        assert len(lines[0]) <= width

    @pytest.mark.parametrize("width", [80, 120])
    def test_nothing_is_cut_off(self, width):
        text = "\n".join(table(TRAINING, width))
        assert "…" not in text
        for shown in (
            "-20.31",
            "912.4",
            "1,843",
            "1:01:01",
            "0.00810",
            "2.47e-04",
            "0.00213",
            "-0.00810",
            "1,043",
            "0.660",
        ):
            assert shown in text

    def test_eighty_columns_hold_three_groups_side_by_side(self):
        assert [line.split() for line in table(TRAINING, 80)][2] == ["│", "rollout", "│", "train", "│", "rims", "│"]

    def test_a_narrow_terminal_gets_one_column_in_a_fixed_order(self):
        words = [line.strip("│ ") for line in table(TRAINING, 30)]
        assert [word for word in words if word in ("rollout", "eval", "time", "train", "rims")] == [
            "rollout", "eval", "time", "train", "rims"
        ]  # fmt: skip

    def test_numbers_end_in_one_column(self):
        rows = table({"train/loss": 0.5, "train/n_updates": 123_456, "train/value_loss": 31.25}, 80)
        assert len({len(row.rstrip("│ ")) for row in rows[3:6]}) == 1

    def test_the_title_is_the_step(self):
        lines = table(TRAINING, 80)
        assert lines[0].strip() == "step 102,400"
        assert sum("102,400" in line for line in lines) == 1

    def test_a_key_of_another_group_is_shown_too(self):
        text = "\n".join(table({"robust/clean_score": 7.5, "alone": 3}, 80))
        assert "robust" in text
        assert "clean score" in text
        assert "7.500" in text
        assert "alone" in text

    @pytest.mark.parametrize("word", ["stdout", "log"])
    def test_excluded_keys_are_left_out(self, word):
        text = "\n".join(table({"a/shown": 1, "a/hidden": 2}, 80, {"a/shown": ("csv",), "a/hidden": (word,)}))
        assert "shown" in text
        assert "hidden" not in text

    def test_nothing_to_show_prints_nothing(self):
        assert table({"a/x": Figure(None, False)}, 80) == []

    def test_brackets_in_names_are_no_markup(self):
        assert any("[red]" in line for line in table({"a/[red]": 1}, 80))

    @pytest.mark.faults
    def test_control_characters_do_not_reach_the_terminal(self):
        text = "\n".join(table({"\x1b]0;x\x07/a\x1b[2J": "v\x1b[2J", "b/\x1b[2J": 1}, 80))
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "a\\x1b[2J" in text

    def test_it_works_through_sb3s_logger(self):
        console = Console(record=True, width=80, file=io.StringIO())
        logger = Logger(None, [ConsoleWriter(console)])
        logger.record("train/loss", np.float32(0.25))
        logger.record("train/hidden", 1, exclude="stdout")
        logger.dump(7)
        text = console.export_text()
        assert "0.250" in text
        assert "hidden" not in text
        logger.close()


class TestReadable:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (0, "0"), (12_345, "12,345"), (True, "True"), ("word", "word"), (0.0, "0"), (-0.5, "-0.500"),
            (0.9999, "1.000"), (9.9999, "10.000"), (21.0, "21.00"), (912.44, "912.4"), (1234.5, "1,234"),
            (123_456.7, "123,457"), (1e7, "1.00e+07"), (2.5e-4, "2.50e-04"), (0.00812, "0.00812"),
            (float("nan"), "nan"), (float("-inf"), "-inf"),
        ],
    )  # fmt: skip
    def test_numbers(self, value, shown):
        assert readable("x", value) == shown

    @pytest.mark.parametrize(
        ("seconds", "shown"), [(0, "0:00:00"), (61.4, "0:01:01"), (360_000, "100:00:00"), (-3, "0:00:00")]
    )
    def test_durations(self, seconds, shown):
        assert clock(seconds) == shown

    @pytest.mark.parametrize(
        ("number", "shown"),
        [(0, "0"), (950, "950"), (12_500, "12.5k"), (10_000_000, "10M"), (1_234_567, "1.23M"), (999_999, "1M")],
    )
    def test_counts(self, number, shown):
        assert short_count(number) == shown


class TestLoggable:
    def test_only_plain_values_are_kept(self):
        values = {
            "int": 3, "float": 0.5, "text": "a", "numpy": np.float32(0.5), "scalar": np.array(7),
            "tensor": torch.tensor(2.0), "none": None, "array": np.zeros(3), "matrix": torch.zeros(2, 2),
            "video": Video(torch.zeros(1), 30),
            "figure": Figure(None, False), "image": Image("x", "HWC"), "hparam": HParam({}, {"a": 0.0}),
        }  # fmt: skip
        kept = loggable(values, {})
        assert kept == {"int": 3, "float": 0.5, "text": "a", "numpy": 0.5, "scalar": 7, "tensor": 2.0}
        assert type(kept["numpy"]) is float


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def write(writer: CsvWriter, step: int, **values: Any) -> None:
    writer.write(values, dict.fromkeys(values), step)  # type: ignore[arg-type]


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.faults
class TestCsv:
    def test_every_dump_is_a_row_with_its_step_first(self, tmp_path):
        writer = CsvWriter(tmp_path / "progress.csv")
        write(writer, 7, reward=0.1, name='a "b", c')
        write(writer, 11, reward=np.float32(0.25), name="line\nbreak")
        assert (tmp_path / "progress.csv").read_text().startswith("step,name,reward\n")
        assert rows_of(tmp_path / "progress.csv") == [
            {"step": "7", "reward": "0.1", "name": 'a "b", c'},
            {"step": "11", "reward": "0.25", "name": "line\nbreak"},
        ]

    def test_new_columns_may_come_at_any_time(self, tmp_path):
        writer = CsvWriter(tmp_path / "progress.csv")
        write(writer, 7, a=1)
        write(writer, 11, a=2, b=3)
        write(writer, 13, c=4)
        assert rows_of(tmp_path / "progress.csv") == [
            {"step": "7", "a": "1", "b": "", "c": ""},
            {"step": "11", "a": "2", "b": "3", "c": ""},
            {"step": "13", "a": "", "b": "", "c": "4"},
        ]

    def test_missing_rows_can_be_asked_for(self, tmp_path, monkeypatch):
        writer = CsvWriter(tmp_path / "progress.csv")
        write(writer, 7, a=1)
        with monkeypatch.context() as full:
            full.setattr("builtins.open", refuse)
            full.setattr("rims_rl.logging.write_text", refuse)
            write(writer, 11, a=2)
            with pytest.raises(OSError, match="No space left"):
                writer.catch_up()
        assert [row["step"] for row in rows_of(tmp_path / "progress.csv")] == ["7"]
        writer.catch_up()
        assert [row["step"] for row in rows_of(tmp_path / "progress.csv")] == ["7", "11"]

    def test_a_row_is_in_the_file_at_once(self, tmp_path):
        writer = CsvWriter(tmp_path / "progress.csv")
        for step in (7, 11):
            write(writer, step, a=1)
            assert rows_of(tmp_path / "progress.csv")[-1]["step"] == str(step)

    def test_a_resumed_run_drops_the_rows_that_it_makes_again(self, tmp_path):
        writer = CsvWriter(tmp_path / "progress.csv")
        for step in (7, 11, 13):
            write(writer, step, a=step)
        again = CsvWriter(tmp_path / "progress.csv", resumed_at=11)
        write(again, 12, a=12, b=0)
        assert [(row["step"], row["a"], row["b"]) for row in rows_of(tmp_path / "progress.csv")] == [
            ("7", "7", ""), ("11", "11", ""), ("12", "12", "0")
        ]  # fmt: skip

    @pytest.mark.parametrize("tail", ["1", "13,", "13,1,2,3\n", "x,1\n", ",1\n"])
    def test_a_row_that_a_crash_cut_short_is_dropped(self, tmp_path, tail):
        path = tmp_path / "progress.csv"
        path.write_text("step,a,b\n7,1,2\n" + tail)
        CsvWriter(path, resumed_at=99)
        assert rows_of(path) == [{"step": "7", "a": "1", "b": "2"}]

    @pytest.mark.parametrize("content", [None, "", "\x00\x00\n", "nonsense\n"])
    def test_a_lost_file_is_begun_anew(self, tmp_path, content):
        path = tmp_path / "progress.csv"
        if content is not None:
            path.write_text(content)
        write(CsvWriter(path, resumed_at=7), 11, a=1)
        assert rows_of(path)[-1]["a"] == "1"
        assert rows_of(path)[-1]["step"] == "11"

    def test_a_new_run_begins_a_new_file(self, tmp_path):
        write(CsvWriter(tmp_path / "progress.csv"), 7, a=1)
        CsvWriter(tmp_path / "progress.csv")
        assert rows_of(tmp_path / "progress.csv") == []

    def test_excluded_keys_and_pictures_are_left_out(self, tmp_path):
        writer = CsvWriter(tmp_path / "progress.csv")
        writer.write({"a": 1, "b": 2, "c": Figure(None, False)}, {"a": None, "b": ("csv",), "c": None}, 7)
        assert rows_of(tmp_path / "progress.csv") == [{"step": "7", "a": "1"}]

    def test_a_folder_that_is_not_there_is_named_at_once(self, tmp_path):
        with pytest.raises(ConfigError, match=r"progress\.csv cannot be written: No such file or directory"):
            CsvWriter(tmp_path / "gone" / "progress.csv")

    def test_a_full_disk_is_said_once_and_the_next_rewrite_brings_everything(self, tmp_path, monkeypatch, caplog):
        writer = CsvWriter(tmp_path / "progress.csv")
        write(writer, 7, a=1)
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(
                "builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
            )
            write(writer, 11, a=2)
            write(writer, 13, a=3)
        assert [record.message.split("progress.csv ")[1] for record in caplog.records] == [
            "cannot be written (No space left on device); the run goes on"
        ]
        write(writer, 17, a=4)
        assert [row["step"] for row in rows_of(tmp_path / "progress.csv")] == ["7", "11", "13", "17"]


class FakeModel(SimpleNamespace):
    """As much of a model as the bar looks at."""

    def get_env(self) -> None:
        return None


def bar(terminal: bool, **model: Any) -> tuple[ProgressCallback, io.StringIO, Console]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100, legacy_windows=False)
    callback = ProgressCallback(10_000, console)
    callback.init_callback(FakeModel(**({"num_timesteps": 0, "ep_info_buffer": []} | model)))
    return callback, screen, console


class TestProgress:
    def test_it_shows_steps_reward_speed_and_time_left(self):
        callback, screen, _ = bar(True)
        callback.on_training_start({}, {})
        callback.model.num_timesteps = 2_500
        callback.model.ep_info_buffer = [{"r": 7.0}, {"r": 8.0}]
        callback.on_step()
        callback.on_training_end()
        shown = screen.getvalue()
        for part in ("2.5k/10k", "25 %", "reward 7.5", "steps/s", "left"):
            assert part in shown

    def test_speed_counts_only_steps_of_this_process(self):
        callback, _, _ = bar(True, num_timesteps=9_000)
        callback.on_training_start({}, {})
        task = callback._progress.tasks[0]
        assert (task.completed, task.fields["began_at"]) == (9_000, 9_000)
        callback.close()

    def test_without_a_terminal_nothing_is_printed(self):
        callback, screen, _ = bar(False)
        callback.on_training_start({}, {})
        for _ in range(5):
            callback.on_step()
        callback.on_training_end()
        assert screen.getvalue() == ""

    def test_tables_come_without_a_terminal_too(self):
        callback, screen, console = bar(False)
        callback.on_training_start({}, {})
        ConsoleWriter(console).write({"train/loss": 0.5}, {"train/loss": None}, 7)
        callback.on_training_end()
        assert "loss" in screen.getvalue()

    def test_a_table_appears_above_the_bar(self):
        callback, screen, console = bar(True)
        callback.on_training_start({}, {})
        screen.truncate(0)
        ConsoleWriter(console).write({"train/loss": 0.5}, {"train/loss": None}, 7)
        shown = screen.getvalue()
        callback.on_training_end()
        assert shown.index("\x1b[2K") < shown.index("loss") < shown.index("0/10k")

    def test_the_cursor_comes_back_after_an_exception(self):
        callback, screen, _ = bar(True)
        callback.on_training_start({}, {})
        assert screen.getvalue().count("\x1b[?25l") == 1
        callback.close()
        callback.close()
        assert screen.getvalue().count("\x1b[?25h") == 1

    def test_a_second_training_gets_a_new_bar(self):
        callback, screen, _ = bar(True)
        for _ in range(2):
            callback.on_training_start({}, {})
            callback.on_training_end()
        assert screen.getvalue().count("\x1b[?25h") == 2
