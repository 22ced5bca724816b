"""Whole agents: one rollout and one update, RIMPPO's against sb3-contrib's RecurrentPPO and SB3's PPO.

All agents play the same game with the same hyperparameters, and gradients flow back through whole rollouts. Ours run on
our default environments, the peers on SB3's as their users run them, and once more on ours, so that the algorithms
alone can be compared. Where the time goes is found in one more turn, so that no clock runs in those that count.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.agents import RIMPPO
from rims_rl.bench.config import TrainBenchConfig
from rims_rl.bench.measure import Rounds, Say, Work, interleaved, median_ratio, medians, seconds_of
from rims_rl.bench.memory import peak_memory
from rims_rl.bench.peers import FRAME_STACK, LSTM_SIZE, ppo, recurrent_ppo, sb3_env
from rims_rl.bench.results import SpeedRow, TrainResult
from rims_rl.envs import make_env

Algorithm = Literal["RIMPPO", "RecurrentPPO", "PPO"]
Route = Literal["vector", "sb3"]
ROUTES: dict[Route, str] = {"vector": "ours", "sb3": "SB3"}
HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 2.5e-4, "clip_range": 0.1, "gamma": 0.99, "gae_lambda": 0.95,
    "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5, "seed": 0,
}  # fmt: skip
"""The literature's PPO on Atari, without its falling schedules."""


@dataclass(frozen=True)
class Agent:
    """An algorithm with a memory, on some environments."""

    name: str
    """As the tables call it."""
    algorithm: Algorithm = "RIMPPO"
    """Whose."""
    route: Route = "vector"
    """Which environments."""
    core: str = "rim"
    """RIMPPO's memory."""
    core_settings: tuple[tuple[str, Any], ...] = ()
    """Its settings."""
    precision: str = "float32"
    """That of RIMPPO's encoder."""


OURS = (
    Agent("RIMPPO, RIM (LSTM)", core_settings=(("cell", "lstm"),)),
    Agent("RIMPPO, RIM (GRU)", core_settings=(("cell", "gru"),)),
    Agent("RIMPPO, RIM (LSTM), bf16", core_settings=(("cell", "lstm"),), precision="bfloat16"),
    Agent("RIMPPO, LSTM", core="lstm", core_settings=(("hidden_size", LSTM_SIZE),)),
    Agent("RIMPPO, GRU", core="gru", core_settings=(("hidden_size", LSTM_SIZE),)),
)
PEERS = (Agent("RecurrentPPO", "RecurrentPPO", "sb3"), Agent("PPO", "PPO", "sb3"))
PEERS_ON_OURS = (
    Agent("RecurrentPPO, our envs", "RecurrentPPO"),
    Agent("PPO, our envs", "PPO"),
)


@dataclass(frozen=True)
class AgentTurn:
    """An agent that takes one rollout and one update in a turn."""

    agent: Agent
    """Who."""
    game: str
    """In any spelling."""
    n_envs: int
    """Copies of the game."""
    n_steps: int
    """Steps of each copy in a rollout."""
    batch_size: int
    """Steps per minibatch."""
    n_epochs: int
    """Passes over a rollout."""
    device: str = "cpu"
    """Where the networks run."""

    def build(self) -> OnPolicyAlgorithm:
        """Return the agent with its environments."""
        env = self._environments()
        sizes = {"n_steps": self.n_steps, "batch_size": self.batch_size, "n_epochs": self.n_epochs}
        settings = {**HYPERPARAMETERS, **sizes, "device": self.device}
        if self.agent.algorithm == "RIMPPO":
            return _rimppo(self.agent, env, settings)
        return {"RecurrentPPO": recurrent_ppo, "PPO": ppo}[self.agent.algorithm](env, **settings)

    def _environments(self) -> VecEnv:
        if self.agent.route == "sb3":
            return sb3_env(self.game, self.n_envs, seed=0)
        return make_env(self.game, self.n_envs, 0, frame_stack=FRAME_STACK)

    def turn(self, model: OnPolicyAlgorithm) -> Work:
        """Return one turn of an agent that is built."""

        def learn() -> None:
            model.learn(self.n_envs * self.n_steps, reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)

        return learn

    def __call__(self) -> Work:
        """Build the agent and its environments, and return one turn."""
        return self.turn(self.build())


def _rimppo(agent: Agent, env: VecEnv, settings: dict[str, Any]) -> RIMPPO:
    policy = {"core": agent.core, "core_kwargs": dict(agent.core_settings), "encoder_precision": agent.precision}
    return RIMPPO("CnnRIMPolicy", env, policy_kwargs=policy, **settings)


def measure_training(config: TrainBenchConfig, say: Say) -> TrainResult:
    """Measure all agents in turns."""
    peers = PEERS + (PEERS_ON_OURS if config.same_env else ())
    turns = [_turn(agent, config) for agent in OURS + peers]
    with ExitStack() as stack:
        models = [_started(turn, stack, say) for turn in turns]
        works = [turn.turn(model) for turn, model in zip(turns, models, strict=True)]
        rounds = interleaved(works, config.repeats, warm_ups=1, before=lambda which: say(f"training: {which}"))
        say("where the time goes")
        splits = [split_of(model, work) for model, work in zip(models, works, strict=True)]
    rows = [_row(index, turns, rounds, config, say) for index in range(len(turns))]
    split = {turn.agent.name: found for turn, found in zip(turns, splits, strict=True)}
    return TrainResult(rows, [agent.name for agent in peers], split, config.n_envs * config.n_steps)


def _turn(agent: Agent, config: TrainBenchConfig) -> AgentTurn:
    sizes = (config.n_envs, config.n_steps, config.batch_size, config.n_epochs)
    return AgentTurn(agent, config.env, *sizes, config.device)


def _started(turn: AgentTurn, stack: ExitStack, say: Say) -> OnPolicyAlgorithm:
    """Build an agent whose environments `stack` closes."""
    say(f"{turn.agent.name}: starting")
    model = turn.build()
    stack.callback(_environments_of(model).close)
    return model


def _row(index: int, turns: list[AgentTurn], rounds: Rounds, config: TrainBenchConfig, say: Say) -> SpeedRow:
    """Return what the rounds say of one agent."""
    turn, agent = turns[index], turns[index].agent
    speed = turn.n_envs * turn.n_steps / medians(rounds)[index]
    peers = {other.agent.name: place for place, other in enumerate(turns) if other.agent not in OURS}
    ratios = {name: median_ratio(rounds, place, index) for name, place in peers.items()}
    say(f"{agent.name}: memory")
    mib = peak_memory(turn) if config.memory else None
    seconds = [found[index] for found in rounds]
    return SpeedRow(agent.name, ROUTES[agent.route], turn.n_envs, speed, ratios, mib, seconds)


# ---------------------------------------------------------------------- where the time goes


def split_of(model: OnPolicyAlgorithm, work: Work) -> dict[str, float]:
    """Return the seconds of one turn by what they went to; they add up to the turn.

    An agent of ours says it by its own stopwatch. For the peers there is only what can be seen from outside: the
    environments' steps, the rest of the rollout (choosing actions above all), the update, and what lies between.
    """
    if isinstance(model, RIMPPO):
        model.stopwatch.start()
        work()
        return model.stopwatch.stop()
    seconds: dict[str, float] = defaultdict(float)
    env = _environments_of(model)
    for owner, method in ((env, "step"), (model, "collect_rollouts"), (model, "train")):
        setattr(owner, method, _clocked(getattr(owner, method), method, seconds))
    total = seconds_of(work)
    rollout = seconds["collect_rollouts"] - seconds["step"]
    rest = total - seconds["collect_rollouts"] - seconds["train"]
    return {"environment": seconds["step"], "inference": rollout, "update": seconds["train"], "rest": rest}


def _clocked(method: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """Return a method that also adds its seconds to a clock."""

    def clocked(*arguments: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **keywords)
        finally:
            seconds[name] += time.perf_counter() - began

    return clocked


def _environments_of(model: OnPolicyAlgorithm) -> VecEnv:
    env = model.get_env()
    assert env is not None
    return env
