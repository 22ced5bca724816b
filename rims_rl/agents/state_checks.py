"""Checks of a stored training state, before any of it reaches a model: whoever wrote it may mean harm.

A checksum proves that a file is whole, not that its content is sound. Values of the wrong kind would end a run much
later with an error that names nothing, or read beyond an array in compiled code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from rims_rl.errors import CheckpointError, said, shortened
from rims_rl.storage.optimizer_states import checked_optimizer_state
from rims_rl.storage.random_states import check_random_state
from rims_rl.storage.trees import unpack

if TYPE_CHECKING:
    from rims_rl.agents.ppo import RIMPPO

_NEEDED = (
    "optimizer", "counters", "last_obs", "last_starts", "memory", "episodes", "successes", "environment", "random",
)  # fmt: skip
_IF_THERE = ("steps", "log")
_COUNTS = ("num_timesteps", "_n_updates", "_episode_num")
_MOST_STEPS = 2**62
_MOST_RESTARTS, _LONGEST_GAP = 2**31, 10_000
_MOST_SHOWN, _MOST_GROUPS, _LONGEST_LOGGED = 5_000, 50, 100
_NOT_SHOWN = frozenset({"stdout", "log"})
"""Where the table leaves a value out; the matrices of large cores have thousands."""
_NOT_AS_EXPECTED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)


def step_of(manifest: Mapping[str, Any], where: str) -> int:
    """Return the environment steps that a checkpoint was made after; CheckpointError when it does not say."""
    step = manifest.get("num_timesteps")
    if type(step) is not int or not 0 <= step < _MOST_STEPS:
        raise CheckpointError(f"{where} is damaged: it was made after {shortened(step)} steps")
    return step


def unpacked_state(manifest: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Return the parts of a state by name; CheckpointError when one is missing or damaged."""
    stored = manifest.get("state")
    if not isinstance(stored, dict):
        raise CheckpointError(f"{where} is damaged: it has no state")
    for name in _NEEDED:
        if name not in stored:
            raise CheckpointError(f"{where} is damaged: it lacks {name}")
    try:
        return {name: unpack(stored[name], tensors) for name in (*_NEEDED, *_IF_THERE) if name in stored}
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None


@contextmanager
def damage_told(where: str) -> Iterator[None]:
    """Turn what looking at a damaged state raises into a CheckpointError."""
    try:
        yield
    except _NOT_AS_EXPECTED as error:
        raise CheckpointError(f"{where} is damaged: {said(error)}") from error


def check_values(model: RIMPPO, state: dict[str, Any], step: int) -> None:
    """Check every part that goes into the model; the optimizer's is replaced by what may be loaded.

    Raises:
        ValueError: for the first value that can't be right; other errors where it is of another kind (`damage_told`).
    """
    _check_counters(state["counters"], step)
    _check_starts(state["last_starts"], model.n_envs)
    _check_memory(state["memory"], model._last_state)
    _check_observations(state["last_obs"], model.observation_space)
    for episode in _listed(state["episodes"], "episodes"):
        _check_finite("an episode", (episode["r"], episode["l"], episode.get("t", 0)))
    _check_finite("a success", _listed(state["successes"], "successes"))
    _check_steps(state.get("steps", {}))
    _check_log(state.get("log", {}))
    snapshots = state["environment"]["snapshots"]
    if snapshots is not None and len(_listed(snapshots, "snapshots")) != model.n_envs:
        raise ValueError(f"it has {len(snapshots)} snapshots of environments, expected {model.n_envs}")
    _check_faults(state["environment"].get("faults"), model.n_envs)
    check_random_state(state["random"])
    state["optimizer"] = checked_optimizer_state(model.policy.optimizer, state["optimizer"])


def _check_counters(counters: Mapping[str, Any], step: int) -> None:
    for name in _COUNTS:
        if type(counters[name]) is not int or not 0 <= counters[name] < _MOST_STEPS:
            raise ValueError(f"its counter {name} is {shortened(counters[name])}")
    if counters["num_timesteps"] != step:
        raise ValueError(f"it counts {counters['num_timesteps']} steps in one place and {step} in another")
    _check_finite("its progress", [counters["_current_progress_remaining"]])


def _check_starts(starts: Any, n_envs: int) -> None:
    if not isinstance(starts, np.ndarray) or starts.shape != (n_envs,) or starts.dtype != bool:
        raise ValueError("it does not say which episodes begin")


def _check_memory(memory: Any, own: Tensor) -> None:
    if not isinstance(memory, Tensor) or memory.dtype != own.dtype:
        raise ValueError(f"its memory is no tensor of {own.dtype}")


def _check_observations(observations: Any, space: spaces.Space[Any]) -> None:
    """Raise ValueError for a number that stands for nothing: encoders look it up. Boxes are left to the encoder."""
    if isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            _check_observations(observations[name], part)
    elif not isinstance(space, spaces.Box) and not all(space.contains(one) for one in observations):
        raise ValueError(f"it has an observation that is not in {space}")


def _check_steps(guard: Mapping[str, Any]) -> None:
    for name, least in (("skipped", 0), ("in_a_row", 0), ("pieces", 1)):
        count = guard.get(name, least)
        if type(count) is not int or not least <= count < _MOST_STEPS:
            raise ValueError(f"its count of {name} is {shortened(count)}")


def _check_faults(faults: Mapping[str, Any] | None, n_envs: int) -> None:
    """Raise ValueError unless they are a count and a text, or None, for each environment; older states have none."""
    if faults is None:
        return
    restarts, gaps = (_listed(faults[name], name) for name in ("restarts", "gaps"))
    if len(restarts) != n_envs or len(gaps) != n_envs:
        raise ValueError(f"it has {len(restarts)} counts of restarts and {len(gaps)} gaps, expected {n_envs} of each")
    for count in restarts:
        if type(count) is not int or not 0 <= count < _MOST_RESTARTS:
            raise ValueError(f"its count of restarts is {shortened(count)}")
    for gap in gaps:
        if gap is not None and not (isinstance(gap, str) and len(gap) <= _LONGEST_GAP):
            raise ValueError(f"its gap is {shortened(gap)}")


def _check_log(log: Mapping[str, Any]) -> None:
    shown = [name for name, (_, excluded) in log.items() if not _NOT_SHOWN & set(excluded)]
    groups = {name.rpartition("/")[0] for name in shown}
    if len(shown) > _MOST_SHOWN or len(groups) > _MOST_GROUPS or max(map(len, log), default=0) > _LONGEST_LOGGED:
        raise ValueError(f"it has recorded {len(shown):,} values in {len(groups):,} groups, more than any run does")
    for name, (value, excluded) in log.items():
        texts = (name, *excluded)
        if not isinstance(value, bool | int | float | str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"it has recorded {shortened(value)} as {shortened(name)}")


def _check_finite(what: str, numbers: Iterable[Any]) -> None:
    for number in numbers:
        if not isinstance(number, bool | int | float | np.number | np.bool_) or not math.isfinite(number):
            raise ValueError(f"{what} is {shortened(number)}, expected a finite number")


def _listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"its {what} are {shortened(value)}, expected a list")
    return value
