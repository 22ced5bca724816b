"""Follow one RIM's states and gradients on sequential MNIST until training diverges, or for as many updates.

It repeats, number for number, the trial of
`rims-rl experiment sequential-mnist --config paper --models MODEL --first-seed 1 --batch-size 16 --learning-rate 1e-3
--dropout 0 --embedding-size 32 --validation-share 0.1 --updates 6000`, without its validations, in one thread.

    python docs/results/scripts/divergence.py MNIST OUT.json rim rim:bounded_messages=true
    python docs/results/scripts/divergence.py --plot OUT.json OUT.png
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rims_rl.errors import NonFiniteError
from rims_rl.experiments import trial as trials
from rims_rl.experiments.presets import preset_settings
from rims_rl.experiments.registry import experiment_class, make_experiment
from rims_rl.experiments.sequence_model import SequenceModel
from rims_rl.machine import describe_machine

TASK, SEED, UPDATES = "sequential-mnist", 1, 1_169
SETTINGS: dict[str, Any] = {
    "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.0, "embedding_size": 32, "validation_share": 0.1,
    "updates": 6_000, "device": "cpu",
}  # fmt: skip


def follow(data: Path, model: str) -> list[dict[str, float]]:
    """Return, per update, the largest entry of the RIM's states and the gradient's norm before it is limited."""
    settings = preset_settings(TASK, "paper", experiment_class(TASK).config_class)
    experiment = make_experiment(TASK, replace(settings, data_dir=data, models=(model,), **SETTINGS))
    experiment.check()
    (variant,) = experiment.variants()
    trials.seed_all(SEED, "weights")
    trial = experiment.trial(variant, SEED)
    seen: dict[str, float] = {}
    watch(trial.modules["model"], seen)
    rows = []
    for update in range(UPDATES):
        trials.seed_all(SEED, "update", update)
        for module in trial.modules.values():
            module.train()
        try:
            trial.update(update)
        except NonFiniteError:
            break
        finally:
            rows.append({"update": update, **{key: value for key, value in seen.items() if math.isfinite(value)}})
    return rows


def watch(model: nn.Module, seen: dict[str, float]) -> None:
    """Note the core's largest output and the gradient's norm of every update in `seen`."""
    assert isinstance(model, SequenceModel)
    model.core.register_forward_hook(
        lambda _, __, found: seen.update(state=float(f"{found[0].detach().abs().max():.5g}"))
    )
    limit = nn.utils.clip_grad_norm_

    def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
        norm = limit(*args, **kwargs)
        seen["gradient"] = float(f"{norm:.5g}")
        return norm

    nn.utils.clip_grad_norm_ = noted  # type: ignore[assignment]


def plot(stored: Path, picture: Path) -> None:
    """Draw both courses of every model."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    courses = json.loads(stored.read_text())["models"]
    figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    for axis, key, label in zip(axes, ("state", "gradient"), ("largest state", "gradient's norm"), strict=True):
        for name, rows in courses.items():
            axis.plot([row["update"] for row in rows], [row.get(key) for row in rows], linewidth=0.9, label=name)
        axis.set(yscale="log", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    axes[1].set(xlabel="updates")
    figure.savefig(picture, dpi=120)


def main() -> None:
    """Follow the models that the command line names, or plot what was found."""
    if sys.argv[1] == "--plot":
        plot(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    torch.set_num_threads(1)
    data, out, *models = sys.argv[1:]
    found = {
        "machine": describe_machine(),
        "seed": SEED,
        "models": {model: follow(Path(data), model) for model in models},
    }
    Path(out).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
