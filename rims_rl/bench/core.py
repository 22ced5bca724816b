"""Memories alone: the RIM against torch's LSTM and GRU and against itself, how it grows, and every core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from rims_rl.bench.config import CoreBenchConfig
from rims_rl.bench.measure import Contender, Say, interleaved, median_ratio, medians
from rims_rl.bench.memory import peak_memory
from rims_rl.bench.results import CoreResult, CoreRow, Growth, Row
from rims_rl.bench.turns import WIDTH, CoreTurn, Kind, Loop, Shape, TorchTurn
from rims_rl.cores.registry import core_class

TURNS_FOR_MEMORY = 2
"""The second backward pass runs beside the gradients of the first, as in training."""
SHAPES = (Shape(128, 8), Shape(128, 2), Shape(32, 8), Shape(128, 64), Shape(1, 8, gradient=False))
WITHOUT_COMPILER = SHAPES[:2]
REFERENCE_SHAPE = Shape(8, 2)
VARIANT_SHAPE = Shape(128, 8)
STEP_SHAPE = Shape(1, 8, gradient=False)
GROWTH = {
    "T": [Shape(steps, 8) for steps in (32, 64, 128, 256)],
    "B": [Shape(128, batch) for batch in (4, 16, 64)],
    "slots": [Shape(32, 8, slots=slots) for slots in (1, 7, 49)],
}
KINDS: dict[str, tuple[Kind, ...]] = {"lstm": ("LSTM",), "gru": ("LSTM", "GRU")}
"""By the units' dynamics: which of torch's own networks they are compared with."""
UNITS = (3, 6, 12, 24)
OUTPUT_SIZE = 512
"""Where a core's output has a size of its own, it is given this one."""


@dataclass(frozen=True)
class Comparison:
    """One of ours, and those that it takes turns with."""

    shape: Shape
    """What all of them read."""
    ours: Contender
    """What is measured."""
    peers: tuple[Contender, ...]
    """Against what."""


def measure_cores(config: CoreBenchConfig, say: Say) -> CoreResult:
    """Measure all that `bench core` promises."""
    rows = [row for comparison in comparisons(config.device) for row in _compared(comparison, config, say)]
    growth = {name: _growth(name, turns, config, say) for name, turns in _growing(config.device).items()}
    return CoreResult(rows, growth, [_core_row(name, config, say) for name in config.core_names()])


# ---------------------------------------------------------------------- the RIM against its peers


def comparisons(device: str = "cpu") -> Iterator[Comparison]:
    """Yield what is compared."""
    for cell in KINDS:
        name = f"RIM ({cell.upper()})"
        for shape in SHAPES:
            peers = tuple(_torch(kind, shape, device) for kind in KINDS[cell])
            yield Comparison(shape, _rim(name, cell, shape, device), peers)
        for shape in WITHOUT_COMPILER:
            without = "no compiler" if device == "cpu" else "no fused kernels"
            slow = Contender(f"{name}, {without}", _rim_turn(cell, shape, device, loop="unrolled"))
            yield Comparison(shape, slow, (_torch("LSTM", shape, device),))
        yield from _variants(name, cell, device)


def _variants(name: str, cell: str, device: str) -> Iterator[Comparison]:
    """Yield the RIM with resets, by plain autograd, by the authors' preset, and against the one like the paper."""
    shape = VARIANT_SHAPE
    resetting = Shape(shape.steps, shape.batch, resets=True)
    with_resets = Contender(f"{name}, resets", _rim_turn(cell, resetting, device))
    yield Comparison(shape, with_resets, (_rim("without resets", cell, shape, device),))
    eager = Contender(f"{name}, plain autograd", _rim_turn(cell, shape, device, loop="eager"))
    yield Comparison(shape, eager, (_torch("LSTM", shape, device),))
    authors = Contender(f"{name}, preset authors", _rim_turn(cell, shape, device, preset="authors"))
    yield Comparison(shape, authors, (_torch("LSTM", shape, device),))
    reference = Contender("slow reference", _rim_turn(cell, REFERENCE_SHAPE, device, loop="reference"))
    yield Comparison(REFERENCE_SHAPE, _rim(name, cell, REFERENCE_SHAPE, device), (reference,))


def _rim(name: str, cell: str, shape: Shape, device: str) -> Contender:
    return Contender(name, _rim_turn(cell, shape, device))


def _rim_turn(cell: str, shape: Shape, device: str, loop: Loop = "fastest", **settings: object) -> CoreTurn:
    return CoreTurn("rim", shape, (("cell", cell), *settings.items()), loop, device)


def _torch(kind: Kind, shape: Shape, device: str) -> Contender:
    return Contender(f"nn.{kind}", TorchTurn(kind, shape, WIDTH, device))


def _compared(comparison: Comparison, config: CoreBenchConfig, say: Say) -> Iterator[Row]:
    """Measure one of ours and its peers in turns; yield a row per peer."""
    shape, ours, peers = comparison.shape, comparison.ours, comparison.peers
    say(f"{ours.name} against {' and '.join(peer.name for peer in peers)}, T={shape.steps}, B={shape.batch}")
    rounds = interleaved([contender.recipe() for contender in (ours, *peers)], config.repeats)
    milliseconds = [1e3 * seconds for seconds in medians(rounds)]
    mib = [_memory(contender, config) for contender in (ours, *peers)]
    for index, peer in enumerate(peers, start=1):
        yield Row(
            ours.name, peer.name, shape.steps, shape.batch, shape.gradient,
            milliseconds[0], milliseconds[index], median_ratio(rounds, 0, index), mib[0], mib[index],
        )  # fmt: skip


def _memory(contender: Contender, config: CoreBenchConfig) -> float | None:
    return peak_memory(contender.recipe, TURNS_FOR_MEMORY) if config.memory else None


# ---------------------------------------------------------------------- growth


def _growing(device: str) -> dict[str, list[tuple[int, Contender]]]:
    """Return the RIM with LSTM units at growing sizes."""
    size_of = {"T": lambda shape: shape.steps, "B": lambda shape: shape.batch, "slots": lambda shape: shape.slots}
    found = {
        name: [(size_of[name](shape), _rim("RIM", "lstm", shape, device)) for shape in shapes]
        for name, shapes in GROWTH.items()
    }
    return {**found, "units": [(units, _rim_of(units, device)) for units in UNITS]}


def _rim_of(units: int, device: str) -> Contender:
    turn = _rim_turn("lstm", VARIANT_SHAPE, device, num_units=units, active_units=2 * units // 3)
    return Contender(f"RIM of {units} units", turn)


def _growth(name: str, sized: list[tuple[int, Contender]], config: CoreBenchConfig, say: Say) -> list[Growth]:
    say(f"growth with {name}: {', '.join(str(size) for size, _ in sized)}")
    rounds = interleaved([contender.recipe() for _, contender in sized], config.repeats)
    return [
        Growth(size, 1e3 * seconds, _memory(contender, config))
        for (size, contender), seconds in zip(sized, medians(rounds), strict=True)
    ]


# ---------------------------------------------------------------------- every core


def _core_row(name: str, config: CoreBenchConfig, say: Say) -> CoreRow:
    """Measure one core against nn.LSTM, over a sequence and in a single step."""
    say(f"core {name} against nn.LSTM")
    settings = default_settings(name)
    turns = [CoreTurn(name, shape, settings, device=config.device) for shape in (VARIANT_SHAPE, STEP_SHAPE)]
    core = turns[0].build()
    found = []
    for turn in turns:
        peer = TorchTurn("LSTM", turn.shape, OUTPUT_SIZE, config.device)
        rounds = interleaved([turn(), peer()], config.repeats)
        found += [1e3 * medians(rounds)[0], median_ratio(rounds, 0, 1)]
    parameters = sum(parameter.numel() for parameter in core.parameters())
    memory = _memory(Contender(name, turns[0]), config)
    return CoreRow(name, parameters, core.output_size, core.state_size, found[0], found[1], found[2], found[3], memory)


def default_settings(name: str) -> tuple[tuple[str, int], ...]:
    """Return what a core is built with beside its defaults: an output of 512 where its size is a setting of its own."""
    config_class = core_class(name).config_class
    has_one = config_class is not None and "output_size" in [entry.name for entry in fields(config_class)]
    return (("output_size", OUTPUT_SIZE),) if has_one else ()
