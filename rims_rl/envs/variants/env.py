"""The open route with a variant: an `AtariGymEnv` whose game is changed after each emulated frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rims_rl.envs.gym_route import AtariGymEnv
from rims_rl.envs.screen import FrameHook
from rims_rl.envs.snapshots import entry, text
from rims_rl.envs.variants.variant import Variant, parse_variant
from rims_rl.envs.variants.variation import Console
from rims_rl.errors import ConfigError, shortened


class VariantAtariEnv(AtariGymEnv):
    """An `AtariGymEnv` that plays a variant of its game, such as "mode:1+lazy_enemy+up_drift:4"; "" changes nothing.

    Under one seed the game's start and the sticky actions are drawn as without a variant. A `frame_hook` sees frames
    as the variant paints them.

    Raises:
        ConfigError: as `AtariGymEnv` and `Variant` do, and for a mode or difficulty given both here and in the variant.
    """

    def __init__(
        self,
        game: str,
        *,
        variant: str = "",
        mode: int | None = None,
        difficulty: int | None = None,
        **settings: Any,
    ) -> None:
        self.variant = parse_variant(game, variant)
        """What is changed."""
        self._changes = [(item.change, level) for item, level in self.variant.variations if item.change]
        self._paints = [item.paint for item, _ in self.variant.variations if item.paint]
        self._own_hook: FrameHook | None = None
        settings |= check_switches(self.variant, mode, difficulty)
        super().__init__(game, **settings)
        self._console = Console(self._ale)

    @property
    def frame_hook(self) -> FrameHook | None:
        """What alters the raw RGB frames (H, W, 3): the variant's paint, then the hook that was set, or None."""
        return self._painted if self._paints else self._own_hook

    @frame_hook.setter
    def frame_hook(self, hook: FrameHook | None) -> None:
        self._own_hook = hook

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start or go on as `AtariGymEnv` does; a seed starts the variant's random stream anew too."""
        if seed is not None:
            self._console.seed(seed)
        return super().reset(seed=seed, options=options)

    def snapshot(self) -> dict[str, Any]:
        """Return all that decides how the game goes on, the variant's own state included."""
        return super().snapshot() | {"variant": self.variant.text, "console": self._console.snapshot()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put back what `snapshot()` returned.

        Raises:
            ConfigError: when the snapshot is of another game or variant, or damaged.
        """
        there = text(snapshot, "variant") if "variant" in snapshot else ""
        if there != self.variant.text:
            raise ConfigError(
                f"this snapshot is of variant {shortened(there)}, but the environment plays {self.variant.text!r}"
            )
        console = Console(self._ale)
        console.restore(entry(snapshot, "console"))
        super().restore(snapshot)
        self._console = console

    def _act(self, action: int) -> int:
        """Emulate one frame, then change the game unless it is over; return the reward."""
        reward = super()._act(action)
        if self._changes and not self._ale.game_over():
            self._console.advance(self._changes)
        return reward

    def _restart(self) -> None:
        """Reset the emulated console and what the variant remembers."""
        super()._restart()
        self._console.begin()

    def _raw_screen(self) -> NDArray[np.uint8]:
        """Return the raw screen (H, W, 3) as the variant paints it."""
        return self._paint(super()._raw_screen())

    def _painted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame (H, W, 3), painted and then passed through the hook that was set."""
        painted = self._paint(frame)
        return painted if self._own_hook is None else self._own_hook(painted)

    def _paint(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame (H, W, 3) as the variant paints it."""
        for paint in self._paints:
            frame = paint(frame)
        return frame


def check_switches(variant: Variant, mode: int | None, difficulty: int | None) -> dict[str, int | None]:
    """Return mode and difficulty from whichever place has them, or raise ConfigError when both have one."""
    given = {"mode": mode, "difficulty": difficulty}
    for name, value in given.items():
        own: int | None = getattr(variant, name)
        if value is not None and own is not None:
            raise ConfigError(f"{name} is given twice: {value} as a setting and {own} in the variant {variant.text!r}")
        given[name] = own if value is None else value
    return given
