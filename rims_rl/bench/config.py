"""The settings of the benchmarks; the field docstrings are the `--help` texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from rims_rl.config import Int, OptionalPath, OptionalText
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.storage.plain_files import check_target

ALL = "all"
_NAMES = arg(metavar="NAME ...", help_behavior_hint=lambda shown: f"(default: {shown or 'none'})")


@dataclass(frozen=True)
class BenchConfig:
    """What every benchmark takes."""

    repeats: Int = 9
    """Turns per contender that count; medians are reported."""
    memory: bool = True
    """Also measure each contender's peak memory, in a process of its own (Linux)."""
    torch_threads: Int = 0
    """CPU threads for PyTorch and the RIM; 0 leaves PyTorch's default."""
    json: OptionalPath = None
    """Also write the result to this JSON file."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that can't work."""
        _at_least(1, repeats=self.repeats)
        _at_least(0, torch_threads=self.torch_threads)
        if self.json is not None:
            check_target("--json", self.json)


@dataclass(frozen=True)
class CoreBenchConfig(BenchConfig):
    """Measure the memory alone: the RIM against torch's LSTM and GRU of the same width, forward and backward."""

    cores: Annotated[tuple[str, ...], _NAMES] = ()
    """Measure these registered cores against nn.LSTM, too: names, or all."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda, cuda:1, ..."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that can't work."""
        super().check()
        from rims_rl.cores import core_names

        for name in self.cores:
            if name not in (ALL, *core_names()):
                raise UnknownNameError("core", name, [*core_names(), ALL])
        _check_device(self.device)

    def core_names(self) -> list[str]:
        """Return the cores that were asked for."""
        from rims_rl.cores import core_names

        return core_names() if ALL in self.cores else list(dict.fromkeys(self.cores))


@dataclass(frozen=True)
class TrainBenchConfig(BenchConfig):
    """Measure whole agents: RIMPPO's environment steps per second against sb3-contrib's RecurrentPPO and SB3's PPO."""

    repeats: Int = 9
    """Turns per agent that count, each one rollout and one update; medians are reported."""
    env: str = "pong"
    """Atari game in any spelling."""
    n_envs: Int = 8
    """Copies of the game that are played side by side."""
    n_steps: Int = 128
    """Steps per copy between two updates; gradients flow back through all of them."""
    batch_size: Int = 256
    """Steps per minibatch."""
    n_epochs: Int = 4
    """Passes over the collected steps per update."""
    same_env: bool = False
    """Also run the peers on our environments, so that the algorithms alone are compared."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda, cuda:1, ..."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that can't work."""
        super().check()
        from rims_rl.agents.checks import check_sizes
        from rims_rl.envs.games import resolve_game

        resolve_game(self.env)
        check_sizes(self.n_envs, self.n_steps, self.batch_size, self.n_steps, self.n_epochs)
        _check_device(self.device)


@dataclass(frozen=True)
class EnvBenchConfig(BenchConfig):
    """Measure the environments alone, with random actions: our routes against SB3's make_atari_env."""

    repeats: Int = 7
    """Turns per route that count; medians are reported."""
    env: str = "pong"
    """Atari game in any spelling."""
    n_envs: Annotated[tuple[Int, ...], arg(metavar="INT ...")] = (1, 8, 64)
    """Copies of the game that are played side by side; each number is measured."""
    n_steps: Int = 2048
    """Steps per turn, over all copies."""
    distractor: OptionalText = None
    """Measure what distractors cost, e.g. balls:0.5: our routes with them against the same without."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that can't work."""
        super().check()
        from rims_rl.envs.distractors import parse_distractors
        from rims_rl.envs.games import resolve_game

        if self.distractor is not None:
            parse_distractors(self.distractor)
        resolve_game(self.env)
        _at_least(1, n_envs=min(self.n_envs, default=0), n_steps=self.n_steps)
        if self.n_steps < max(self.n_envs):
            raise ConfigError(f"--n-steps must be at least --n-envs, got {self.n_steps} and {max(self.n_envs)}")


BENCHMARKS: dict[str, type[BenchConfig]] = {"core": CoreBenchConfig, "train": TrainBenchConfig, "env": EnvBenchConfig}


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {number}")


def _check_device(name: str) -> None:
    from rims_rl.validation import check_device

    if name == "auto":
        raise ConfigError("--device must name what is measured, cpu or cuda, got 'auto'")
    check_device(name)
