"""Speed, measured honestly: ours and a peer's in the same run, in turns, as ratios, with peak memory beside each.

* config.py: the settings of `rims-rl bench core | train | env`;
* measure.py: turns, medians and ratios; memory.py: peak memory of one contender in a process of its own;
* turns.py: what one turn of a memory does; core.py: which memories are compared;
* peers.py: sb3-contrib's and SB3's agents and environments; train.py: whole agents; env.py: the environments alone;
* results.py: what was found; tables.py: what the terminal shows; report.py: the JSON file, machine and versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rims_rl.bench.config import BenchConfig, CoreBenchConfig, EnvBenchConfig, TrainBenchConfig

if TYPE_CHECKING:
    from rims_rl.bench.measure import Say
    from rims_rl.bench.results import Result


def run_bench(config: BenchConfig) -> Result:
    """Measure, print tables, write them as JSON where asked, and return what was measured.

    Raises:
        ConfigError: for settings that can't work, before anything is measured.
    """
    config.check()
    import torch

    from rims_rl.bench.report import print_report, progress, write_report

    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    torch.manual_seed(0)
    with progress() as say:
        result = _measured(config, say)
    print_report(result)
    if config.json is not None:
        write_report(config.json, config, result)
    return result


def _measured(config: BenchConfig, say: Say) -> Result:
    """Hand over to the room of this kind of benchmark, whose imports are heavy."""
    if isinstance(config, TrainBenchConfig):
        from rims_rl.bench.train import measure_training

        return measure_training(config, say)
    if isinstance(config, EnvBenchConfig):
        from rims_rl.bench.env import measure_environments

        return measure_environments(config, say)
    from rims_rl.bench.core import measure_cores

    assert isinstance(config, CoreBenchConfig)
    return measure_cores(config, say)
