"""An episode step by step, with what each step has to show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rims_rl.config import TrainConfig
from rims_rl.drawing import Image, Moment
from rims_rl.envs import is_atari, resolve_game
from rims_rl.envs.gym_route import load_emulator
from rims_rl.envs.protocols import SCREEN_SIZE, get_protocol
from rims_rl.errors import ConfigError

if TYPE_CHECKING:
    from rims_rl.agents import RIMPolicy


_GREY = (SCREEN_SIZE, SCREEN_SIZE)


class Step(NamedTuple):
    """One step of an episode: what to show of it, and what it led to."""

    moment: Moment
    """The picture's content."""
    score: float
    """Raw score after the step."""
    done: bool
    """Whether the episode ended with it."""


def play(
    policy: RIMPolicy, env: VecEnv, seed: int = 0, deterministic: bool = False, names: Sequence[str] = ()
) -> Iterator[Step]:
    """Play one episode and yield its steps; torch's own random state stays as it was.

    Args:
        policy: the agent.
        env: one environment that can render.
        seed: seed of the sampled actions.
        deterministic: take the likeliest action instead of sampling one.
        names: the actions' names; without them their numbers are shown.
    """
    generator_state = torch.Generator().manual_seed(seed).get_state()
    observation: Any = env.reset()
    state, starts = policy.initial_state(1).detach(), torch.ones(1, dtype=torch.bool)
    score, step, done = 0.0, 0, False
    while not done:
        frame = picture(env)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator_state)
            tensor, _ = policy.obs_to_tensor(observation)
            starts = starts.to(policy.device)
            distribution, value, state, found = policy.diagnose_step(tensor, state, starts)
            action = distribution.get_actions(deterministic=deterministic).cpu().numpy()
            generator_state = torch.get_rng_state()
        before = observation
        observation, rewards, dones, infos = env.step(_in_bounds(action, env))
        reward, done = float(rewards[0]), _is_over(bool(dones[0]), infos[0])
        starts = torch.as_tensor(dones)
        seen = _newest_frame(before)
        moment = Moment(frame, step, score, reward, value.item(), _name(action[0], names), **_shown(found), seen=seen)
        score, step = score + reward, step + 1
        yield Step(moment, score, done)


def _newest_frame(observation: Any) -> Image | None:
    """Return the newest grey frame of the first copy's observation; None where it is no stack of such frames."""
    if not isinstance(observation, np.ndarray) or observation.dtype != np.uint8 or observation.shape[2:] != _GREY:
        return None
    return np.asarray(observation[0, -1])


def _is_over(done: bool, info: dict[str, Any]) -> bool:
    return done and not info.get("life_lost", False)


def _in_bounds(action: np.ndarray, env: VecEnv) -> np.ndarray:
    """Return continuous actions brought into their bounds, as training does; others as they are."""
    low, high = getattr(env.action_space, "low", None), getattr(env.action_space, "high", None)
    return action if low is None or high is None else np.clip(action, low, high)


def _shown(found: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return of a step's diagnostics what a picture shows of them."""
    shown: dict[str, np.ndarray] = {
        name: found[name][0].cpu().numpy() for name in ("active", "null_attention") if name in found
    }
    attention = found.get("input_attention")  # (1, K, N)
    if attention is not None and "active" in found and attention.shape[-1] > 1:
        places = attention[0][found["active"][0]].mean(dim=0).cpu().numpy()
        if round(len(places) ** 0.5) ** 2 == len(places):
            shown["attention"] = places
    return shown


def action_names(run: TrainConfig, protocol: str | None = None) -> list[str]:
    """Return the names of an Atari game's actions; nothing for other environments."""
    if not is_atari(run.env):
        return []
    emulator = load_emulator(resolve_game(run.env))
    every_action = get_protocol(protocol or run.protocol).full_action_set
    actions = emulator.getLegalActionSet() if every_action else emulator.getMinimalActionSet()
    return [str(action.name) for action in actions]


def _name(action: Any, names: Sequence[str]) -> str:
    if np.ndim(action) == 0:
        return names[int(action)] if names else str(action)
    return " ".join(f"{part:.2f}" if isinstance(part, np.floating) else str(part) for part in np.ravel(action)[:3])


def picture(env: VecEnv) -> Image:
    """Return what the environment looks like now, (H, W, 3).

    Raises:
        ConfigError: when it can't show itself.
    """
    try:
        frame = env.env_method("render")[0]
    except DependencyNotInstalled as error:
        drawn = _drawn_cart(env)
        if drawn is None:
            raise ConfigError(f"this environment's picture needs another package: {str(error).split('.')[0]}") from None
        return drawn
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise ConfigError("this environment has no picture (render_mode rgb_array) to film")
    return np.asarray(frame, np.uint8)


def _drawn_cart(env: VecEnv) -> Image | None:
    """Draw CartPole without pygame, (400, 600, 3); None for any other environment."""
    inner = env.get_attr("unwrapped")[0]
    if not hasattr(inner, "theta_threshold_radians") or getattr(inner, "state", None) is None:
        return None
    position, _, angle, _ = (float(number) for number in inner.state)
    canvas = np.full((400, 600, 3), (23, 27, 36), np.uint8)
    middle, top = round(300 + position * 600 / (2 * inner.x_threshold)), 290
    tip = (round(middle + 2 * inner.length * 150 * np.sin(angle)), round(top - 2 * inner.length * 150 * np.cos(angle)))
    cv2.line(canvas, (0, 310), (600, 310), (70, 79, 98), 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (middle - 34, top - 14), (middle + 34, top + 18), (139, 149, 167), cv2.FILLED)
    cv2.line(canvas, (middle, top), tip, (230, 159, 0), 10, cv2.LINE_AA)
    cv2.circle(canvas, (middle, top), 6, (233, 237, 244), cv2.FILLED, cv2.LINE_AA)
    return canvas
