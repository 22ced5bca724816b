"""One door for every environment: an Atari game in any spelling, an id of Gymnasium's, or an alias of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.envs.atari import make_atari_env
from rims_rl.envs.distractors import VecDistractor
from rims_rl.envs.distractors.distractor import AnyDistractor, Distractors, as_distractors, as_plain
from rims_rl.envs.games import game_names, is_atari
from rims_rl.envs.gym_route import AtariGymEnv
from rims_rl.envs.monitor import monitored
from rims_rl.envs.protocols import check_count
from rims_rl.envs.registration import CARTPOLE_NOVEL
from rims_rl.envs.watched import TellingDummyVecEnv, WatchedVecEnv, asked_patience
from rims_rl.errors import ConfigError, UnknownNameError, nearest_names, said, shortened

ALIASES = {"cartpole-novel": CARTPOLE_NOVEL}
_IMPORT_IT = (
    "import it yourself, then its environments go by their ids alone: "
    "python -c 'import MODULE; from rims_rl.cli import main; exit(main())' COMMAND --env ID"
)
_MAKE_KEYWORDS = ("max_episode_steps", "disable_env_checker")


def make_env(
    name: str,
    n_envs: int = 8,
    seed: int | None = 0,
    *,
    protocol: str = "nature",
    route: str = "vector",
    frame_stack: int = 4,
    training: bool = True,
    distractor: AnyDistractor = None,
    distractor_split: str | None = None,
    subprocess: bool = False,
    step_timeout: float | None = 60.0,
    env_restarts: int = 3,
    **env_kwargs: Any,
) -> VecEnv:
    """Return `n_envs` copies of an environment as one SB3 `VecEnv`.

    An Atari game goes to `make_atari_env`. Any other name is a Gymnasium id: copies wrapped in SB3's Monitor, in a
    `DummyVecEnv`. There `protocol`, `route`, `frame_stack` and `training` mean nothing, `env_kwargs` go to the
    environment, and infos hold the environment's own keys, "TimeLimit.truncated" in every step and, where done,
    "terminal_observation" and Monitor's "episode" {"r", "l", "t"}; there is no "lives" and no "life_lost". Distractors
    (`rims_rl.envs.distractors`) need RGB observations there; on Atari they alter the raw frames.

    With `subprocess` each copy has a process of its own (`rims_rl.envs.watched`), which is replaced up to
    `env_restarts` times when it raises, dies, or gives no answer for `step_timeout` seconds (None: waits for ever).

    Raises:
        UnknownNameError: for a name that is neither, with the nearest names.
        ConfigError: one line for env_kwargs that the environment does not take, for counts below one, and for
            `step_timeout` and `env_restarts` without `subprocess`.
        EnvironmentFault: from the VecEnv, when a copy raises, dies or hangs once more than it may be replaced.
    """
    if is_atari(name):
        _check_kwargs(name, env_kwargs, _parameters(make_atari_env, keyword_only=True))
        shown: dict[str, Any] = {"distractor": distractor, "distractor_split": distractor_split}
        return make_atari_env(
            name, n_envs, seed, protocol, route, frame_stack, training=training, **shown,
            subprocess=subprocess, step_timeout=step_timeout, env_restarts=env_restarts, **env_kwargs,
        )  # fmt: skip
    check_count("n_envs", n_envs, 1)
    if seed is not None:
        check_count("seed", seed, 0)
    patience = asked_patience(subprocess, step_timeout, env_restarts)
    spec = _find_spec(name)
    _check_kwargs(name, env_kwargs, _accepted_by(spec))
    distractors = as_distractors(distractor, distractor_split)
    if distractors and _has_distractors_itself(spec):
        distractors, env_kwargs = (), {**env_kwargs, "distractor": as_plain(distractors)}
    seeds = [None if seed is None else seed + index for index in range(n_envs)]
    makers: list[Callable[[], gym.Env[Any, Any]]] = [partial(_make_one, spec, env_kwargs, own) for own in seeds]
    env: VecEnv = WatchedVecEnv(makers, patience) if subprocess else TellingDummyVecEnv(makers)
    if distractors:
        env = _distracted(name, env, distractors)
    if seed is not None:
        env.seed(seed)
    return env


def has_step_limit(name: str) -> bool:
    """Whether the registered environment ends its episodes after so many steps, or is an Atari game, which does.

    Raises:
        UnknownNameError: as `make_env` does.
    """
    return is_atari(name) or _find_spec(name).max_episode_steps is not None


def _has_distractors_itself(spec: EnvSpec) -> bool:
    """Tell whether it is one of our ids for Atari games, which alter the raw frames."""
    if not spec.id.startswith("rims_rl/"):
        return False
    creator = load_env_creator(str(spec.entry_point))
    return isinstance(creator, type) and issubclass(creator, AtariGymEnv)


def _distracted(name: str, env: VecEnv, distractors: Distractors) -> VecEnv:
    """Return an environment behind distractors, or close it and raise ConfigError where none can be."""
    try:
        return VecDistractor(env, distractors)
    except ConfigError as error:
        env.close()
        raise ConfigError(f"{name}: {error}") from None


def _find_spec(name: str) -> EnvSpec:
    """Return the registered spec that `name` means, or raise UnknownNameError; imports nothing that a name asks for."""
    if ":" in name:
        raise ConfigError(f"environment {shortened(name)} names a module, which a name may not run; {_IMPORT_IT}")
    try:
        return gym.spec(ALIASES.get(name.lower(), name))
    except (gym.error.Error, ModuleNotFoundError):
        ours = [*ALIASES, *game_names()]
        theirs = [known for known in gym.registry if not is_atari(known)]
        raise UnknownNameError("environment", name, ours + theirs) from None


def _make_one(spec: EnvSpec, env_kwargs: dict[str, Any], seed: int | None) -> Monitor:
    """Build one monitored copy whose action space has this seed; what its constructor refuses becomes one line."""
    try:
        env = monitored(gym.make(spec, **env_kwargs))
    except Exception as problem:  # whatever a constructor makes of settings that it can't work with
        with_what = f" with {shortened(env_kwargs)}" if env_kwargs else ""
        raise ConfigError(f"{spec.id} can't be made{with_what}: {said(problem)}") from problem
    if seed is not None:
        env.action_space.seed(seed)
    return env


def _accepted_by(spec: EnvSpec) -> list[str] | None:
    """Return the keywords that the environment and `gymnasium.make` take, or None when it takes any."""
    if spec.entry_point is None:
        return None
    try:
        creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    except (ImportError, AttributeError, gym.error.Error):
        return None  # making it will say what is missing
    own = _parameters(creator)
    return None if own is None else [*own, *_MAKE_KEYWORDS]


def _parameters(function: Callable[..., Any], *, keyword_only: bool = False) -> list[str] | None:
    """Return the names of the parameters that can be given by keyword, or None when any can."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [item.name for item in parameters if not keyword_only or item.kind == item.KEYWORD_ONLY]


def _check_kwargs(name: str, env_kwargs: dict[str, Any], known: list[str] | None) -> None:
    """Raise ConfigError for a keyword that is not among the known ones; None means that any is."""
    for key in env_kwargs:
        if known is not None and key not in known:
            raise ConfigError(f"{name} takes no environment setting {key!r}; {nearest_names(key, known)}")
