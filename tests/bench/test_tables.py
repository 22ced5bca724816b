"""The tables say what was found, and fit into a terminal of 100 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rims_rl.bench.core import comparisons
from rims_rl.bench.results import CoreResult, CoreRow, EnvResult, Growth, Row, SpeedRow, TrainResult
from rims_rl.bench.tables import ORDER, tables
from rims_rl.bench.train import OURS, PEERS, PEERS_ON_OURS, ROUTES

LARGE_MS, LARGE_MIB = 98_765.4, 8_765.0


def shown(result, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in tables(result):
        console.print(part, highlight=False)
    return console.file.getvalue().splitlines()


def core_result() -> CoreResult:
    """Return a result with every row that there is, and numbers as wide as they may become."""
    rows = [
        Row(
            each.ours.name, peer.name, each.shape.steps, each.shape.batch, each.shape.gradient,
            LARGE_MS, LARGE_MS, 12.34, LARGE_MIB, LARGE_MIB,
        )
        for each in comparisons() for peer in each.peers
    ]  # fmt: skip
    growth = {"T": [Growth(32, 48.0, 16.0), Growth(64, 96.0, None)]}
    return CoreResult(
        rows, growth, [CoreRow("feedforward", 1_234_567, 512, 65_536, LARGE_MS, 98.76, 0.123, 9.87, 4321.0)]
    )


def train_result() -> TrainResult:
    agents, peers = OURS + PEERS + PEERS_ON_OURS, [agent.name for agent in PEERS + PEERS_ON_OURS]
    ratios = dict.fromkeys(peers, 12.34)
    rows = [SpeedRow(agent.name, ROUTES[agent.route], 8, 12_345.6, ratios, LARGE_MIB, [1.0]) for agent in agents]
    ours = {name: 12.34 for name in ORDER if name not in ("update", "callbacks")}
    theirs = {"environment": 1.0, "inference": 2.0, "update": 3.0, "rest": 0.001}
    split = {agent.name: ours if agent in OURS else theirs for agent in agents}
    return TrainResult(rows, peers, split, 1024)


def env_result() -> EnvResult:
    peers = ["SB3, DummyVecEnv", "SB3, SubprocVecEnv"]
    names = ["ours, route vector", "ours, route gym", *peers]
    rows = [
        SpeedRow(name, name, copies, 2000.0, {"SB3, DummyVecEnv": 1.5, "SB3, SubprocVecEnv": 2.5}, None, [1.0])
        for copies in (1, 64)
        for name in names
    ]
    return EnvResult(rows, peers, 4)


class TestTables:
    @pytest.mark.parametrize("result", [core_result(), train_result(), env_result()], ids=["core", "train", "env"])
    def test_nothing_is_cut_at_100_columns(self, result):
        lines = shown(result)
        assert "…" not in "".join(lines)
        assert max(len(line.rstrip()) for line in lines) <= 100

    @pytest.mark.parametrize("result", [core_result(), train_result(), env_result()], ids=["core", "train", "env"])
    def test_a_narrower_terminal_wraps_names_and_keeps_numbers(self, result):
        assert "…" not in "".join(shown(result, width=90))

    def test_a_row_holds_its_numbers(self):
        row = Row("ours", "theirs", 128, 8, True, 71.25, 0.4567, 0.0123, 33.4, None)
        line = next(line for line in shown(CoreResult([row], {})) if "theirs" in line)
        assert line.split() == ["ours", "theirs", "128,", "8", "71.2", "0.457", "0.012", "33"]

    def test_growth_is_shown_per_size(self):
        lines = shown(core_result())
        assert next(line for line in lines if line.startswith(" T ")).split() == [
            "T",
            "32",
            "48.0",
            "1.50",
            "16",
            "0.50",
        ]

    def test_cores_are_shown_where_they_were_asked_for(self):
        assert any("Every core" in line for line in shown(core_result()))
        assert not any("Every core" in line for line in shown(CoreResult([], {})))

    def test_no_ratio_is_shown_to_oneself(self):
        lines = [line.split() for line in shown(env_result()) if "SB3, " in line and "2,000" in line]
        assert lines[0][-1] == "2.50"
        assert lines[1][-1] == "1.50"
        assert "8,000" in lines[0]  # frames, four to a step

    def test_phases_without_time_are_left_out_and_new_ones_are_not(self):
        result = train_result()
        split = {"RecurrentPPO": {"environment": 1.25, "callbacks": 0.001, "thinking": 2.5}}
        text = "\n".join(shown(TrainResult(result.rows, result.peers, split, 1024)))
        assert "callbacks" not in text
        assert "thinking" in text
        (line,) = [line for line in text.splitlines() if "1.25" in line]
        assert line.split() == ["RecurrentPPO", "1.25", "2.50", "3.75"]
