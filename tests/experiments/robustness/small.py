"""Runs that were never trained, the options of a report that takes seconds, and findings without any game."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rims_rl.agents import RIMPolicy
from rims_rl.agents.policy_files import save_policy
from rims_rl.building import policy_class_for, policy_kwargs
from rims_rl.config import TrainConfig
from rims_rl.evaluation import evaluation_env
from rims_rl.experiments.robustness.conditions import Condition
from rims_rl.experiments.robustness.findings import Findings
from rims_rl.experiments.robustness.subjects import Subject, label, world_of
from rims_rl.runs import RunFolder, save_config

CORES: dict[str, dict[str, Any]] = {
    "rim": {"num_units": 5, "active_units": 2, "unit_size": 3},
    "lstm": {"hidden_size": 7},
    "feedforward": {"hidden_size": 7},
}
BREAKOUT = TrainConfig(
    env="breakout", core="rim", core_kwargs=CORES["rim"], encoder="nature", encoder_kwargs={"features_dim": 11}
)
EPISODES, STEPS, RANDOM_GAMES = 2, 41, 11
OPTIONS = [
    "--episodes", str(EPISODES), "--max-episode-steps", str(STEPS), "--n-envs", "2", "--seed", "7", "--onset", "23",
    "--window", "5", "--workers", "1",
]  # fmt: skip
ONE_KIND = ["--kinds", "balls", "--intensities", "0.5", "--splits", "held-out"]
BALLS = Condition("balls", 0.5, "held-out")


def policy_of(run: TrainConfig) -> RIMPolicy:
    """Return an untrained policy for a run's environment."""
    env = evaluation_env(run, 1, 0)
    env.close()
    torch.manual_seed(run.seed)
    make = policy_class_for(env.observation_space)
    policy = make(env.observation_space, env.action_space, lambda _: 0.0, **policy_kwargs(run))
    policy.set_training_mode(False)
    with torch.no_grad():
        policy.action_net.weight.mul_(100)  # so that it prefers some actions, as one with training does
    return policy


def untrained_run(folder: Path, run: TrainConfig = BREAKOUT, steps: int = 13) -> Path:
    """Write the folder of a run that claims so many steps of training, and return it."""
    path = RunFolder(folder)
    path.create()
    save_config(path, run, ["rims-rl", "train"])
    save_policy(policy_of(run), path.policy_stem, {"step": steps})
    return folder


def with_core(core: str, run: TrainConfig = BREAKOUT, **changes: Any) -> TrainConfig:
    """Return a run's settings with another core."""
    return replace(run, core=core, core_kwargs=CORES[core], **changes)


def results_of(report: Path) -> dict[str, Any]:
    """Return a report's figures, read as strictly as JSON is."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    found: dict[str, Any] = json.loads((report / "results.json").read_text(), parse_constant=refuse)
    return found


def figures_of(report: Path) -> dict[str, Any]:
    """Return what two reports of the same measurements must share."""
    found = results_of(report)
    for one in found["mechanism"]:
        del one["seconds"]
    return {name: found[name] for name in ("random", "scores", "summary", "comparison", "mechanism")}


def subjects_of(*runs: TrainConfig) -> list[Subject]:
    """Return subjects as `read_subjects` does, without any folder."""
    return [Subject(Path(f"run{number}"), run, label(run, runs)) for number, run in enumerate(runs)]


def findings_of(
    scores: Mapping[tuple[Subject, Condition], list[float]],
    random: Mapping[Condition, list[float]],
    mechanism: Mapping[tuple[Subject, Condition], dict[str, Any]] | None = None,
    **more: Any,
) -> Findings:
    """Return findings with the same random play in every world."""
    worlds = dict.fromkeys(world_of(subject.run) for subject, _ in scores)
    played = {(world, condition): np.array(found) for world in worlds for condition, found in random.items()}
    return Findings({key: np.array(found) for key, found in scores.items()}, played, dict(mechanism or {}), **more)
