"""The command line: `rims-rl train`, `evaluate`, `robustness`, `record`, and the other commands that `rims-rl` lists.

Bad input is one line on stderr and exit code 2, before anything is made. What an environment raises is a traceback and
one line. What a command needs is imported when it runs, so that `--help` and `configs` answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from rims_rl.config import ConfigsConfig, CoresConfig, EvaluateConfig, PlotConfig, RecordConfig
from rims_rl.errors import ConfigError, EnvironmentFault, RimsError, UnknownNameError, printable, said
from rims_rl.options import parse, parse_experiment, parse_robustness, parse_train
from rims_rl.output import PrintableFormatter, complain
from rims_rl.threads import let_threads_sleep

_HELP = """\
usage: rims-rl COMMAND [OPTIONS]

Recurrent Independent Mechanisms as the memory of reinforcement-learning agents.

commands:
  train      train an agent             rims-rl train --config quick
  evaluate   play games, report scores  rims-rl evaluate RUN --episodes 30
  robustness withstand distractors?     rims-rl robustness RUN RUN
  record     film an episode            rims-rl record RUN
  configs    list the presets           rims-rl configs
  cores      list the memories          rims-rl cores
  plot       draw learning curves       rims-rl plot RUN RUN --output curves.png
  bench      measure speed and memory   rims-rl bench core
  soak       break it on purpose        rims-rl soak --minutes 10
  experiment the paper's tasks          rims-rl experiment copying --config small

`rims-rl COMMAND --help` explains every option of a command; `rims-rl --version` prints the version.
"""

_EXPERIMENT_HELP = """\
usage: rims-rl experiment NAME [OPTIONS]

Train models on a task of the paper, several seeds side by side; leaves a table, plots and all numbers in a folder.

experiments:
  copying             remember ten symbols over a longer silence than in training
  adding              add two marked numbers of a longer sequence than in training
  sequential-mnist    read digits pixel by pixel at resolutions never trained on
  bouncing-balls      predict balls that collide; other numbers of balls, and hidden ones
  inverse-mechanisms  experts that compete learn to undo what was done to digits
  ablations           take the RIM apart, piece by piece

  rims-rl experiment copying --config small                      minutes on two cores
  rims-rl experiment copying --config paper --seeds 3            the paper's size: hours
  rims-rl experiment copying --models rim rim:active_units=6 lstm gru --seeds 5
  rims-rl experiment copying --resume runs/copying_20260102-030405

`rims-rl experiment NAME --help` explains the options of one.
"""

_BENCH_HELP = """\
usage: rims-rl bench core|train|env [OPTIONS]

Measure speed and peak memory: ours and a peer's in the same run, in turns, as ratios.

benchmarks:
  core    the memory alone: the RIM against torch's LSTM and GRU
          rims-rl bench core --cores all --json core.json
  train   whole agents: RIMPPO against RecurrentPPO and PPO
          rims-rl bench train --env breakout --repeats 3
  env     the environments alone: our routes against SB3's
          rims-rl bench env --n-envs 1 8 64

Each takes some minutes and wants an idle machine. `rims-rl bench core --help` explains the options.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 or 143 when stopped by a signal."""
    words = list(sys.argv[1:] if argv is None else argv)
    if logging.lastResort is not None:  # what prints warnings where nobody has set up logging
        logging.lastResort.setFormatter(PrintableFormatter())
    try:
        return _dispatch(words)
    except RimsError as error:
        for line in error.traceback.splitlines() if isinstance(error, EnvironmentFault) else ():
            complain(printable(line))
        complain(f"rims-rl: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        complain("rims-rl: stopped")
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, MemoryError, RecursionError, UnicodeError) as error:  # the machine refused, or a file is beyond it
        complain(f"rims-rl: {printable(words[0])} was ended by {type(error).__name__}: {said(error)}")
        return 2


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if words[0] == "--version":
        from rims_rl import __version__

        print(f"rims-rl {__version__}")
        return 0
    command, arguments = words[0], words[1:]
    if command not in _COMMANDS:
        raise UnknownNameError("option" if command.startswith("-") else "command", command, _COMMANDS)
    if command != "bench":  # which takes PyTorch, ours and the peers' alike, as it comes
        let_threads_sleep()
    try:
        return _COMMANDS[command](arguments)
    except SystemExit as end:  # tyro's way to end after --help
        return int(end.code or 0)


def _train(arguments: list[str]) -> int:
    from rims_rl.runs import command_line

    config = parse_train(arguments)
    from rims_rl.output import full_disks_forgiven
    from rims_rl.training import resume, train

    run = train if config.resume is None else resume
    with full_disks_forgiven():
        return run(config, command_line())


def _evaluate(arguments: list[str]) -> int:
    config = parse(EvaluateConfig, arguments, "evaluate")
    from rims_rl.evaluation import evaluate_run

    evaluate_run(config)
    return 0


def _robustness(arguments: list[str]) -> int:
    config = parse_robustness(arguments)
    from rims_rl.experiments.robustness.runner import run_robustness

    return run_robustness(config)


def _record(arguments: list[str]) -> int:
    config = parse(RecordConfig, arguments, "record")
    from rims_rl.recording import record_run

    record_run(config)
    return 0


def _configs(arguments: list[str]) -> int:
    config = parse(ConfigsConfig, arguments, "configs")
    from rims_rl.presets import describe_preset, preset_table

    print(preset_table() if config.name is None else describe_preset(config.name), end="")
    return 0


def _cores(arguments: list[str]) -> int:
    config = parse(CoresConfig, arguments, "cores")
    from rims_rl.core_listing import list_cores

    list_cores(config)
    return 0


def _plot(arguments: list[str]) -> int:
    config = parse(PlotConfig, arguments, "plot")
    from rims_rl.results import plot_runs

    plot_runs(config)
    return 0


def _bench(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_BENCH_HELP, end="")
        return 0
    from rims_rl.bench.config import BENCHMARKS

    what, options = arguments[0], arguments[1:]
    if what.startswith("-"):
        raise ConfigError(f"bench needs to know what to measure before {what}: {', '.join(BENCHMARKS)}")
    if what not in BENCHMARKS:
        raise UnknownNameError("benchmark", what, BENCHMARKS)
    config = parse(BENCHMARKS[what], options, f"bench {what}")
    from rims_rl.bench import run_bench

    run_bench(config)
    return 0


def _soak(arguments: list[str]) -> int:
    from rims_rl.soak import SoakConfig, run_soak

    return run_soak(parse(SoakConfig, arguments, "soak"))


def _experiment(arguments: list[str]) -> int:
    from rims_rl.experiments.registry import EXPERIMENTS, experiment_class

    if not arguments or arguments[0] in ("-h", "--help"):
        print(_EXPERIMENT_HELP, end="")
        return 0
    name, options = arguments[0], arguments[1:]
    if name.startswith("-"):
        raise ConfigError(f"experiment needs its name before {name}: {', '.join(EXPERIMENTS)}")
    config = parse_experiment(name, experiment_class(name).config_class, options)
    from rims_rl.experiments.runner import run_experiment

    return run_experiment(name, config)


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train, "evaluate": _evaluate, "robustness": _robustness, "record": _record, "configs": _configs,
    "cores": _cores, "plot": _plot, "bench": _bench, "soak": _soak, "experiment": _experiment,
}  # fmt: skip
