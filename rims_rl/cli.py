"""The command line: `rims-rl train | evaluate | robustness | record | configs | cores | plot | bench | experiment`.

Bad input is one line on stderr and exit code 2, before anything is made. What a command needs is imported when it runs,
so that `--help` and `configs` answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, fields, replace
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from rims_rl.config import (
    FIELD_NAMES,
    RESUMABLE,
    ConfigsConfig,
    CoresConfig,
    EvaluateConfig,
    PlotConfig,
    RecordConfig,
    TrainConfig,
)
from rims_rl.errors import ConfigError, RimsError, UnknownNameError

Config = TypeVar("Config")

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
    try:
        return _dispatch(words)
    except RimsError as error:
        print(f"rims-rl: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rims-rl: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


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


def parse_train(arguments: list[str]) -> TrainConfig:
    """Return a training run's settings: the defaults, overridden by the preset or the resumed run, then by `arguments`.

    Raises:
        UnknownNameError: for an unknown option or preset.
        ConfigError: for a value that can't be read, or an option that a resumed run may not change.
    """
    given = given_options(arguments, TrainConfig)
    if "-h" in arguments or "--help" in arguments:
        return parse(TrainConfig, arguments, "train")
    if "resume" in given:
        return _parse_resumed(arguments, given)
    base = _base(given)
    config = parse(TrainConfig, arguments, "train", base)
    merged: dict[str, Any] = {name: _merged(name, base, config, given) for name in _MERGED}
    if config.core_parameters is not None:
        merged["core_kwargs"] = _without_the_presets_width(config, merged["core_kwargs"], given)
    return replace(config, **merged)


# The preset's pairs stay under those that are given, as long as they mean the same thing.
_MERGED = {"core_kwargs": "core", "encoder_kwargs": "encoder", "env_kwargs": "env"}


def _merged(name: str, base: TrainConfig, config: TrainConfig, given: dict[str, str]) -> dict[str, Any]:
    same_owner = getattr(base, _MERGED[name]) == getattr(config, _MERGED[name])
    inherited = getattr(base, name) if same_owner else {}
    return {**inherited, **(getattr(config, name) if name in given else {})}


def _without_the_presets_width(
    config: TrainConfig, core_kwargs: dict[str, Any], given: dict[str, str]
) -> dict[str, Any]:
    """Drop the width that a preset gives the core, where the command line asks for a number of parameters instead."""
    from rims_rl.cores import matched_setting

    width, own = matched_setting(config.core), config.core_kwargs if "core_kwargs" in given else {}
    return {name: value for name, value in core_kwargs.items() if name != width or name in own}


def _base(given: dict[str, str]) -> TrainConfig:
    if not given.get("config"):
        return TrainConfig()
    from rims_rl.presets import load_preset

    return load_preset(given["config"]).apply()


def _parse_resumed(arguments: list[str], given: dict[str, str]) -> TrainConfig:
    from rims_rl.runs import load_config, open_run

    fixed = sorted(set(given) - RESUMABLE)
    if fixed:
        options = ", ".join(_option(name) for name in fixed)
        free = ", ".join(_option(name) for name in FIELD_NAMES if name in RESUMABLE and name != "resume")
        raise ConfigError(f"a resumed run keeps its own {options}; only these may be given beside --resume: {free}")
    if not given["resume"]:
        raise ConfigError("--resume needs the folder of a run")
    return parse(TrainConfig, arguments, "train", load_config(open_run(Path(given["resume"]))))


def parse_experiment(name: str, kind: type[Any], arguments: list[str]) -> Any:
    """Return an experiment's settings: the defaults, overridden by the preset or the resumed one, then by `arguments`.

    Raises:
        UnknownNameError: for an unknown option or preset.
        ConfigError: for a value that can't be read, or an option that a resumed experiment may not change.
    """
    from rims_rl.experiments.folder import load_settings
    from rims_rl.experiments.presets import free_to_change, preset_settings

    given = given_options(arguments, kind)
    if "-h" in arguments or "--help" in arguments:
        return parse(kind, arguments, f"experiment {name}")
    if "resume" in given:
        _check_resumed("experiment", kind, given, free_to_change(kind))
        return parse(kind, arguments, f"experiment {name}", load_settings(Path(given["resume"]), name, kind))
    base = preset_settings(name, given["config"], kind) if given.get("config") else kind()
    config = parse(kind, arguments, f"experiment {name}", base)
    return replace(config, rim={**base.rim, **config.rim}) if "rim" in given else config


def parse_robustness(arguments: list[str]) -> Any:
    """Return a report's settings: the defaults or the resumed report's, overridden by `arguments`.

    Raises:
        UnknownNameError: for an unknown option.
        ConfigError: for a value that can't be read, or an option that a resumed report may not change.
    """
    from rims_rl.experiments.robustness.config import FREE_TO_CHANGE, RobustnessConfig
    from rims_rl.experiments.robustness.folder import load_settings

    given = given_options(arguments, RobustnessConfig)
    if "resume" not in given or "-h" in arguments or "--help" in arguments:
        return parse(RobustnessConfig, arguments, "robustness")
    _check_resumed("report", RobustnessConfig, given, FREE_TO_CHANGE)
    before = load_settings(Path(given["resume"]))
    return before.joined_by(parse(RobustnessConfig, arguments, "robustness", before))


def _check_resumed(what: str, kind: type[Any], given: Iterable[str], changeable: frozenset[str]) -> None:
    """Raise ConfigError when options are given that whatever is resumed keeps."""
    fixed = ", ".join(_option(field) for field in sorted(set(given) - changeable))
    if fixed:
        own = {entry.name for entry in fields(kind)}
        free = ", ".join(_option(field) for field in sorted((changeable & own) - {"resume", "runs"}))
        raise ConfigError(f"a resumed {what} keeps its own {fixed}; only these may be given: {free}")


def parse(kind: type[Config], arguments: list[str], command: str, default: Config | None = None) -> Config:
    """Parse the options of a command with tyro; `default` holds the values of those that are not given.

    Raises:
        UnknownNameError: for an unknown option, with the nearest ones.
        ConfigError: for a value that can't be read.
    """
    given_options(arguments, kind)
    printed = StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with redirect_stderr(printed):
            parsed: Config = tyro.cli(kind, prog=f"rims-rl {command}", args=arguments, **options)
    except SystemExit as end:
        if not end.code:
            raise
        raise ConfigError(f"{_first_words(printed.getvalue())}; see rims-rl {command} --help") from None
    return parsed


def given_options(arguments: Iterable[str], kind: type[Any]) -> dict[str, str]:
    """Return the options that `arguments` name, by field, each with the text right behind it.

    Raises:
        UnknownNameError: for an option that `kind` has no field for, with the nearest ones.
    """
    options = _options(kind)
    words = list(arguments)
    given = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if not word.startswith("-") or _is_number(word) or word in ("-h", "--help"):
            continue
        option, equals, value = word.partition("=")
        spelled = "--" + option[2:].replace("_", "-") if option.startswith("--") else option
        if spelled not in options:
            raise UnknownNameError("option", option, options)
        given[options[spelled]] = value if equals else following
    return given


def _options(kind: type[Any]) -> dict[str, str]:
    """Return every spelling of every option of a settings class, with the field that it sets."""
    options = {"-n": "total_timesteps"} if kind is TrainConfig else {}
    hints = get_type_hints(kind)
    for entry in fields(kind):
        if entry.default is MISSING and entry.default_factory is MISSING:
            continue  # positional
        options[_option(entry.name)] = entry.name
        if hints[entry.name] is bool:
            options[f"--no-{_option(entry.name)[2:]}"] = entry.name
    return options


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _first_words(box: str) -> str:
    """Return what tyro's error box says between its title and the next rule, as one line."""
    lines = [line.strip().strip("│").strip() for line in box.strip().splitlines()]
    if len(lines) > 1 and lines[1].startswith("---"):  # where the terminal knows ASCII alone, title and rule are lines
        lines = lines[2:]
    words = []
    for line in lines:
        if line.startswith(("╭", "╰")):
            continue
        if line.startswith(("─", "---")):
            break
        words.append(line)
    return " ".join(words).rstrip(".") or "the options could not be read"
