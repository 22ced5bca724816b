"""What the benchmarks find, as it lies in the JSON file; memory is None where it was not measured."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """`bench core`: one of ours against one peer."""

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
    ours_mib: float | None
    """Peak memory in MiB, see memory.py."""
    peer_mib: float | None
    """The peer's."""


@dataclass(frozen=True)
class Growth:
    """`bench core`: one point of how the RIM grows."""

    size: int
    """T, B, units or slots."""
    ms: float
    """Median time of a turn in milliseconds."""
    mib: float | None
    """Peak memory in MiB."""


@dataclass(frozen=True)
class CoreRow:
    """`bench core --cores`: one registered core against nn.LSTM."""

    core: str
    """Its name."""
    parameters: int
    """How many."""
    output_size: int
    """Size of its output."""
    state_size: int
    """Size of its flat state."""
    train_ms: float
    """Median time forward and backward over a sequence, in milliseconds."""
    train_ratio: float
    """To nn.LSTM."""
    step_ms: float
    """Median time of a single step without gradient."""
    step_ratio: float
    """To nn.LSTM."""
    mib: float | None
    """Peak memory forward and backward in MiB."""


@dataclass(frozen=True)
class CoreResult:
    """What `bench core` found."""

    rows: list[Row]
    """The RIM against its peers."""
    growth: dict[str, list[Growth]]
    """By what grows."""
    cores: list[CoreRow] = field(default_factory=list)
    """The cores that were asked for."""


@dataclass(frozen=True)
class SpeedRow:
    """`bench train` and `bench env`: one contender."""

    name: str
    """Who."""
    environments: str
    """On which environments."""
    n_envs: int
    """How many copies."""
    steps_per_second: float
    """Environment steps over all copies, median of the turns."""
    ratios: dict[str, float]
    """By peer: how many times as fast as it, median of the ratios of neighbouring turns; above 1 is faster."""
    mib: float | None
    """Peak memory in MiB."""
    seconds: list[float]
    """Every turn that counts."""


@dataclass(frozen=True)
class TrainResult:
    """What `bench train` found."""

    rows: list[SpeedRow]
    """All agents."""
    peers: list[str]
    """Those that ratios are taken to."""
    split: dict[str, dict[str, float]]
    """By agent: where the seconds of one more turn went, by name; see train.py."""
    steps: int
    """Environment steps of one turn."""


@dataclass(frozen=True)
class EnvResult:
    """What `bench env` found."""

    rows: list[SpeedRow]
    """All routes at every number of copies."""
    peers: list[str]
    """Those that ratios are taken to."""
    frame_skip: int
    """Emulated frames per step."""


MOST_WORKERS = 16
"""Worker processes up to which memory is measured: fresh ones take seconds each to start."""

Result = CoreResult | TrainResult | EnvResult
