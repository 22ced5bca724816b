"""Seeded distractors for environments that show RGB frames: see `Distractor` and `KINDS`."""

from rims_rl.envs.distractors.distraction import Distraction
from rims_rl.envs.distractors.distractor import (
    KINDS,
    SPLITS,
    Distractor,
    as_distractors,
    as_plain,
    parse_distractors,
)
from rims_rl.envs.distractors.effect import Screen
from rims_rl.envs.distractors.wrappers import DistractorWrapper, VecDistractor

__all__ = [
    "KINDS",
    "SPLITS",
    "Distraction",
    "Distractor",
    "DistractorWrapper",
    "Screen",
    "VecDistractor",
    "as_distractors",
    "as_plain",
    "parse_distractors",
]
