"""The complete state of a RIMPPO run between two updates, as tensors and JSON.

Weights, optimizer, counters, the last observation with its memory, recent episodes, every random generator, and the
environments where they can tell their state. What goes on from it equals the uninterrupted run bit for bit on a CPU
when the environments can be put back too (`manifest["exact"]`); otherwise they begin new episodes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from rims_rl.agents.environment_state import can_snapshot, environment_state, set_environment_state
from rims_rl.agents.state_checks import check_values, damage_told, step_of, unpacked_state
from rims_rl.agents.weights import check_weights, weights_of
from rims_rl.errors import CheckpointError, said, shortened
from rims_rl.storage.random_states import random_state, set_random_state
from rims_rl.storage.trees import pack
from rims_rl.versions import COUNTED, versions

if TYPE_CHECKING:
    from rims_rl.agents.ppo import RIMPPO

_log = logging.getLogger(__name__)
_KIND = "training state"
_WEIGHTS = "policy/"
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")
_MOST_SEED = 2**31


def capture(model: RIMPPO, about: Mapping[str, Any] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return copies of everything that a run needs to go on, as tensors and a JSON-safe manifest.

    Call it between two updates: in a callback's `on_rollout_start`, or after training.

    Args:
        model: a model whose training has begun.
        about: JSON-safe facts to keep beside it, such as the environment's name.

    Raises:
        CheckpointError: when training has not begun, or an environment's snapshot holds something that can't be stored.
    """
    if model.env is None or model._last_obs is None:
        raise CheckpointError("there is no training state to store before the first rollout")
    tensors = weights_of(model.policy, _WEIGHTS)
    state = {**_algorithm_state(model), "environment": environment_state(model.env), "random": random_state()}
    manifest = {
        "kind": _KIND,
        "about": dict(about or {}),
        "versions": versions(COUNTED),
        "policy": model.policy.constructor_settings(),
        "num_timesteps": model.num_timesteps,
        "n_envs": model.n_envs,
        "exact": state["environment"]["snapshots"] is not None and model.device.type == "cpu",
        "state": {name: pack(value, name, tensors) for name, value in state.items()},
    }
    return tensors, manifest


def restore(model: RIMPPO, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], where: str = "") -> None:
    """Put a captured state into a model that was built alike, or leave the model as it is when the state does not fit.

    The next `model.learn(remaining, reset_num_timesteps=False)` goes on from there.

    Args:
        model: the model.
        tensors: what `capture` returned, possibly from a file that nobody vouches for.
        manifest: likewise.
        where: what messages call it, such as its file; by default the checkpoint of its step.

    Raises:
        CheckpointError: when it is no training state, is damaged, or does not fit the model; names what is wrong. Only
            the environments may have been changed by then.
    """
    where = _named(manifest, where)
    state = unpacked_state(manifest, tensors, where)
    weights = {name.removeprefix(_WEIGHTS): tensor for name, tensor in tensors.items() if name.startswith(_WEIGHTS)}
    check_weights(model.policy, weights, where)
    with damage_told(where):
        _check_fits(model, state, manifest, where)
        check_values(model, state, step_of(manifest, where))
        _warn_about_versions(manifest, where)
    _restore_environment(model, state, where)
    model.policy.load_state_dict(weights)
    _restore_optimizer(model.policy.optimizer, state["optimizer"])
    for name in _COUNTERS:
        setattr(model, name, state["counters"][name])
    model.pending_log = dict(state.get("log", {}))
    guard = state.get("steps", {})
    model.steps.skipped, model.steps.in_a_row = guard.get("skipped", 0), guard.get("in_a_row", 0)
    model.pieces = guard.get("pieces", 1)
    model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(state["successes"], maxlen=model._stats_window_size)
    set_random_state(state["random"])


def _algorithm_state(model: RIMPPO) -> dict[str, Any]:
    """Return what RIMPPO itself keeps from one update to the next."""
    return {
        "optimizer": model.policy.optimizer.state_dict(),
        "counters": {name: getattr(model, name) for name in _COUNTERS},
        "last_obs": model._last_obs,
        "last_starts": np.asarray(model._last_episode_starts, dtype=bool),
        "memory": model._last_state,
        "steps": {"skipped": model.steps.skipped, "in_a_row": model.steps.in_a_row, "pieces": model.pieces},
        "log": _recorded(model),
        "episodes": list(model.ep_info_buffer or ()),
        "successes": list(model.ep_success_buffer or ()),
    }


def _recorded(model: RIMPPO) -> dict[str, tuple[float | int | str, tuple[str, ...]]]:
    """Return the plain values that the logger has and has not yet shown, and where each is not to be shown."""
    logger = model.logger
    return {
        name: (value, tuple(logger.name_to_excluded.get(name) or ()))
        for name, value in logger.name_to_value.items()
        if isinstance(value, bool | int | float | str)
    }


def _restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the state, and lay each moment out in memory like its parameter: sums round by the order of memory."""
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _restore_environment(model: RIMPPO, state: Mapping[str, Any], where: str) -> None:
    """Put the environments back with the observation and the memory that go with them, or begin new episodes."""
    assert model.env is not None
    seed = None if model.seed is None else (model.seed + state["counters"]["num_timesteps"]) % _MOST_SEED
    try:
        first_obs = set_environment_state(model.env, state["environment"], seed)
    except Exception as error:  # whatever environments of others make of a damaged snapshot
        raise CheckpointError(f"{where} does not fit these environments: {said(error)}") from error
    if first_obs is None:
        model._last_obs, model._last_episode_starts = state["last_obs"], state["last_starts"]
        model._last_state = state["memory"].to(model.device)
        return
    _log.warning("these environments cannot be put back exactly: the run goes on with new episodes")
    model._last_obs = first_obs
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    model._last_state = model.policy.initial_state(model.n_envs).detach()


def _named(manifest: Mapping[str, Any], where: str) -> str:
    """Return how messages call this state, after making sure that it is one."""
    kind = manifest.get("kind")
    if kind != _KIND:
        what = f"{where} is" if where else "this is"
        raise CheckpointError(f"{what} not a training state: expected kind {_KIND!r}, found {shortened(kind)}")
    return where or f"the checkpoint of step {step_of(manifest, 'this checkpoint')}"


def _check_fits(model: RIMPPO, state: Mapping[str, Any], manifest: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError naming the first thing, beside the weights, in which state and model differ."""
    if manifest["n_envs"] != model.n_envs:
        raise CheckpointError(f"{where} has n_envs={shortened(manifest['n_envs'])}, this run has {model.n_envs}")
    expected = (model.n_envs, model.policy.core.state_size)
    if tuple(state["memory"].shape) != expected:
        raise CheckpointError(f"{where} has a memory of shape {tuple(state['memory'].shape)}, expected {expected}")
    _check_observations(model, state["last_obs"], where)
    groups = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
    wanted = [len(group["params"]) for group in model.policy.optimizer.param_groups]
    if groups != wanted:
        raise CheckpointError(f"{where} has an optimizer over {groups} parameters, this run's has {wanted}")
    assert model.env is not None
    if (state["environment"]["snapshots"] is not None) != can_snapshot(model.env):
        stored, here = ("with", "without") if not can_snapshot(model.env) else ("without", "with")
        raise CheckpointError(f"{where} is from environments {stored} snapshots, these are {here}: use the same route")


def _check_observations(model: RIMPPO, stored: Any, where: str) -> None:
    space = model.observation_space
    parts = getattr(space, "spaces", {"observation": space})
    stored_parts = stored if isinstance(stored, dict) else {"observation": stored}
    found = {name: (part.shape, str(part.dtype)) for name, part in stored_parts.items()}
    expected = {name: ((model.n_envs, *part.shape), str(part.dtype)) for name, part in parts.items()}
    if found != expected:
        raise CheckpointError(f"{where} has observations {shortened(found)}, expected {expected}")


def _warn_about_versions(manifest: Mapping[str, Any], where: str) -> None:
    """Say which versions differ: the run can go on, but perhaps not to the last bit."""
    now = versions(COUNTED)
    changed = [
        f"{name} {shortened(then)[1:-1]} (now {now.get(name)})"
        for name, then in manifest["versions"].items()
        if then != now.get(name) and name in ("python", "rims-rl", *COUNTED)
    ]
    if changed:
        _log.warning("%s was made with %s; results may differ in the last digits", where, ", ".join(changed))
