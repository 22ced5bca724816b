"""What a soak asserts of a finished run: every step is accounted for, and where it is promised, nothing differs."""

from __future__ import annotations

import csv
from typing import Any

import torch
from torch import Tensor

from rims_rl.agents.checkpoint import CheckpointStore
from rims_rl.errors import RimsError
from rims_rl.loading import load_agent
from rims_rl.runs import RunFolder
from rims_rl.storage.plain_files import UNFINISHED
from rims_rl.storage.tensor_files import read_tensors

_TIMED = ("time/", "episodes")


def account(run: RunFolder, steps: int) -> list[str]:
    """Return what is missing or wrong in a finished run of `steps` steps; empty when all is there."""
    try:
        newest, agent = CheckpointStore(run.checkpoints).newest(), load_agent(run)
    except RimsError as error:
        return [str(error)]
    done = [int(newest.manifest["num_timesteps"]), agent.step]
    wrong = [f"{number} steps are stored, {steps} were trained" for number in done if number != steps]
    rows = [int(row["step"]) for row in progress(run)]
    if rows != sorted(set(rows)) or rows[-1:] != [steps]:
        wrong.append(f"progress.csv has the steps {rows[:3]} ... {rows[-3:]}, not each once up to {steps}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in agent.policy.state_dict().values()):
        wrong.append("weights are not finite")
    left = [path.name for path in run.path.rglob(f".*{UNFINISHED}*")]
    return wrong + [f"{name} was left behind" for name in left]


def difference(run: RunFolder, reference: RunFolder) -> list[str]:
    """Return in what a run differs from another that should be the same to the last bit, times aside."""
    wrong = _differing("policy.safetensors", *(_final(folder) for folder in (run, reference)))
    stored = [CheckpointStore(folder.checkpoints).newest() for folder in (run, reference)]
    wrong += _differing(stored[0].path.name, *(_untimed(each.tensors) for each in stored))
    counters = [each.manifest["state"]["counters"] for each in stored]
    if counters[0] != counters[1]:
        wrong.append(f"the counters are {counters[0]}, not {counters[1]}")
    rows, expected = ([_untimed(row) for row in progress(folder)] for folder in (run, reference))
    steps = [mine["step"] for mine, other in zip(rows, expected, strict=False) if mine != other]
    if steps or len(rows) != len(expected):
        wrong.append(f"progress.csv differs at the steps {steps[:3]}, {len(rows)} rows, not {len(expected)}")
    return wrong


def _differing(name: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    if found.keys() != expected.keys():
        return [f"{name} holds other tensors"]
    other = [key for key in found if not torch.equal(found[key], expected[key])]
    return [f"{name} differs in {', '.join(other[:3])}"] if other else []


def _final(run: RunFolder) -> dict[str, Tensor]:
    return read_tensors(run.policy_stem.with_suffix(".safetensors"))[0]


def _untimed(entries: dict[str, Any]) -> dict[str, Any]:
    """Leave out what depends on the clock."""
    return {name: value for name, value in entries.items() if not name.startswith(_TIMED)}


def progress(run: RunFolder) -> list[dict[str, str]]:
    """Return the rows of progress.csv."""
    with open(run.progress_file, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))
