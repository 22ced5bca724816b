"""Trained agents from a run's folder, without unpickling anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rims_rl.agents.checkpoint import CheckpointStore, Stored, read_tensors
from rims_rl.agents.policy_files import load_policy
from rims_rl.agents.spaces import space_from_json, space_to_json
from rims_rl.agents.weights import check_weights
from rims_rl.building import policy_class_for, policy_kwargs
from rims_rl.config import TrainConfig
from rims_rl.errors import CheckpointError, ConfigError
from rims_rl.runs import RunFolder, load_config
from rims_rl.validation import check_device

if TYPE_CHECKING:
    from rims_rl.agents import RIMPPO, RIMPolicy

_WEIGHTS = "policy/"


class Agent(NamedTuple):
    """A trained policy and where it comes from."""

    policy: RIMPolicy
    """The policy, ready to act."""
    step: int
    """Environment steps that it was trained for."""
    name: str
    """`final`, or the name of the checkpoint."""


def facts(model: RIMPPO, config: TrainConfig) -> dict[str, Any]:
    """Return what a stored policy says of itself beside its weights; the spaces let a checkpoint be read on its own."""
    return {
        "env": config.env,
        "protocol": config.protocol,
        "observation_space": space_to_json(model.observation_space),
        "action_space": space_to_json(model.action_space),
    }


def load_agent(folder: RunFolder, which: str | None = None, device: str = "cpu") -> Agent:
    """Load an agent of a run.

    Args:
        folder: the run's folder.
        which: final, newest, best or the number of a step; by default what was trained longest.
        device: where it shall run; auto is cuda where there is one.

    Raises:
        ConfigError: for a checkpoint that the run does not have, or an unusable device.
        CheckpointError: when its file is damaged.
    """
    check_device(device)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    agent = _load(folder, which)
    agent.policy.to(device)
    agent.policy.set_training_mode(False)
    return agent


def _load(folder: RunFolder, which: str | None) -> Agent:
    store = CheckpointStore(folder.checkpoints)
    has_final = folder.policy_stem.with_suffix(".safetensors").exists()
    if which == "final" or (which is None and has_final):
        if not has_final:
            raise ConfigError(f"{folder.path} has no final policy yet; choose {_choices(store, has_final)}")
        final = _final(folder)
        is_newest = which == "final" or final.step >= max(store.steps(), default=0)
        return final if is_newest else _from_checkpoint(folder, store.newest())
    if which in (None, "newest"):
        return _from_checkpoint(folder, store.newest())
    return _from_checkpoint(folder, _stored(folder, store, str(which), has_final))


def _final(folder: RunFolder) -> Agent:
    import json

    policy = load_policy(folder.policy_stem)
    about = json.loads(folder.policy_stem.with_suffix(".json").read_text("utf-8")).get("about", {})
    return Agent(policy, int(about.get("step", 0)), "final")


def _stored(folder: RunFolder, store: CheckpointStore, which: str, has_final: bool) -> Stored:
    """Read the checkpoint of a step, or the best one."""
    path = store.best_file if which == "best" else _file_of(store, which)
    if path is None or not path.exists():
        raise ConfigError(f"{folder.path} has no checkpoint {which!r}; choose {_choices(store, has_final)}")
    return Stored(path, *read_tensors(path))


def _file_of(store: CheckpointStore, which: str) -> Path | None:
    digits = which.replace("_", "")
    if not digits.isdecimal() or int(digits) not in store.steps():
        return None
    return store.folder / f"step_{int(digits):09d}.safetensors"


def _choices(store: CheckpointStore, has_final: bool) -> str:
    names = ["final"] * has_final + ["best"] * store.best_file.exists() + ["newest"] * bool(store.steps())
    return ", ".join([*names, *map(str, store.steps())]) or "another run: it has none at all"


def _from_checkpoint(folder: RunFolder, stored: Stored) -> Agent:
    """Build the policy of a checkpoint as the run's settings say, and put its weights in."""
    config, about = load_config(folder), stored.manifest.get("about", {})
    if "observation_space" not in about or "action_space" not in about:
        raise CheckpointError(f"{stored.path} does not say which spaces its policy serves: expected a run's checkpoint")
    observations, actions = (space_from_json(about[key]) for key in ("observation_space", "action_space"))
    with torch.random.fork_rng(devices=[]):
        policy = policy_class_for(observations)(observations, actions, lambda _: 0.0, **policy_kwargs(config))
    weights = {key.removeprefix(_WEIGHTS): value for key, value in stored.tensors.items() if key.startswith(_WEIGHTS)}
    check_weights(policy, weights, str(stored.path))
    policy.load_state_dict(weights)
    return Agent(policy, int(stored.manifest["num_timesteps"]), stored.path.stem)
