"""The door to Atari: `make_atari_env` checks every argument, then builds the environments by one of two routes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.envs.distractors.distractor import AnyDistractor, Distractors, as_distractors, as_plain
from rims_rl.envs.emulator import load_emulator
from rims_rl.envs.gym_route import AtariGymEnv, check_variant
from rims_rl.envs.protocols import ROUTES, AtariSettings, check_count
from rims_rl.envs.variants import VariantAtariEnv, check_switches, parse_variant
from rims_rl.envs.vec_envs import AtariDummyVecEnv, AtariWatchedVecEnv
from rims_rl.envs.vector_route import AtariVecEnv
from rims_rl.envs.watched import Patience, asked_patience
from rims_rl.errors import ConfigError, UnknownNameError

_MOST_SEED = 2**32 - 1  # the largest one that Stable-Baselines3 draws


def make_atari_env(
    game: str,
    n_envs: int = 8,
    seed: int | None = 0,
    protocol: str = "nature",
    route: str = "vector",
    frame_stack: int = 4,
    *,
    training: bool = True,
    mode: int | None = None,
    difficulty: int | None = None,
    terminal_on_life_loss: bool | None = None,
    clip_rewards: bool | None = None,
    max_frames: int = 108_000,
    noop_max: int = 30,
    distractor: AnyDistractor = None,
    distractor_split: str | None = None,
    variant: str | None = None,
    subprocess: bool = False,
    step_timeout: float | None = 60.0,
    env_restarts: int = 3,
) -> VecEnv:
    """Return `n_envs` copies of an Atari game as one SB3 `VecEnv` of observations (frame_stack, 84, 84) uint8.

    Args:
        game: any game that ale-py ships for one player, in any spelling (pong, ALE/Pong-v5, PongNoFrameskip-v4).
        n_envs: copies played side by side.
        seed: copy i is seeded with seed + i at the first reset; None leaves the random streams unseeded.
        protocol: "nature" (no sticky actions, a lost life ends the return in training, minimal actions) or "machado"
            (sticky 0.25, no life signal, all 18 actions).
        route: "vector" (C++, fast) or "gym" (one Python environment per copy: modes, raw frames, exact snapshots).
        frame_stack: frames per observation, the newest last.
        training: True: the protocol's life signal, rewards reduced to their sign. False: full games, raw rewards.
        mode: ALE game mode, on route "gym" only.
        difficulty: ALE difficulty switch, on route "gym" only.
        terminal_on_life_loss: overrides whether a lost life is reported as done.
        clip_rewards: overrides whether rewards are reduced to their sign.
        max_frames: emulated frames after which a game is truncated.
        noop_max: a game starts after 0 to noop_max - 1 frames without input, FIRE included where it is pressed.
        distractor: what disturbs the agent's sight, for example "balls:0.5+noise:0.2", or a `Distractor`; see
            `rims_rl.envs.distractors`. Copy i draws it from seed + i and its number of finished games.
        distractor_split: "train" or "held-out" instead of what `distractor` says.
        variant: modes, difficulties and changes of the game's RAM, on route "gym" only, such as "mode:1+lazy_enemy";
            see `rims_rl.envs.variants`.
        subprocess: on route "gym", run each copy in a process of its own, see `rims_rl.envs.watched`.
        step_timeout: with subprocess, seconds after which a copy that has not answered is replaced; None: never.
        env_restarts: with subprocess, how often each copy may be replaced; 0: its first fault is raised.

    Raises:
        ConfigError: one line on the first argument that cannot work, before any environment is built;
            UnknownNameError, with the nearest names, for an unknown game, protocol or route.
        EnvironmentFault: from the VecEnv, when a copy raises, dies or hangs once more than it may be replaced.
    """
    settings = AtariSettings(
        game, protocol, frame_stack, training, terminal_on_life_loss, clip_rewards, max_frames, noop_max
    )
    _check_rest(route, n_envs, seed)
    patience = asked_patience(subprocess, step_timeout, env_restarts)
    distractors = as_distractors(distractor, distractor_split)
    changes = {"mode": mode, "difficulty": difficulty, "variant": variant}
    if route == "vector":
        _refuse_on_vector(changes, subprocess)
        env: VecEnv = AtariVecEnv(settings, n_envs, distractors)
    else:
        env = _make_gym_route(settings, n_envs, changes, distractors, patience if subprocess else None)
    if seed is not None:
        env.seed(seed)
    return env


def _check_rest(route: str, n_envs: int, seed: int | None) -> None:
    """Raise ConfigError for arguments that `AtariSettings` doesn't know."""
    if route not in ROUTES:
        raise UnknownNameError("route", route, ROUTES)
    check_count("n_envs", n_envs, 1)
    if seed is not None:
        check_count("seed", seed, 0, _MOST_SEED)


def _refuse_on_vector(changes: dict[str, Any], subprocess: bool) -> None:
    """Raise ConfigError for what only the gym route can do."""
    asked = [name for name, value in changes.items() if value is not None] + ["subprocess"] * subprocess
    if asked:
        raise ConfigError(f"{' and '.join(asked)}: not available on route 'vector', use route='gym'")


def _make_gym_route(
    settings: AtariSettings,
    n_envs: int,
    changes: dict[str, Any],
    distractors: Distractors,
    patience: Patience | None,
) -> AtariDummyVecEnv | AtariWatchedVecEnv:
    """Build the copies of the gym route, in this process where there is no patience; changes are checked here."""
    kind, keywords = _changed_game(settings.game, changes)
    make: Callable[[], AtariGymEnv] = partial(kind, **_plain(settings), **keywords, distractor=as_plain(distractors))
    makers: list[Callable[[], gym.Env[Any, Any]]] = [make] * n_envs
    return AtariDummyVecEnv(makers) if patience is None else AtariWatchedVecEnv(makers, patience)


def _changed_game(game: str, changes: dict[str, Any]) -> tuple[type[AtariGymEnv], dict[str, Any]]:
    """Return the class and its keywords for a game with these changes; raises ConfigError for what it does not have."""
    switches = {name: changes[name] for name in ("mode", "difficulty")}
    if any(value is not None for value in switches.values()):
        check_variant(load_emulator(game), game, **switches)
    if changes["variant"] is None:
        return AtariGymEnv, switches
    check_switches(parse_variant(game, changes["variant"]), **switches)
    return VariantAtariEnv, changes


def _plain(settings: AtariSettings) -> dict[str, Any]:
    """Return the settings as `AtariGymEnv`'s keyword arguments."""
    return {name: value for name, value in vars(settings).items() if name != "rules"}
