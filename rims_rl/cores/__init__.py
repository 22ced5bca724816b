"""Sequence models with one contract, `RecurrentCore`; this storey imports torch alone."""

from rims_rl.cores.base import RecurrentCore
from rims_rl.cores.matching import matched_config, matched_setting, matched_settings, parameter_count
from rims_rl.cores.registry import core_class, core_config, core_names, make_core
from rims_rl.cores.rim import RIM, RIMState
from rims_rl.cores.rim_config import RIMConfig

__all__ = [
    "RIM", "RIMConfig", "RIMState", "RecurrentCore", "core_class", "core_config", "core_names", "make_core",
    "matched_config", "matched_setting", "matched_settings", "parameter_count",
]  # fmt: skip
