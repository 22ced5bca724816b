"""Recurrent Independent Mechanisms as the memory of reinforcement-learning agents.

This door is light: it imports torch, but not Stable-Baselines3, gymnasium or wandb. Agents are in
`rims_rl.agents`, environments in `rims_rl.envs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RIM", "RIMConfig", "__version__", "make_core"]

if TYPE_CHECKING:
    from rims_rl.cores import RIM, RIMConfig, make_core


def __getattr__(name: str) -> Any:
    """Import torch only when a core is asked for, so that `rims-rl --help` answers at once."""
    if name in __all__:
        from rims_rl import cores

        return getattr(cores, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
