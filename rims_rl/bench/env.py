"""The environments alone: our routes against SB3's, same preprocessing and frame stack, the same random actions.

With distractors, our routes that have them against the same without.
"""

from __future__ import annotations

import multiprocessing
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.bench.config import EnvBenchConfig
from rims_rl.bench.measure import Rounds, Say, Work, interleaved, median_ratio, medians
from rims_rl.bench.memory import peak_memory
from rims_rl.bench.peers import FRAME_STACK, sb3_env
from rims_rl.bench.results import MOST_WORKERS, EnvResult, SpeedRow
from rims_rl.envs import make_env
from rims_rl.envs.protocols import FRAME_SKIP

Route = Literal["vector", "gym", "dummy", "subproc"]
NAMES: dict[Route, str] = {
    "vector": "ours, route vector",
    "gym": "ours, route gym",
    "dummy": "SB3, DummyVecEnv",
    "subproc": "SB3, SubprocVecEnv",
}
OURS: tuple[Route, ...] = ("vector", "gym")
PEERS: tuple[Route, ...] = ("dummy", "subproc")
_IMPORTED_BY_WORKERS = ["rims_rl.bench.peers"]


@dataclass(frozen=True)
class EnvTurn:
    """Environments that are stepped with random actions."""

    route: Route
    """Which."""
    game: str
    """In any spelling."""
    n_envs: int
    """Copies."""
    steps: int
    """Steps of each copy in one turn."""
    seed: int = 0
    """Of the games and the actions."""
    distractor: str | None = None
    """What disturbs the agent's sight, on our routes."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return NAMES[self.route] + (f" + {self.distractor}" if self.distractor else "")

    def build(self) -> VecEnv:
        """Return the environments."""
        if self.route in ("vector", "gym"):
            return make_env(
                self.game, self.n_envs, self.seed, route=self.route, frame_stack=FRAME_STACK, distractor=self.distractor
            )
        return sb3_env(self.game, self.n_envs, self.seed, subprocess=self.route == "subproc")

    def actions(self, count: int) -> NDArray[np.int64]:
        """Return the actions of one turn, (steps, n_envs), the same for all routes."""
        return np.random.default_rng(self.seed).integers(count, size=(self.steps, self.n_envs))

    def turn(self, env: VecEnv) -> Work:
        """Start the games, and return one turn."""
        env.reset()
        actions = self.actions(int(env.action_space.n))  # type: ignore[attr-defined]

        def play() -> None:
            for chosen in actions:
                env.step(chosen)

        return play

    def __call__(self) -> Work:
        """Build the environments, start the games, and return one turn."""
        return self.turn(self.build())


def measure_environments(config: EnvBenchConfig, say: Say) -> EnvResult:
    """Measure every route at every number of copies."""
    # SB3's workers come from a server process: with its imports done, 64 of them start in seconds instead of minutes.
    multiprocessing.set_forkserver_preload(_IMPORTED_BY_WORKERS)
    rows = [row for n_envs in dict.fromkeys(config.n_envs) for row in _measured(config, n_envs, say)]
    peers = OURS if config.distractor else PEERS
    return EnvResult(rows, [NAMES[route] for route in peers], FRAME_SKIP)


def _turns(config: EnvBenchConfig, n_envs: int) -> list[EnvTurn]:
    """Return all that is measured in turns: every route, or our routes with and without distractors."""
    steps = config.n_steps // n_envs
    if config.distractor is None:
        return [EnvTurn(route, config.env, n_envs, steps) for route in NAMES]
    shown = (None, config.distractor)
    return [EnvTurn(route, config.env, n_envs, steps, distractor=seen) for route in OURS for seen in shown]


def _measured(config: EnvBenchConfig, n_envs: int, say: Say) -> list[SpeedRow]:
    """Measure all of them in turns."""
    turns = _turns(config, n_envs)
    with ExitStack() as stack:
        works = []
        for turn in turns:
            say(f"{n_envs} x {turn.name}: starting")
            env = turn.build()
            stack.callback(env.close)
            works.append(turn.turn(env))
        rounds = interleaved(works, config.repeats, warm_ups=1, before=lambda which: say(f"{n_envs} copies: {which}"))
    return [_row(turns, mine, rounds, config, say) for mine in range(len(turns))]


def _row(turns: list[EnvTurn], mine: int, rounds: Rounds, config: EnvBenchConfig, say: Say) -> SpeedRow:
    """Return what the rounds say of one of them, beside all that ratios are taken to."""
    turn, names = turns[mine], [turn.name for turn in turns]
    speed = turn.n_envs * turn.steps / medians(rounds)[mine]
    peers = [NAMES[route] for route in (OURS if config.distractor else PEERS)]
    ratios = {peer: median_ratio(rounds, names.index(peer), mine) for peer in peers}
    seconds = [found[mine] for found in rounds]
    return SpeedRow(turn.name, turn.route, turn.n_envs, speed, ratios, _memory(turn, config, say), seconds)


def _memory(turn: EnvTurn, config: EnvBenchConfig, say: Say) -> float | None:
    if not config.memory or (turn.route == "subproc" and turn.n_envs > MOST_WORKERS):
        return None
    say(f"{turn.n_envs} x {turn.name}: memory")
    return peak_memory(turn)
