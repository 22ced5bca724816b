"""Soak: train while everything goes wrong, and prove that nothing was lost."""

from __future__ import annotations

from rims_rl.soak.config import SoakConfig

__all__ = ["SoakConfig", "run_soak"]


def run_soak(config: SoakConfig) -> int:
    """Run the soak and return 0 when every fault was survived and nothing was lost, else 1.

    Raises:
        ConfigError: for settings that can't work, or a system without /proc.
    """
    config.check()
    from rims_rl.soak.runner import Soak

    return Soak(config).run()
