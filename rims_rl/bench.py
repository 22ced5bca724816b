"""Speed, measured honestly: ours and a peer's in the same run, interleaved, medians, as ratios.

Wall-clock times on a shared machine swing by tens of percent from one minute to the next. What is compared is therefore
measured turn by turn, and what is reported is the median of the ratios of neighbouring turns.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box, get_console
from rich.table import Table
from torch import Tensor, nn

from rims_rl.config import BenchConfig
from rims_rl.cores import RIM, RecurrentCore, RIMConfig
from rims_rl.cores.native import switched_off
from rims_rl.cores.reference import reference_rim
from rims_rl.errors import ConfigError
from rims_rl.runs import versions

INPUT_SIZE, WIDTH = 512, 510
Work = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """How much one turn does."""

    steps: int
    """T."""
    batch: int
    """B."""
    gradient: bool = True
    """Forward and backward, or forward alone without a graph."""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    ours: str
    """What was measured."""
    peer: str
    """Against what."""
    steps: int
    """T."""
    batch: int
    """B."""
    gradient: bool
    """Whether the backward pass is in it."""
    ours_ms: float
    """Median time of a turn in milliseconds."""
    peer_ms: float
    """The peer's."""
    ratio: float
    """Median of the ratios ours / peer of neighbouring turns: below 1 we are faster."""


SHAPES = (Shape(128, 8), Shape(128, 2), Shape(32, 8), Shape(128, 64), Shape(1, 8, gradient=False))
GROWTH = {
    "T": [Shape(steps, 8) for steps in (32, 64, 128, 256)],
    "B": [Shape(128, batch) for batch in (4, 8, 16, 32)],
}


def run_bench(config: BenchConfig) -> list[Row]:
    """Measure, print a table, write it as JSON where asked, and return the rows.

    Raises:
        ConfigError: for settings that can't work.
    """
    if config.repeats < 1:
        raise ConfigError(f"--repeats must be at least 1, got {config.repeats}")
    if config.torch_threads < 0:
        raise ConfigError(f"--torch-threads must be at least 0, got {config.torch_threads}")
    if config.json is not None and not config.json.expanduser().absolute().parent.is_dir():
        raise ConfigError(f"--json {config.json}: there is no folder {config.json.parent}")
    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    torch.manual_seed(0)
    rows = [_compared(*comparison, config.repeats) for comparison in _core_comparisons()]
    growth = _growth(config.repeats)
    _print(rows, growth)
    if config.json is not None:
        _write(config.json.expanduser(), rows, growth)
    return rows


def _core_comparisons() -> Iterator[tuple[str, Work, str, Work, Shape]]:
    """Yield what is compared: name and work of ours and of the peer, and the shape."""
    peers: dict[str, nn.Module] = {"gru": nn.GRU(INPUT_SIZE, WIDTH), "lstm": nn.LSTM(INPUT_SIZE, WIDTH)}
    for cell in ("lstm", "gru"):
        core = RIM(INPUT_SIZE, RIMConfig.from_settings(cell=cell))
        for shape in SHAPES:
            for peer in dict.fromkeys(("lstm", cell)):
                yield (
                    f"RIM, {cell} units",
                    core_work(core, shape),
                    f"nn.{peer.upper()}",
                    torch_work(peers[peer], shape),
                    shape,
                )
        shape = SHAPES[0]
        yield (
            f"RIM, {cell} units, no compiler",
            eager_work(core, shape),
            "nn.LSTM",
            torch_work(peers["lstm"], shape),
            shape,
        )
        small = Shape(8, 2)
        yield f"RIM, {cell} units", core_work(core, small), "slow reference", reference_work(core, small), small


def core_work(core: RecurrentCore, shape: Shape, slots: int | None = None) -> Work:
    """Return one turn of a core on random inputs."""
    middle = () if slots is None else (slots,)
    inputs = torch.randn(shape.steps, shape.batch, *middle, core.input_size)
    state = core.initial_state(shape.batch)
    return _turn(lambda: core(inputs, state)[0], shape.gradient)


def eager_work(core: RecurrentCore, shape: Shape) -> Work:
    """Return one turn of a RIM without its compiled loop."""
    work = core_work(core, shape)

    def turn() -> None:
        with switched_off():
            work()

    return turn


def torch_work(module: nn.Module, shape: Shape) -> Work:
    """Return one turn of torch's own LSTM or GRU of the same width."""
    inputs = torch.randn(shape.steps, shape.batch, INPUT_SIZE)
    return _turn(lambda: module(inputs)[0], shape.gradient)


def reference_work(core: RIM, shape: Shape) -> Work:
    """Return one turn of the RIM that is written like the paper."""
    inputs, state = torch.randn(shape.steps, shape.batch, INPUT_SIZE), core.initial_state(shape.batch)
    return _turn(lambda: reference_rim(core, inputs, state)[0], shape.gradient)


def _turn(forward: Callable[[], Tensor], gradient: bool) -> Work:
    def with_gradient() -> None:
        forward().sum().backward()  # type: ignore[no-untyped-call]

    def without() -> None:
        with torch.no_grad():
            forward()

    return with_gradient if gradient else without


def _compared(ours: str, our_work: Work, peer: str, peer_work: Work, shape: Shape, repeats: int) -> Row:
    """Measure two works in turns."""
    pairs = interleaved([our_work, peer_work], repeats)
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    medians = [statistics.median(times) * 1e3 for times in zip(*pairs, strict=True)]
    return Row(ours, peer, shape.steps, shape.batch, shape.gradient, medians[0], medians[1], ratio)


def interleaved(works: list[Work], repeats: int) -> list[tuple[float, ...]]:
    """Return the seconds of every work in every round, after two rounds that do not count.

    Works that take under two milliseconds are done several times a turn, so that the clock's grain does not matter.
    """
    for work in works * 2:
        work()
    inner = max(1, round(0.02 / max(1e-5, min(_seconds(work) for work in works))))
    return [tuple(_seconds(work, inner) for work in works) for _ in range(repeats)]


def _seconds(work: Work, times: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def _growth(repeats: int) -> dict[str, list[tuple[int, float]]]:
    """Return how a turn's time grows with T, B, units and slots: size and milliseconds."""
    core = RIM(INPUT_SIZE, RIMConfig.from_settings(cell="lstm"))
    found = {
        "T": [(shape.steps, core_work(core, shape)) for shape in GROWTH["T"]],
        "B": [(shape.batch, core_work(core, shape)) for shape in GROWTH["B"]],
        "units": [(units, core_work(_rim_of(units), SHAPES[0])) for units in (3, 6, 12, 24)],
        "slots": [(slots, core_work(core, Shape(32, 8), slots)) for slots in (1, 7, 49)],
    }
    return {name: _times(sized, repeats) for name, sized in found.items()}


def _rim_of(units: int) -> RIM:
    return RIM(INPUT_SIZE, RIMConfig.from_settings(num_units=units, active_units=2 * units // 3, cell="lstm"))


def _times(sized: list[tuple[int, Work]], repeats: int) -> list[tuple[int, float]]:
    rounds = interleaved([work for _, work in sized], repeats)
    medians = [statistics.median(times) * 1e3 for times in zip(*rounds, strict=True)]
    return [(size, median) for (size, _), median in zip(sized, medians, strict=True)]


def _print(rows: list[Row], growth: dict[str, list[tuple[int, float]]]) -> None:
    console = get_console()
    table = Table("ours", "against", "T", "B", "pass", "ours ms", "peer ms", "ratio", box=box.ROUNDED)
    for row in rows:
        passes = "fwd+bwd" if row.gradient else "forward"
        numbers = (f"{row.ours_ms:.2f}", f"{row.peer_ms:.2f}", f"[bold]{row.ratio:.2f}[/bold]")
        table.add_row(row.ours, row.peer, str(row.steps), str(row.batch), passes, *numbers)
    console.print(table)
    console.print(f"{INPUT_SIZE} inputs, width {WIDTH} (6 units of 85, 4 active), {torch.get_num_threads()} threads")
    for name, times in growth.items():
        console.print(f"time with {name}: " + ", ".join(f"{size}: {ms:.1f} ms" for size, ms in times), highlight=False)


def _write(path: Path, rows: list[Row], growth: dict[str, Any]) -> None:
    about = {"threads": torch.get_num_threads(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    path.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows], "growth": growth}, indent=2) + "\n")
