"""The state of a vectorised environment: each copy's own snapshot, and VecNormalize's running statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
    unwrap_vec_normalize,
)

# Wrappers that keep nothing between steps, or whose statistics are kept here; others make an exact return impossible.
_KNOWN_WRAPPERS = (VecTransposeImage, VecCheckNan, VecNormalize)


def can_snapshot(env: VecEnv) -> bool:
    """Whether the environments can be put back: each has `snapshot`, and no wrapper has a state unknown here."""
    while isinstance(env, VecEnvWrapper):
        if type(env) not in _KNOWN_WRAPPERS:
            return False
        env = env.venv
    return env.has_attr("snapshot")


def restarts_of(env: VecEnv | None) -> int:
    """Return how often processes of the environments had to be replaced; 0 where they have none."""
    return sum(getattr(_innermost(env), "restarts", ()))


def environment_state(env: VecEnv) -> dict[str, Any]:
    """Return the snapshots, a VecNormalize's statistics and the faults of processes; None for what isn't there."""
    snapshots = env.env_method("snapshot") if can_snapshot(env) else None
    faults = getattr(_innermost(env), "fault_state", None)  # after the snapshots, which may find a process dead
    return {"snapshots": snapshots, "normalizer": _normalizer_state(unwrap_vec_normalize(env)), "faults": faults}


def set_environment_state(env: VecEnv, state: Mapping[str, Any], seed: int | None) -> Any:
    """Put the environments back and return None; without snapshots begin new episodes and return their observations.

    Args:
        env: environments made like those that the state is from.
        state: what `environment_state` returned.
        seed: for new episodes, so that they aren't those that the run began with.

    Raises:
        ValueError: where statistics do not fit, or only processes of their own could go on from there.
    """
    normalizer = unwrap_vec_normalize(env)
    _set_normalizer_state(normalizer, state["normalizer"])
    if state["snapshots"] is None and seed is not None:
        env.seed(seed)
    first_obs = env.reset()  # copies that were just made refuse to step before their first reset
    for index, snapshot in enumerate(state["snapshots"] or ()):
        env.env_method("restore", snapshot, indices=[index])
    _set_fault_state(env, state)
    if state["snapshots"] is None:
        return first_obs
    _set_normalizer_state(normalizer, state["normalizer"])
    return None


def _innermost(env: VecEnv | None) -> VecEnv | None:
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env


def _set_fault_state(env: VecEnv, state: Mapping[str, Any]) -> None:
    """Go on from the faults of processes, if any were stored; new episodes have no gaps any more."""
    faults = state.get("faults")
    if faults is None:
        return
    gaps = [None for _ in faults["gaps"]] if state["snapshots"] is None else faults["gaps"]
    inner: Any = _innermost(env)
    if hasattr(inner, "set_fault_state"):
        inner.set_fault_state({**faults, "gaps": gaps})
    elif any(gap is not None for gap in gaps):
        raise ValueError("the process of one had just been replaced; go on with processes of their own (subprocess)")


def _normalizer_state(normalizer: VecNormalize | None) -> dict[str, Any] | None:
    if normalizer is None:
        return None
    statistics = {name: dict(vars(found)) for name, found in _statistics(normalizer).items()}
    return {"statistics": statistics, "returns": normalizer.returns}


def _set_normalizer_state(normalizer: VecNormalize | None, state: Mapping[str, Any] | None) -> None:
    """Put the statistics back; raises ValueError where they are of other observations, or no numbers."""
    if normalizer is None or state is None:
        return
    for name, found in _statistics(normalizer).items():
        stored = state["statistics"][name]
        for part in ("mean", "var"):
            setattr(found, part, _like(getattr(found, part), stored[part], f"{part} of {name}"))
        found.count = float(_like(np.zeros(()), stored["count"], f"count of {name}"))
    normalizer.returns = _like(normalizer.returns, state["returns"], "returns")


def _like(own: Any, stored: Any, what: str) -> Any:
    """Return a copy of a stored array, or number, that has the shape of one's own and finite numbers."""
    array = np.array(stored, np.float64)
    if array.shape != np.shape(own) or not np.isfinite(array).all():
        raise ValueError(f"the stored {what} do not fit")
    return array if np.ndim(own) else array[()]


def _statistics(normalizer: VecNormalize) -> dict[str, RunningMeanStd]:
    """Return the running means and variances by name: of the rewards, and of each normalised observation."""
    of_observations = getattr(normalizer, "obs_rms", {})
    if isinstance(of_observations, RunningMeanStd):
        of_observations = {"observation": of_observations}
    return {"return": normalizer.ret_rms, **{f"obs {key}": found for key, found in of_observations.items()}}
