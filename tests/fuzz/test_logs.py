"""progress.csv, read to go on with it and to draw it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from rims_rl.config import PlotConfig, TrainConfig, as_plain
from rims_rl.errors import ConfigError
from rims_rl.logging import CsvWriter
from rims_rl.results import plot_runs, read_curve
from tests.fuzz.guard import survives
from tests.fuzz.hostile import fuzzed

pytestmark = pytest.mark.faults
HEAD = "step,time/total_timesteps,rollout/ep_rew_mean,note"
GOOD = "\n".join([HEAD, *(f"{step},{step},{step / 7:.3f},a" for step in range(0, 200, 20)), ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    (folder / "config.yaml").write_text(yaml.safe_dump(as_plain(TrainConfig(env="cartpole-novel"))))
    (folder / "progress.csv").write_text(GOOD)
    plot_runs(PlotConfig((folder,), folder / "curves.png"))  # Matplotlib makes folders of its own at its first use
    return folder


class TestMutations:
    @fuzzed(250)
    def test_going_on(self, folder, by):
        file = folder / "progress.csv"
        file.write_bytes(by.bytes(GOOD.encode()))

        def go_on() -> None:
            writer = CsvWriter(file, resumed_at=100)
            writer.write({"a": 1.0, "note": "b"}, {}, 120)

        survives(go_on, folder, names=file.name)

    @fuzzed(250)
    def test_reading_curves(self, folder, by):
        (folder / "progress.csv").write_bytes(by.bytes(GOOD.encode()))
        survives(lambda: read_curve(folder), folder, names="progress.csv")

    @fuzzed(12)
    def test_drawing_curves(self, folder, by):
        rows = [f"{step},{by.small()},{by.small()},a".replace("\ud800", "?") for step in range(9)]
        (folder / "progress.csv").write_text("\n".join([HEAD, *rows]))
        survives(lambda: plot_runs(PlotConfig((folder,), folder / "curves.png")), folder, seconds=30)


class TestManyRows:
    @pytest.mark.parametrize("row", ["\n", "1\n", ",\n", '""\n'])
    def test_take_no_memory(self, folder, monkeypatch, row):
        monkeypatch.setattr("rims_rl.logging._MOST_ROWS", 1_000)
        file = folder / "progress.csv"
        file.write_text("step\n" + row * 2**20)
        for read in (lambda: CsvWriter(file, resumed_at=100), lambda: read_curve(folder)):
            found = survives(read, folder, names=file.name)
            assert row == "\n" or "it has more than 1,000 rows" in str(found)

    def test_too_little_memory_is_one_line(self, folder, monkeypatch):
        monkeypatch.setattr("rims_rl.logging.islice", lambda *_: bytearray(2**62))
        (folder / "progress.csv").write_text(GOOD)
        assert "cannot be read: MemoryError" in str(survives(lambda: read_curve(folder), folder))

    def test_a_long_honest_log_is_whole(self, folder):
        file = folder / "progress.csv"
        file.write_text("step,a\n" + "".join(f"{step},b\n" for step in range(100_000)))
        CsvWriter(file, resumed_at=100_000)
        assert len(file.read_text().splitlines()) == 100_001


class TestTextsMadeToDoHarm:
    """A reader that takes every row for a dictionary over all columns works for hours at the first of these."""

    @pytest.mark.parametrize(
        "text",
        [
            ",".join(["step", *map(str, range(150_000))]) + "\n" + "1\n" * 150_000, "step\n" + "9" * 10_000 + "\n",
            'step,"' + "x" * 200_000, "\0,\0\n\0", "step,step,step\n1,2,3\n", "step\n" + "\u0663\n", "", "\n\n\n",
            "step\r1\r2", 'step\n"1', "," * 200_000, HEAD + "\n1,1e308,1e308,a\n2,-1e308,-1e308,a\n",
        ],
    )  # fmt: skip
    def test_takes_no_time(self, folder, text):
        file = folder / "progress.csv"
        file.write_text(text)
        survives(lambda: CsvWriter(file, resumed_at=100), folder, names=file.name, seconds=5)
        file.write_text(text)
        survives(lambda: read_curve(folder), folder, names=file.name, seconds=5)

    @pytest.mark.parametrize(
        "core",
        ["$x", "$" + "{" * 300 + "x" + "}" * 300 + "$", "$" + r"\frac{" * 60 + "1" + "}{2}" * 60 + "$", "x" * 300_000,
         "\n" * 20_000, "a\0b", "\ud800x", "\x1b[2J"],
    )  # fmt: skip
    def test_names_are_drawn_as_they_are(self, tmp_path, core):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            settings = as_plain(TrainConfig(env="cartpole-novel")) | {"core": core}
            (tmp_path / name / "config.yaml").write_text(json.dumps(settings))
            (tmp_path / name / "progress.csv").write_text(GOOD)
        runs, picture = (tmp_path / "one", tmp_path / "two"), tmp_path / "curves.png"
        assert survives(lambda: plot_runs(PlotConfig(runs, picture)), tmp_path) is None
        assert picture.exists()

    @pytest.mark.parametrize(
        "rows", ["0,0,0\n0,1.7e308,1.7e308", "1e308,1e308,1e308\n-1e308,-1e308,-1e308", "1,1,1e-320\n2,5e-324,2e-320"]
    )
    def test_numbers_at_the_end_of_what_there_is(self, folder, rows):
        (folder / "progress.csv").write_text(f"step,time/total_timesteps,rollout/ep_rew_mean\n{rows}\n")
        survives(lambda: plot_runs(PlotConfig((folder,), folder / "curves.png")), folder)

    def test_a_large_file_is_not_read(self, folder):
        file = folder / "progress.csv"
        with file.open("wb") as handle:
            handle.truncate(2**40)  # a terabyte of nothing, which takes no room on the disk
        for read in (lambda: CsvWriter(file, resumed_at=100), lambda: read_curve(folder)):
            assert "more than" in str(survives(read, folder, names=file.name))
        file.unlink()

    def test_a_pipe_is_not_waited_for(self, folder):
        file = folder / "progress.csv"
        file.unlink(missing_ok=True)
        os.mkfifo(file)
        assert isinstance(survives(lambda: read_curve(folder), folder, names=file.name), ConfigError)
        file.unlink()

    def test_rows_of_another_length_and_of_later_steps_are_left_out(self, folder):
        file = folder / "progress.csv"
        file.write_text(f"{HEAD}\n20,20,1.0,a\n40,40\n60,60,2.0,a,b\n80,80,3.0,a\n{'9' * 5_000},1,1,a\n120,120,4.0,a\n")
        CsvWriter(file, resumed_at=100)
        assert file.read_text().splitlines()[1:] == ["20,20,1.0,a", "80,80,3.0,a"]
