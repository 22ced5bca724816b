"""What the terminal shows: one table per question, each at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.console import RenderableType
from rich.table import Table

from rims_rl.bench import turns
from rims_rl.bench.results import (
    MOST_WORKERS,
    CoreResult,
    CoreRow,
    EnvResult,
    Growth,
    Result,
    Row,
    SpeedRow,
    TrainResult,
)

WIDTH = 100
"""Columns that every table fits into."""
MEMORY_NOTE = "MiB: peak memory above the idle process, each in a process of its own."
ORDER = (
    "environment", "inference", "encoder", "core", "heads and loss", "optimizer", "callbacks", "update", "rest",
)  # fmt: skip
"""How the phases of a turn are shown."""
HEADINGS = {"environment": "env", "heads and loss": "heads,\nloss", "optimizer": "optim."}


def tables(result: Result) -> Iterator[RenderableType]:
    """Yield what is printed, in order."""
    if isinstance(result, CoreResult):
        yield from _core_tables(result)
    elif isinstance(result, TrainResult):
        yield from _train_tables(result)
    else:
        yield from _env_tables(result)


# ---------------------------------------------------------------------- core


def _core_tables(result: CoreResult) -> Iterator[RenderableType]:
    yield from _titled("The RIM alone, with LSTM or GRU units", _comparisons(result.rows))
    yield _note(
        "Forward and backward; fwd: forward alone. ratio: ours / peer, median over neighbouring turns; below 1 ours is "
        f"faster. {turns.INPUT_SIZE} inputs, width {turns.WIDTH} (6 units of 85, 4 active), float32. {MEMORY_NOTE}"
    )
    yield from _titled("How the RIM with LSTM units grows, forward and backward", _growth(result.growth))
    yield _note("Where nothing else is said: T=128, B=8, 6 units, one vector as input. With slots T=32.")
    if result.cores:
        yield from _titled("Every core against nn.LSTM", _cores(result.cores))
        yield _note(
            "Forward and backward at T=128, B=8; step: forward alone, T=1, B=8. ratio: to nn.LSTM of width 512."
        )


def _comparisons(rows: list[Row]) -> Table:
    numbers = ("ours\nms", "peer\nms", "\nratio", "ours\nMiB", "peer\nMiB")
    table = _table("\nours", "\nagainst", "\nT, B", *numbers, left=3)
    for _, group in groupby(rows, key=lambda row: row.ours):
        for index, row in enumerate(group):
            times = (_ms(row.ours_ms), _ms(row.peer_ms), _ratio(row.ratio))
            shape = f"{row.steps}, {row.batch}{'' if row.gradient else ' fwd'}"
            name = "" if index else row.ours
            table.add_row(name, row.peer, shape, *times, _mib(row.ours_mib), _mib(row.peer_mib))
        table.add_section()
    return table


def _growth(growth: dict[str, list[Growth]]) -> Table:
    table = _table("with", "size", "ms", "ms / size", "MiB", "MiB / size")
    for name, points in growth.items():
        for index, point in enumerate(points):
            time, memory = f"{point.ms / point.size:.2f}", _mib(point.mib)
            per_size = "" if point.mib is None else f"{point.mib / point.size:.2f}"
            table.add_row("" if index else name, str(point.size), _ms(point.ms), time, memory, per_size)
        table.add_section()
    return table


def _cores(rows: list[CoreRow]) -> Table:
    table = _table("core", "parameters", "output", "state", "ms", "ratio", "step ms", "ratio", "MiB")
    for row in rows:
        sizes = (f"{row.parameters:,}", str(row.output_size), f"{row.state_size:,}")
        times = (_ms(row.train_ms), _ratio(row.train_ratio), _ms(row.step_ms), _ratio(row.step_ratio))
        table.add_row(row.core, *sizes, *times, _mib(row.mib))
    return table


# ---------------------------------------------------------------------- train


def _train_tables(result: TrainResult) -> Iterator[RenderableType]:
    yield from _titled("Environment steps per second in training", _speeds(result))
    yield _note(
        f"A turn is one rollout and one update, {result.steps:,} environment steps. x: how many times as fast as that "
        "peer, median over neighbouring turns. overall: steps of all turns by their seconds, those in which games end "
        "included, where RecurrentPPO pads its sequences. Our environments are route vector; the peers run on SB3's, "
        f"make_atari_env and VecFrameStack in a DummyVecEnv, where nothing else is said. {MEMORY_NOTE}"
    )
    yield from _titled("Where the time of one more turn went, in seconds", _split(result))
    yield _note(
        "Of the peers, all of a rollout but the environments' steps is called inference, and the update is not split."
    )


def _speeds(result: TrainResult) -> Table:
    table = _table("agent", "steps/s", *_against(result.peers), "overall", "MiB")
    for row in result.rows:
        if row.name == result.peers[0]:
            table.add_section()
        ratios = [_times(row, peer) for peer in result.peers]
        overall = result.steps * len(row.seconds) / sum(row.seconds)
        speeds = (f"{row.steps_per_second:,.0f}", *ratios, f"{overall:,.0f}")
        table.add_row(row.name, *speeds, _mib(row.mib))
    return table


def _split(result: TrainResult) -> Table:
    found = result.split.values()
    known = {name: ORDER.index(name) if name in ORDER else len(ORDER) for seconds in found for name in seconds}
    names = [name for name in sorted(known, key=known.__getitem__) if _shows(name, result.split)]
    table = _table("agent", *(HEADINGS.get(name, name) for name in names), "all")
    for agent, seconds in result.split.items():
        if agent == result.peers[0]:
            table.add_section()
        parts = [f"{seconds[name]:.2f}" if name in seconds else "" for name in names]
        table.add_row(agent, *parts, f"{sum(seconds.values()):.2f}")
    return table


def _shows(phase: str, split: dict[str, dict[str, float]]) -> bool:
    """Whether any agent spent a time in a phase that two decimals show."""
    return any(round(seconds.get(phase, 0.0), 2) > 0 for seconds in split.values())


# ---------------------------------------------------------------------- env


def _env_tables(result: EnvResult) -> Iterator[RenderableType]:
    yield from _titled("Atari environments with random actions", _routes(result))
    yield _note(
        "x: how many times as fast as that one, with the same game, preprocessing, frame stack and actions; median "
        f"over neighbouring turns. {MEMORY_NOTE} Of more than {MOST_WORKERS} worker processes it is not measured."
    )


def _routes(result: EnvResult) -> Table:
    peers = _against(result.peers)
    table = _table("copies", "environments", "steps/s", "frames/s", *peers, "MiB", left=2)
    for n_envs, group in groupby(result.rows, key=lambda row: row.n_envs):
        for index, row in enumerate(group):
            speed = (f"{row.steps_per_second:,.0f}", f"{row.steps_per_second * result.frame_skip:,.0f}")
            ratios = [_times(row, peer) for peer in result.peers]
            table.add_row("" if index else str(n_envs), row.name, *speed, *ratios, _mib(row.mib))
        table.add_section()
    return table


# ---------------------------------------------------------------------- cells


def _titled(title: str, table: Table) -> Iterator[RenderableType]:
    """Yield a table under its title, which may be wider than the table."""
    yield f"[bold]{title}[/bold]"
    yield table


def _table(*columns: str, left: int = 1) -> Table:
    """Return an empty table: first texts, which narrow terminals wrap, then numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=index >= left, vertical="bottom")
    return table


def _note(text: str) -> str:
    return f"[dim]{text}[/dim]\n"


def _against(peers: list[str]) -> list[str]:
    """Return the headings of the columns of ratios, in two lines."""
    return ["x " + peer.replace(", ", ",\n") for peer in peers]


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}" if milliseconds < 1 else f"{milliseconds:.1f}"


def _ratio(ratio: float) -> str:
    return f"[bold]{ratio:.3f}[/bold]" if ratio < 0.1 else f"[bold]{ratio:.2f}[/bold]"


def _mib(mib: float | None) -> str:
    return "" if mib is None else f"{mib:,.0f}"


def _times(row: SpeedRow, peer: str) -> str:
    """Return how many times as fast as a peer; nothing against itself."""
    return "" if row.name == peer else _ratio(row.ratios[peer])
