"""Variants of Atari games: ALE's modes and difficulties, and changes of a running game's RAM.

The names of the variations are HackAtari's (Delfosse et al., arXiv 2406.03997) where the meaning is the same.
"""

from rims_rl.envs.variants.env import VariantAtariEnv, check_switches
from rims_rl.envs.variants.variant import GameVariants, Variant, list_variants, parse_variant
from rims_rl.envs.variants.variation import Variation

__all__ = [
    "GameVariants",
    "Variant",
    "VariantAtariEnv",
    "Variation",
    "check_switches",
    "list_variants",
    "parse_variant",
]
