"""Evaluation: full games, raw scores, and everything that a reader needs to trust them."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.agents.rebuilding import MOST_UNSAVED, numbers_to_play
from rims_rl.agents.updates import memory_explained
from rims_rl.building import check_split_has_distractor, env_settings
from rims_rl.config import AS_TRAINED, EvaluateConfig, TrainConfig
from rims_rl.envs import is_atari, make_env, resolve_game
from rims_rl.envs.distractors.distractor import AnyDistractor
from rims_rl.envs.make import has_step_limit
from rims_rl.envs.protocols import FRAME_SKIP
from rims_rl.errors import ConfigError, printable
from rims_rl.loading import load_agent, locate
from rims_rl.runs import describe_run, load_config
from rims_rl.scores import human_normalised
from rims_rl.storage.plain_files import check_target, write_json
from rims_rl.validation import check_seed

if TYPE_CHECKING:
    from rims_rl.agents import RIMPolicy

ATARI_STEPS = 27_000
"""Half an hour of play, the usual limit of Atari evaluations."""
OTHER_STEPS = 100_000
"""Limit for environments without one of their own, and the largest that a run's settings can ask for."""
CHANGES = ("variant", "mode", "difficulty")
"""Settings by which an Atari game is another one than the usual."""
_SHOWN_RULES = ("distractor", "distractor_split", *CHANGES)
_TRAINING_ONLY = frozenset({"terminal_on_life_loss", "clip_rewards"})
_OF_WORKERS = frozenset({"subprocess", "step_timeout", "env_restarts"})


class Episode(NamedTuple):
    """One full game."""

    score: float
    """Sum of raw rewards."""
    length: int
    """Steps."""
    truncated: bool
    """Whether a time limit cut it."""


@dataclass(frozen=True)
class Evaluation:
    """What an agent scored, and under which rules."""

    episodes: list[Episode]
    """The games."""
    seconds: float
    """Wall-clock time that they took."""

    @property
    def scores(self) -> np.ndarray:
        """Raw scores of the games, (episodes,)."""
        return np.array([episode.score for episode in self.episodes], dtype=np.float64)

    @property
    def steps(self) -> int:
        """Steps of all games together."""
        return sum(episode.length for episode in self.episodes)

    def summary(self) -> dict[str, Any]:
        """Return mean, spread and extremes of the scores, lengths, and how many games were cut."""
        scores = self.scores
        return {
            "mean": float(scores.mean()),
            "std": float(scores.std(ddof=1)) if len(scores) > 1 else 0.0,
            "median": float(np.median(scores)),
            "min": float(scores.min()),
            "max": float(scores.max()),
            "mean_length": self.steps / len(self.episodes),
            "episodes": len(self.episodes),
            "truncated": sum(episode.truncated for episode in self.episodes),
        }


def play_episodes(
    policy: RIMPolicy,
    env: VecEnv,
    episodes: int,
    *,
    deterministic: bool = False,
    seed: int = 0,
    most_seconds: float | None = None,
) -> Evaluation:
    """Play full games with a fixed share of them for each copy, so that short games do not crowd out long ones.

    Args:
        policy: the agent; its memory is wiped where the environment reports done.
        env: evaluation environments; "episode" in their infos marks a real end and holds the raw score.
        episodes: games to play, spread evenly over the copies.
        deterministic: take the likeliest action instead of sampling one.
        seed: seed of the sampling; torch's own random state stays as it was.
        most_seconds: once these are over, games that go on are cut and no other begins.
    """
    began = time.monotonic()
    until = float("inf") if most_seconds is None else began + most_seconds
    with fewer_games_advised(env.num_envs), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        played = _play(policy, env, shares(episodes, env.num_envs), deterministic, until)
    return Evaluation([episode for games in played for episode in games], time.monotonic() - began)


def fewer_games_advised(copies: int) -> AbstractContextManager[None]:
    """Turn running out of memory in the body, which plays so many games at once, into one line."""
    return memory_explained(
        "playing", lambda: f"play fewer games at once (now {copies}), or where there is more memory"
    )


def shares(episodes: int, copies: int) -> list[int]:
    """Return how many of the episodes each copy plays: as equal as can be."""
    return [(episodes + index) // copies for index in range(copies)]


def _play(policy: RIMPolicy, env: VecEnv, wanted: list[int], deterministic: bool, until: float) -> list[list[Episode]]:
    """Return for each copy its first `wanted` games; those that go on at the time `until` are cut."""
    played: list[list[Episode]] = [[] for _ in wanted]
    observations: Any = env.reset()
    state: tuple[np.ndarray, ...] | None = None
    starts = np.ones(env.num_envs, dtype=bool)
    scores, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    while any(len(games) < share for games, share in zip(played, wanted, strict=True)):
        actions, state = policy.predict(observations, state, starts, deterministic)
        observations, rewards, starts, infos = env.step(actions)
        scores, lengths = scores + rewards, lengths + 1
        is_over = time.monotonic() > until
        for index, (games, share, info) in enumerate(zip(played, wanted, infos, strict=True)):
            if "episode" in info and len(games) < share:
                games.append(_finished(info))
            elif is_over and len(games) < share:
                games.append(Episode(float(scores[index]), int(lengths[index]), True))
            if "episode" in info or "worker_restarted" in info:
                scores[index], lengths[index] = 0.0, 0
        if is_over:
            break
    return played


def _finished(info: dict[str, Any]) -> Episode:
    statistics = info["episode"]
    return Episode(float(statistics["r"]), int(statistics["l"]), bool(info.get("TimeLimit.truncated", False)))


class View(NamedTuple):
    """What of its world an evaluated agent sees changed."""

    distractor: AnyDistractor = AS_TRAINED
    """Distractors; "trained" stands for those of the training, "none" or None for none."""
    split: str | None = None
    """train or held-out instead of what the distractors say; None leaves it."""
    variant: str | None = None
    """A variant of an Atari game; "none" for the game itself, None for that of the training."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the environment that differ from the training's."""
        found: dict[str, Any] = {}
        if self.distractor != AS_TRAINED:
            found |= {"distractor": None if self._shows_nothing else self.distractor, "distractor_split": None}
        if self.split is not None:
            found["distractor_split"] = self.split
        return found | self._changes

    @property
    def text(self) -> str:
        """What is changed, in one word such as balls:0.5_held-out; empty for the view of the training."""
        seen = "none" if self._shows_nothing else self.distractor
        names = [] if self.distractor == AS_TRAINED else [f"distractor-{seen}"]
        names += [] if self.split is None else [self.split]
        return "_".join([*names, *([] if self.variant is None else [self.variant or "none"])])

    @property
    def _shows_nothing(self) -> bool:
        return str(self.distractor).lower() == "none"

    @property
    def _changes(self) -> dict[str, Any]:
        """The settings of another variant than the training's."""
        if self.variant is None:
            return {}
        if self.variant.lower() in ("", "none"):
            return dict.fromkeys(CHANGES)
        return {"variant": self.variant}


def evaluation_env(
    run: TrainConfig,
    n_envs: int,
    seed: int,
    *,
    max_steps: int | None = None,
    protocol: str | None = None,
    route: str | None = None,
    view: View = View(),  # noqa: B008 - a NamedTuple does not change
    **env_kwargs: Any,
) -> VecEnv:
    """Return the run's environment for evaluation: full games, raw scores, cut after `max_steps`.

    A variant of an Atari game is played on the route gym, unless `route` says otherwise.

    Raises:
        ConfigError: when the environment can't be made so.
    """
    settings = {key: value for key, value in env_settings(run).items() if key not in _TRAINING_ONLY}
    settings |= view.settings | env_kwargs
    check_split_has_distractor(settings)
    protocol, route = protocol or run.protocol, route or _route(run, view.variant)
    if is_atari(run.env) and route == "vector":
        settings = {key: value for key, value in settings.items() if key not in _OF_WORKERS}
    if is_atari(run.env):
        settings["max_frames"] = FRAME_SKIP * (max_steps or ATARI_STEPS)
        if run.reset_memory_on_life_loss and run.protocol == "nature":
            settings["terminal_on_life_loss"] = True  # the memory is wiped there as it was in training
    elif max_steps is not None:
        settings["max_episode_steps"] = max_steps
    elif not _ends(settings.get("max_episode_steps"), run.env):
        settings["max_episode_steps"] = OTHER_STEPS
    return make_env(
        run.env, n_envs, seed, protocol=protocol, route=route, frame_stack=run.frame_stack, training=False, **settings
    )


def _ends(limit: Any, env: str) -> bool:
    """Whether this limit, or without one the environment's own, ends a game; Gymnasium takes -1 for no limit at all."""
    if isinstance(limit, int | float):
        return 0 < limit <= OTHER_STEPS
    return limit is not None or has_step_limit(env)


def step_limit(run: TrainConfig) -> int:
    """Return the steps after which a game of an evaluation during training is cut."""
    return ATARI_STEPS if is_atari(run.env) else OTHER_STEPS


def check_spaces(policy: RIMPolicy, env: VecEnv) -> None:
    """Raise ConfigError when a policy was trained with other actions or observations, or is too large for as many."""
    if policy.action_space != env.action_space:
        raise ConfigError(
            f"the agent was trained with actions {policy.action_space}, but the environment takes {env.action_space}; "
            "evaluate it with the protocol of its training"
        )
    seen, shown = (_shapes(space) for space in (policy.observation_space, env.observation_space))
    if seen != shown:
        raise ConfigError(f"the agent was trained with observations {seen}, but the environment shows {shown}")
    numbers = env.num_envs * numbers_to_play(policy)
    if numbers > MOST_UNSAVED:
        raise ConfigError(
            f"{env.num_envs} games at once take {numbers:,} numbers, at most {MOST_UNSAVED:,}: play fewer"
        )


def _shapes(space: Any) -> Any:
    """Return an observation space's shapes and types, axes in rising order: SB3 turns images with the channels last."""
    if hasattr(space, "spaces"):
        return {name: _shapes(part) for name, part in space.spaces.items()}
    return tuple(sorted(space.shape or ())), str(space.dtype)


def evaluate_run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a run's agent, print a table, write the result as JSON and return it.

    Raises:
        ConfigError: for a folder without a run, or settings that can't work.
        CheckpointError: when the weights can't be read.
    """
    _check(config)
    folder, which = locate(config.run, config.checkpoint)
    run = load_config(folder)
    agent = load_agent(folder, which, config.device, trust_pickle=config.trust_pickle)
    copies = min(config.n_envs, config.episodes)
    view = View(config.distractor, config.distractor_split, config.variant)
    env = evaluation_env(
        run, copies, config.seed, max_steps=config.max_episode_steps, protocol=config.protocol, route=config.route,
        view=view,
    )  # fmt: skip
    try:
        check_spaces(agent.policy, env)
        evaluation = play_episodes(
            agent.policy, env, config.episodes, deterministic=config.deterministic, seed=config.seed,
            most_seconds=None if config.max_minutes is None else 60 * config.max_minutes,
        )  # fmt: skip
    finally:
        env.close()
    about = {**describe_run(folder, run), "checkpoint": agent.name, "trained_steps": agent.step}
    result = {**about, **_rules(config, run), **evaluation.summary(), **_relative(config, run, evaluation)}
    result |= {"steps_per_second": evaluation.steps / max(evaluation.seconds, 1e-9), "n_envs": copies}
    games = [game._asdict() for game in evaluation.episodes]
    write_json(config.json or folder.evaluation_of(view.text), result | {"games": games})
    print_result(result)
    return result


def _check(config: EvaluateConfig) -> None:
    counts = {"episodes": config.episodes, "n-envs": config.n_envs}
    if config.max_episode_steps is not None:
        counts["max-episode-steps"] = config.max_episode_steps
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"--{name} must be at least 1, got {count}")
    check_seed(config.seed, "--seed")
    if config.max_minutes is not None and not 0 < config.max_minutes < float("inf"):
        raise ConfigError(f"--max-minutes must be above 0, got {config.max_minutes}")
    if config.json is not None:
        check_target("--json", config.json)


def _rules(config: EvaluateConfig, run: TrainConfig) -> dict[str, Any]:
    """Return the rules under which the games were played."""
    rules: dict[str, Any] = {"actions": "likeliest" if config.deterministic else "sampled", "games_seed": config.seed}
    seen = {**env_settings(run), **View(config.distractor, config.distractor_split, config.variant).settings}
    rules |= {name: seen[name] for name in _SHOWN_RULES if seen.get(name) is not None}
    if is_atari(run.env):
        rules |= {"protocol": config.protocol or run.protocol, "route": config.route or _route(run, config.variant)}
        rules |= {"max_episode_steps": config.max_episode_steps or ATARI_STEPS}
    elif config.max_episode_steps is not None:
        rules |= {"max_episode_steps": config.max_episode_steps}
    return rules


def _route(run: TrainConfig, variant: str | None) -> str:
    """Return how a run's games are evaluated: as they were trained, but variants on the route that has them."""
    return run.route if variant is None or variant.lower() in ("", "none") else "gym"


def _relative(config: EvaluateConfig, run: TrainConfig, evaluation: Evaluation) -> dict[str, float]:
    """Return the human-normalised score, for games that have one and were neither changed nor cut short."""
    is_cut = (config.max_episode_steps or ATARI_STEPS) < ATARI_STEPS
    settings = {**run.env_kwargs, **View(variant=config.variant).settings}
    if not is_atari(run.env) or is_cut or any(settings.get(name) is not None for name in CHANGES):
        return {}
    relative = human_normalised(resolve_game(run.env), float(evaluation.scores.mean()))
    return {} if relative is None else {"human_normalised": relative}


def print_result(result: dict[str, Any]) -> None:
    """Print a result as a table: the score, then how it came about."""
    from rich import box, get_console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.ROUNDED, show_header=False, border_style="dim", title_justify="left")
    game, steps = escape(printable(result["env"])), f"{result['trained_steps']:,} steps of training"
    table.title = f"[bold]{game}[/bold], {result['core']}, {steps}"
    for name, text in _lines(result):
        table.add_row(name, text)
    get_console().print(table)


def _lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table's rows."""
    from rich.markup import escape

    lines = [("score", f"[bold]{result['mean']:,.2f}[/bold] ± {result['std']:,.2f} (mean ± standard deviation)")]
    lines += [("median", f"{result['median']:,.2f}"), ("range", f"{result['min']:,.2f} to {result['max']:,.2f}")]
    if "human_normalised" in result:
        lines.append(("human-normalised", f"{result['human_normalised']:.1%} (random play 0 %, human tester 100 %)"))
    cut = f", {result['truncated']} cut by the limit" if result["truncated"] else ", none cut"
    lines.append(("episodes", f"{result['episodes']}{cut}; {result['mean_length']:,.0f} steps on average"))
    if "protocol" in result:
        lines.append(("protocol", f"{result['protocol']}, route {result['route']}"))
    lines += [(name.replace("_", " "), escape(printable(str(result[name])))) for name in _SHOWN_RULES if name in result]
    lines += [("actions", f"{result['actions']}, seed {result['games_seed']}"), ("weights", str(result["checkpoint"]))]
    lines.append(("speed", f"{result['steps_per_second']:,.0f} steps/s"))
    return lines
