"""What is changed about an agent's world: one condition per kind of distractor, intensity and split, and others."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

import gymnasium as gym

from rims_rl.envs import is_atari
from rims_rl.envs.make import ALIASES
from rims_rl.envs.registration import CHANGED_TASKS
from rims_rl.envs.variants import parse_variant
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.evaluation import View
from rims_rl.experiments.robustness.config import RobustnessConfig


class Condition(NamedTuple):
    """One way in which the world differs from that of the training; the default differs in nothing."""

    kind: str | None = None
    """Kind of distractor; None for no distractor."""
    intensity: float = 0.0
    """How strong the distractor is."""
    split: str | None = None
    """Its looks and motions: train or held-out."""
    variant: str | None = None
    """A variant of an Atari game."""
    env: str | None = None
    """Another environment than the training's."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is changed."""
        return self == CLEAN

    @property
    def family(self) -> str:
        """What it is a case of: clean, train, held-out, variant or task."""
        if self.is_clean:
            return "clean"
        return self.split or ("variant" if self.variant is not None else "task")

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.kind is not None:
            return f"{self.kind} {shortest(self.intensity)}"
        return self.variant or self.env or "clean"

    @property
    def slug(self) -> str:
        """A name for files, different for all conditions."""
        env = None if self.env is None else file_name(self.env)
        parts = [self.kind, f"{self.intensity!r}" if self.kind else None, self.split, self.variant, env]
        return _plain("_".join(part for part in parts if part) or "clean")

    @property
    def view(self) -> View:
        """The view that an evaluation takes."""
        distractor = "none" if self.kind is None else f"{self.kind}:{self.intensity!r}"
        return View(distractor, self.split, self.variant)

    @property
    def dynamics(self) -> Condition:
        """The condition with the same dynamics in which random play is measured: distractors change nothing there."""
        return Condition(variant=self.variant, env=self.env)


def shortest(value: float) -> str:
    """Return the shortest text that stands for a number and for no other."""
    return repr(float(value)).removesuffix(".0")


def file_name(text: str) -> str:
    """Return a name for files that stands for a text: what a file can hold of it, and a checksum of all of it."""
    return f"{_plain(text).strip('-')}-{zlib.crc32(text.encode()):08x}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text)


CLEAN = Condition()
"""Nothing is changed: the game of the training without any distractor."""


def conditions_for(config: RobustnessConfig, env: str) -> list[Condition]:
    """Return all conditions for an environment, the clean one first.

    Raises:
        ConfigError: when there is nothing to change, or for a variant or task that does not exist.
    """
    found = _for_atari(config, env) if is_atari(env) else _for_task(config, env)
    if not found:
        raise ConfigError(f"{env}: nothing to change; give --kinds and --variants on Atari, --test-envs elsewhere")
    return [CLEAN, *found]


def _for_atari(config: RobustnessConfig, env: str) -> list[Condition]:
    distracted = [
        Condition(kind, intensity, split)
        for kind in config.kinds_shown
        for split in dict.fromkeys(config.splits)
        for intensity in sorted(set(config.intensities) - {0.0})
    ]
    changed: dict[str, str] = {}  # each once, however it is spelled
    for variant in config.variants:
        changed.setdefault(parse_variant(env, variant).text, variant)
    if "" in changed:
        raise ConfigError(f"the variant {changed['']!r} changes nothing: it is the game itself")
    return distracted + [Condition(variant=variant) for variant in changed.values()]


def _for_task(config: RobustnessConfig, env: str) -> list[Condition]:
    """Return changed tasks; distractors over pictures and variants of Atari games mean nothing here."""
    trained = ALIASES.get(env.lower(), env)
    tasks = config.test_envs or CHANGED_TASKS.get(trained, ())
    for task in tasks:
        if task not in gym.registry:
            raise UnknownNameError("environment", task, gym.registry)
    return [Condition(env=task) for task in dict.fromkeys(tasks) if task != trained]
