"""Weights & Biases for experiments: one run per trial, grouped by experiment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rims_rl.experiments.folder import plain_settings
from rims_rl.experiments.loop import Row
from rims_rl.storage.plain_files import write_text

if TYPE_CHECKING:
    from rims_rl.experiments.workers import Job


@contextmanager
def track(job: Job, say: Callable[[int, Row], None]) -> Iterator[Callable[[int, Row], None]]:
    """Yield a `say` that also sends every row of figures to the trial's W&B run, which is started here and finished.

    A resumed trial goes on in its old run. Where W&B is disabled, nothing of it is imported.
    """
    if job.config.wandb == "disabled":
        yield say
        return
    from rims_rl.tracking import WandbSettings, start_wandb_run, stored_run_id

    folder = job.folder.trial(job.variant.name, job.seed).path
    folder.mkdir(parents=True, exist_ok=True)
    id_file = folder / "wandb_run.json"
    config = job.config
    settings = WandbSettings(
        config.wandb, config.wandb_project, config.wandb_entity, name=f"{job.experiment} {job.name}",
        group=job.folder.path.resolve().name, tags=(job.experiment, job.variant.name),
        config={**plain_settings(config), "model": job.variant.name, "core": job.variant.settings, "seed": job.seed},
    )  # fmt: skip
    run = start_wandb_run(settings, folder, stored_run_id(id_file))
    if run.id is not None:
        write_text(id_file, json.dumps({"id": run.id}) + "\n")

    def heard(update: int, row: Row) -> None:
        if row:
            run.log({name: value for name, value in row.items() if name != "update"}, update)
        say(update, row)

    try:
        yield heard
    finally:
        run.finish()
