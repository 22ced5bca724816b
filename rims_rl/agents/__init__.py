"""Agents for Stable-Baselines3 whose memory is a core of `rims_rl.cores`."""

from rims_rl.agents.extractors import NatureEncoder, NatureSlots, RIMExtractor
from rims_rl.agents.policies import CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy, RIMPolicy
from rims_rl.agents.ppo import RIMPPO

__all__ = [
    "RIMPPO",
    "CnnRIMPolicy",
    "MlpRIMPolicy",
    "MultiInputRIMPolicy",
    "NatureEncoder",
    "NatureSlots",
    "RIMExtractor",
    "RIMPolicy",
]
