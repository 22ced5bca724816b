"""Trained agents from a run's folder, without unpickling anything."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rims_rl.agents.checkpoint import CheckpointStore, Stored, read_tensors
from rims_rl.agents.policy_files import load_policy, policy_facts
from rims_rl.agents.rebuilding import check_fit, rebuilt
from rims_rl.agents.spaces import space_from_json, space_to_json
from rims_rl.agents.state_checks import step_of
from rims_rl.building import policy_class_for, policy_kwargs
from rims_rl.config import RESUMABLE, TrainConfig, as_plain
from rims_rl.errors import CheckpointError, ConfigError, said, shortened
from rims_rl.runs import RunFolder, load_config, open_run
from rims_rl.storage.plain_files import expanded
from rims_rl.validation import check_device

if TYPE_CHECKING:
    from rims_rl.agents import RIMPPO, RIMPolicy

_log = logging.getLogger(__name__)
_WEIGHTS = "policy/"
_NAMES = frozenset({"config", "name", "output"})
_OF_THE_TASK = frozenset(
    {"env", "protocol", "route", "frame_stack", "distractor", "distractor_split", "env_kwargs"}
    | {"core", "core_kwargs", "core_parameters", "encoder", "encoder_kwargs"}
)


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
        "settings": _of_the_learning(config),
    }


def check_same_run(config: TrainConfig, stored: Stored) -> None:
    """Compare a run's settings with those that its checkpoint was made with; says in the log what else differs.

    Raises:
        CheckpointError: when it is of another task or another network; names the first difference.
    """
    before, now = _mapping(_mapping(stored.manifest, "about"), "settings"), _of_the_learning(config)
    changed = [name for name, value in now.items() if name in before and before[name] != value]
    for name in changed:
        if name in _OF_THE_TASK:
            then, here = shortened(before[name]), shortened(now[name])
            raise CheckpointError(f"{stored.path} was made with {name} {then}, this run has {here}")
    if changed:
        then = ", ".join(f"{name} {shortened(before[name])} (now {shortened(now[name])})" for name in changed)
        _log.warning("%s was made with %s", stored.path.name, then)


def _of_the_learning(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide what is learned, as JSON has them."""
    plain: dict[str, Any] = json.loads(json.dumps(as_plain(config)))
    return {name: value for name, value in plain.items() if name not in RESUMABLE | _NAMES}


def is_finished(folder: RunFolder, step: int) -> bool:
    """Whether the final files of a run that ended at this step are all there."""
    try:
        return policy_facts(folder.policy_stem).get("step") == step and folder.model_file.exists()
    except CheckpointError:
        return False


def locate(run: Path, which: str | None) -> tuple[RunFolder, str | None]:
    """Return the folder of a run, and which of its weights are meant; `run` may be a `model.zip` in it.

    Raises:
        ConfigError: when there is no run there, or weights are named twice.
    """
    if run.suffix != ".zip":
        return open_run(run), which
    if which is not None:
        raise ConfigError(f"{run} and --checkpoint {which} name two agents; give one of them")
    if not expanded(run).is_file():
        raise ConfigError(f"no file at {run}")
    return open_run(run.parent), run.name


def load_agent(
    folder: RunFolder, which: str | None = None, device: str = "cpu", *, trust_pickle: bool = False
) -> Agent:
    """Load an agent of a run.

    Args:
        folder: the run's folder.
        which: final, newest, best, the number of a step, or the name of an SB3 archive in the folder; by default what
            was trained longest.
        device: where it shall run; auto is cuda where there is one.
        trust_pickle: allow an archive, whose loading runs the code in it.

    Raises:
        ConfigError: for a checkpoint that the run does not have, or an unusable device.
        CheckpointError: when its file is damaged, or an archive is not trusted.
    """
    check_device(device)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    is_archive = which is not None and which.endswith(".zip")
    agent = load_archive(folder.path / str(which), trust=trust_pickle) if is_archive else _load(folder, which)
    agent.policy.to(device)
    agent.policy.set_training_mode(False)
    return agent


def load_archive(path: Path, *, trust: bool) -> Agent:
    """Load the agent in a `model.zip` of Stable-Baselines3, which runs the code in it.

    Raises:
        CheckpointError: when it is not trusted, damaged, or no agent of RIMPPO.
    """
    if not trust:
        raise CheckpointError(
            f"{path} is an archive of Stable-Baselines3: loading it runs whatever code is in it; "
            "give --trust-pickle if you trust whoever made it"
        )
    from rims_rl.agents import RIMPPO, RIMPolicy

    try:
        model = RIMPPO.load(path, device="cpu")
    except Exception as error:
        raise CheckpointError(f"{path} cannot be loaded as a model of RIMPPO ({said(error)})") from error
    if not isinstance(model.policy, RIMPolicy):
        raise CheckpointError(f"{path} holds a {type(model.policy).__name__}, not a policy of rims_rl")
    return Agent(model.policy, int(model.num_timesteps), path.name)


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
    policy = load_policy(folder.policy_stem)
    step = policy_facts(folder.policy_stem).get("step", 0)
    return Agent(policy, step_of({"num_timesteps": step}, f"{folder.policy_stem}.json"), "final")


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
    make, weights = _maker(load_config(folder), stored)
    policy = rebuilt(make, weights, str(stored.path))
    return Agent(policy, step_of(stored.manifest, str(stored.path)), stored.path.stem)


def check_network(config: TrainConfig, stored: Stored) -> None:
    """Raise CheckpointError unless a run's settings ask for just a checkpoint's weights; takes no memory for it."""
    check_fit(*_maker(config, stored), str(stored.path))


def _maker(config: TrainConfig, stored: Stored) -> tuple[partial[RIMPolicy], dict[str, Tensor]]:
    """Return what builds the policy of a checkpoint as a run's settings say, and its weights."""
    about = _mapping(stored.manifest, "about")
    if "observation_space" not in about or "action_space" not in about:
        raise CheckpointError(f"{stored.path} does not say which spaces its policy serves: expected a run's checkpoint")
    try:
        observations, actions = (space_from_json(about[key]) for key in ("observation_space", "action_space"))
    except CheckpointError as error:
        raise CheckpointError(f"{stored.path}: {error}") from None
    settings = policy_kwargs(config) | {"ortho_init": False}  # the weights are replaced
    make = partial(policy_class_for(observations), observations, actions, lambda _: 0.0, **settings)
    weights = {key.removeprefix(_WEIGHTS): value for key, value in stored.tensors.items() if key.startswith(_WEIGHTS)}
    return make, weights


def _mapping(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a part of a manifest that must be a mapping; empty where it is missing or something else."""
    part = mapping.get(name)
    return part if isinstance(part, dict) else {}
