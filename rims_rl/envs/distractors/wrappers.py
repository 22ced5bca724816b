"""Distractors on any environment whose observations, or rendered frames, are RGB pictures (H, W, 3) uint8."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.utils import RecordConstructorArgs
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from rims_rl.envs.distractors.distraction import Distraction
from rims_rl.envs.distractors.distractor import AnyDistractor, as_distractors, as_plain
from rims_rl.envs.distractors.effect import Screen
from rims_rl.envs.distractors.looks import Frame
from rims_rl.envs.games import resolve_game
from rims_rl.envs.protocols import check_count
from rims_rl.errors import ConfigError


class DistractorWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Alters the RGB observations of an environment, and its rendered frames alike.

    Args:
        env: an environment with RGB observations, or with `from_render` one whose `render_mode` is "rgb_array".
        distractor: a text, a `Distractor`, plain data, or several; the environment's spec keeps it as plain data.
        split: train or held-out instead of what `distractor` says.
        game: the Atari game, for its background colours; otherwise each episode's first frame tells them.
        from_render: whether the rendered frame becomes the observation.

    Raises:
        ConfigError: when there are no RGB pictures to alter.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        distractor: AnyDistractor,
        split: str | None = None,
        game: str | None = None,
        from_render: bool = False,
    ) -> None:
        distractors = as_distractors(distractor, split)
        RecordConstructorArgs.__init__(self, distractor=as_plain(distractors), game=game, from_render=from_render)
        gym.Wrapper.__init__(self, env)
        self._from_render = from_render
        self._distractors, self._game = distractors, None if game is None else resolve_game(game)
        if from_render:
            env.reset()  # there is nothing to render before
            self.observation_space = Box(0, 255, self._rendered().shape, np.uint8)
        shape = _rgb_shape(self.observation_space, "use from_render=True for its rendered frames")
        self._distraction = Distraction(distractors, Screen(*shape, self._game))
        self._of_render: Distraction | None = None
        self._started = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Reset the environment; a seed begins the distractors' first episode, None their next one."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._distraction.begin(self.unwrapped.np_random_seed if seed is None else seed, anew=seed is not None)
        self._started = True
        return self._altered(observation), info

    def step(self, action: Any) -> tuple[Frame, Any, bool, bool, dict[str, Any]]:
        """Step the environment and alter what is seen; rewards and ends are its own."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._altered(observation), reward, terminated, truncated, info

    def render(self) -> Any:
        """Return the rendered frame, altered as the last observation was; other kinds of render stay as they are."""
        frame = self.env.render()
        if not (isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3 and self._started):
            return frame
        if frame.shape == self.observation_space.shape:
            return self._distraction.again(frame)
        if self._of_render is None:
            self._of_render = Distraction(self._distractors, Screen(frame.shape[0], frame.shape[1], self._game))
        self._of_render.follow(self._distraction)
        return self._of_render.again(frame)

    def _altered(self, observation: Any) -> Frame:
        """Return the observation, or the rendered frame in its place, altered."""
        return self._distraction(self._rendered() if self._from_render else observation)

    def _rendered(self) -> Frame:
        """Return the environment's rendered frame."""
        frame = self.env.render()
        if not (isinstance(frame, np.ndarray) and frame.ndim == 3):
            raise ConfigError("from_render needs an environment made with render_mode='rgb_array'")
        return frame


class VecDistractor(VecEnvWrapper):
    """Alters the RGB observations (n, H, W, 3) of an SB3 `VecEnv`, copy i from seed + i.

    Args:
        venv: environments with RGB observations.
        distractor: a text, a `Distractor`, plain data, or several.
        split: train or held-out instead of what `distractor` says.
        seed: of the distractors; `seed()` sets it too.
        game: the Atari game, for its background colours; otherwise each episode's first frame tells them.
    """

    def __init__(
        self,
        venv: VecEnv,
        distractor: AnyDistractor,
        split: str | None = None,
        seed: int = 0,
        game: str | None = None,
    ) -> None:
        super().__init__(venv)
        check_count("seed", seed, 0)
        shape = _rgb_shape(venv.observation_space, "put the distractors below whatever changes the pictures")
        screen = Screen(*shape, None if game is None else resolve_game(game))
        distractors = as_distractors(distractor, split)
        self._distractions = [Distraction(distractors, screen) for _ in range(venv.num_envs)]
        self._next_seed: int | None = seed

    def seed(self, seed: int | None = None) -> Any:
        """Seed the environments and the distractors, from the next reset on."""
        seeds = self.venv.seed(seed)
        self._next_seed = self._next_seed if seeds[0] is None else int(seeds[0])
        return seeds

    def reset(self) -> VecEnvObs:
        """Reset all copies; return their observations (n, H, W, 3)."""
        observations = self.venv.reset()
        for index, distraction in enumerate(self._distractions):
            if self._next_seed is None:
                distraction.next_episode()
            else:
                distraction.start(self._next_seed + index)
        self._next_seed = None
        return self._altered(observations)

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step; where an episode ended, its last observation belongs to it and the next begins."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for index in np.flatnonzero(dones):
            last = infos[index].get("terminal_observation")
            if last is not None:
                infos[index]["terminal_observation"] = self._distractions[index](last)
            self._distractions[index].next_episode()
        return self._altered(observations), rewards, dones, infos

    def _altered(self, observations: VecEnvObs) -> Frame:
        """Return the observations (n, H, W, 3) altered."""
        return np.stack(
            [alter(frame) for alter, frame in zip(self._distractions, np.asarray(observations), strict=True)]
        )


def _rgb_shape(space: Space[Any], advice: str) -> tuple[int, int]:
    """Return the height and width of RGB observations, or raise ConfigError."""
    if not (isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3):
        raise ConfigError(f"distractors need RGB observations (height, width, 3) of uint8, got {space}; {advice}")
    return space.shape[0], space.shape[1]
