"""The settings of a RIM: sizes, and a switch for every piece that the paper ablates or the authors' code changes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from rims_rl.cores.base import require_at_least_one
from rims_rl.errors import ConfigError, UnknownNameError

Cell = Literal["gru", "lstm"]
Competition = Literal["null", "units"]
Shown = Literal["state", "candidate"]

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"bounded_messages": False},
    "authors": {"cell": "gru", "competition": "units", "gated_communication": True, "inactive_show": "candidate"},
}
"""`paper`: the method as published. `authors`: where the authors' Atari code departs from it. Neither: the paper's
method with bounded messages, because the published residual diverged with GRU units in reinforcement learning."""


@dataclass(frozen=True)
class RIMConfig:
    """Sizes and switches of a RIM; the defaults are the paper's Atari agent (6 units, 4 active)."""

    num_units: int = 6
    """How many units there are (k_T)."""
    active_units: int = 4
    """How many units update at each step (k_A)."""
    unit_size: int = 85
    """Size of one unit's state."""
    cell: Cell = "lstm"
    """The units' dynamics: lstm or gru. In agents take lstm: messages add up in the very state that a GRU keeps."""
    input_heads: int = 1
    """Heads of the input attention; scores are averaged over heads before the selection."""
    input_key_size: int = 64
    """Key size of one head of the input attention."""
    input_value_size: int | None = None
    """Value size of the input attention over all heads; by default 4 x unit_size."""
    communication_heads: int = 4
    """Heads of the attention between units."""
    communication_key_size: int = 32
    """Key size of one head of the attention between units."""
    communication_value_size: int = 32
    """Value size of one head of the attention between units."""
    input_attention: bool = True
    """Off: every unit reads the whole input (mean over slots), and all units are active."""
    communication: bool = True
    """Off: units do not read from each other."""
    competition: Competition = "null"
    """null: softmax per unit over a null row and the slots; units: softmax over the units, no null row."""
    gated_communication: bool = False
    """On: messages pass sigmoid(gate) * tanh(map), maps shared by the units; off: a map per unit."""
    bounded_messages: bool = True
    """On: messages pass tanh. Off: the paper's plain residual, by which states can grow without bound: what units add
    to each other they read again, and a GRU unit keeps its sum."""
    inactive_show: Shown = "state"
    """What units that are not active show to the others: their kept state, or the candidate they would have taken."""

    def __post_init__(self) -> None:
        """Check every setting; raises ConfigError in one line."""
        self._check_sizes()
        for name, kind in (("cell", Cell), ("competition", Competition), ("inactive_show", Shown)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if self.active_units > self.num_units:
            raise ConfigError(f"active_units={self.active_units} is more than num_units={self.num_units}")
        if not self.input_attention and self.active_units != self.num_units:
            raise ConfigError(
                "without input attention nothing selects the units: "
                f"set active_units={self.num_units}, as num_units, got {self.active_units}"
            )
        if self.value_size % self.input_heads:
            raise ConfigError(
                f"input_value_size={self.value_size} must be a multiple of input_heads={self.input_heads}"
            )

    def _check_sizes(self) -> None:
        names = ["num_units", "active_units", "unit_size", "input_heads", "input_key_size"]
        names += ["communication_heads", "communication_key_size", "communication_value_size"]
        require_at_least_one(**{name: getattr(self, name) for name in names}, input_value_size=self.value_size)

    @classmethod
    def from_settings(cls, preset: str | None = None, **settings: Any) -> RIMConfig:
        """Return the defaults, or a preset (`paper` or `authors`), with some settings overridden.

        Raises:
            UnknownNameError: for an unknown preset or setting.
            ConfigError: for settings that can't work.
        """
        if preset is not None and preset not in PRESETS:
            raise UnknownNameError("RIM preset", preset, PRESETS)
        known = [entry.name for entry in fields(cls)]
        for name in settings:
            if name not in known:
                raise UnknownNameError("setting of core rim", name, [*known, "preset"])
        return cls(**{**(PRESETS[preset] if preset else {}), **settings})

    def check_input_size(self, input_size: int) -> None:
        """Raise ConfigError when `input_size` is below one."""
        require_at_least_one(input_size=input_size)

    @property
    def gates(self) -> int:
        """Gates of the cell: 3 for a GRU, 4 for an LSTM."""
        return 3 if self.cell == "gru" else 4

    @property
    def heads(self) -> int:
        """Heads by which the values are split: 1 without input attention."""
        return self.input_heads if self.input_attention else 1

    @property
    def value_size(self) -> int:
        """Value size of the input attention over all heads (E)."""
        return 4 * self.unit_size if self.input_value_size is None else self.input_value_size

    @property
    def key_size(self) -> int:
        """Key size of the input attention over all heads (H*D)."""
        return self.input_heads * self.input_key_size

    @property
    def query_size(self) -> int:
        """Query size of one unit over all heads: none without input attention."""
        return self.key_size if self.input_attention else 0

    @property
    def message_key_size(self) -> int:
        """Key size of the communication over all heads."""
        return self.communication_heads * self.communication_key_size

    @property
    def message_value_size(self) -> int:
        """Value size of the communication over all heads."""
        return self.communication_heads * self.communication_value_size
