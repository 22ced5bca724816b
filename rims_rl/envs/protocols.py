"""The two ways in which Atari results are reported, and the complete, checked settings of a set of environments.

`nature`: Mnih et al., Nature 2015, as PPO papers and rl-zoo use it. `machado`: Machado et al., JAIR 2018.
A score means nothing without its protocol, so every environment carries its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rims_rl.envs.games import resolve_game
from rims_rl.errors import ConfigError, UnknownNameError, shortened

FRAME_SKIP = 4
SCREEN_SIZE = 84
ROUTES = ("vector", "gym")
_MOST_FRAMES = 2**31 - 1  # ALE's own number
_MOST_NOOPS = 1_000  # which every reset plays, whatever limits the game


@dataclass(frozen=True)
class AtariProtocol:
    """What a protocol fixes."""

    name: str
    """Its name, printed beside every result."""
    sticky: float
    """Probability, in every emulated frame, that the previous action is repeated."""
    terminal_on_life_loss: bool
    """Whether a lost life ends the return in training; never in evaluation."""
    full_action_set: bool
    """All 18 actions, or only those that the game can tell apart."""


PROTOCOLS: dict[str, AtariProtocol] = {
    "nature": AtariProtocol("nature", sticky=0.0, terminal_on_life_loss=True, full_action_set=False),
    "machado": AtariProtocol("machado", sticky=0.25, terminal_on_life_loss=False, full_action_set=True),
}


def get_protocol(name: str) -> AtariProtocol:
    """Return the protocol called `name`, or raise UnknownNameError with the nearest names."""
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def check_count(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise ConfigError unless `value` is a whole number from `least` to `most`, where that is given."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {shortened(value)}")
    if most is not None and value > most:
        raise ConfigError(f"{name} must be at most {most}, got {shortened(value)}")


def action_number(action: Any, count: int, of: str) -> int:
    """Return an action of `count` as a number; raises ConfigError for anything else: "this `of` has actions ..."."""
    number = action.item() if hasattr(action, "item") and np.ndim(action) == 0 else action
    if not isinstance(number, int | float) or number not in range(count):
        raise ConfigError(f"action {shortened(action)} is out of range: this {of} has actions 0 to {count - 1}")
    return int(number)


def _check_switch(name: str, value: object) -> None:
    """Raise ConfigError unless `value` is True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{name} must be True, False or None (as the protocol says), got {shortened(value)}")


@dataclass(frozen=True)
class AtariSettings:
    """Everything that decides how one game is played and seen, checked before any emulator exists.

    Raises:
        ConfigError: one line on the first setting that cannot work; UnknownNameError with nearest names for names.
    """

    game: str
    """The game, in any spelling; becomes its rom name."""
    protocol: str = "nature"
    """nature or machado."""
    frame_stack: int = 4
    """Frames per observation."""
    training: bool = True
    """Training (clipped rewards, the protocol's life signal) or evaluation (raw rewards, full games)."""
    terminal_on_life_loss: bool | None = None
    """Overrides whether a lost life is reported as done."""
    clip_rewards: bool | None = None
    """Overrides whether rewards are reduced to their sign."""
    max_frames: int = 108_000
    """Emulated frames after which a game is truncated; 108 000 are 30 minutes."""
    noop_max: int = 30
    """A game starts after 0 to noop_max - 1 frames without input, drawn uniformly."""
    rules: AtariProtocol = field(init=False, repr=False)
    """The protocol's table entry."""

    def __post_init__(self) -> None:
        """Check every field and put the resolved values in place."""
        rules = get_protocol(self.protocol)
        check_count("frame_stack", self.frame_stack, 1)
        if self.frame_stack > SCREEN_SIZE:  # SB3 takes the smallest axis of an image for its channels
            raise ConfigError(f"frame_stack must be at most {SCREEN_SIZE}, got {self.frame_stack}")
        check_count("max_frames", self.max_frames, 1, _MOST_FRAMES)
        check_count("noop_max", self.noop_max, 0, _MOST_NOOPS)
        _check_switch("terminal_on_life_loss", self.terminal_on_life_loss)
        _check_switch("clip_rewards", self.clip_rewards)
        object.__setattr__(self, "game", resolve_game(self.game))
        object.__setattr__(self, "rules", rules)

    @property
    def life_loss_is_done(self) -> bool:
        """Whether a lost life is reported as done."""
        if self.terminal_on_life_loss is not None:
            return self.terminal_on_life_loss
        return self.training and self.rules.terminal_on_life_loss

    @property
    def rewards_are_signs(self) -> bool:
        """Whether the learner sees only the sign of each reward."""
        return self.training if self.clip_rewards is None else self.clip_rewards
