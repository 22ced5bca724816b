"""A small untrained agent and the CartPole that it is filmed on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rims_rl.agents import MlpRIMPolicy
from rims_rl.config import TrainConfig
from rims_rl.recording import film_env

RUN = TrainConfig(env="cartpole-novel", core_kwargs={"num_units": 5, "active_units": 2, "unit_size": 3})


def cartpole(core: str = "rim", **core_kwargs: Any) -> tuple[MlpRIMPolicy, Any]:
    env = film_env(replace(RUN, core=core), seed=13)
    torch.manual_seed(7)
    policy = MlpRIMPolicy(
        env.observation_space, env.action_space, lambda _: 0.0, core=core, core_kwargs=core_kwargs or RUN.core_kwargs
    )
    return policy, env
