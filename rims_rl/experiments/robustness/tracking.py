"""A robustness report on Weights & Biases: one run with the tables and the plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rims_rl.experiments.robustness.config import RobustnessConfig, plain_settings
from rims_rl.experiments.robustness.folder import RobustnessFolder
from rims_rl.output import say

if TYPE_CHECKING:
    from rims_rl.experiments.robustness.report import Sheet


def track_report(
    config: RobustnessConfig, folder: RobustnessFolder, sheets: Sequence[Sheet], plots: Sequence[Path]
) -> None:
    """Log tables and plots in one W&B run; does nothing where W&B is disabled or cannot be used."""
    if config.wandb == "disabled":
        return
    from rims_rl.tracking import WandbSettings, start_wandb_run

    name = folder.path.resolve().name
    settings = WandbSettings(
        config.wandb, config.wandb_project, config.wandb_entity, name=name, tags=("robustness",),
        config=plain_settings(config),
    )  # fmt: skip
    run = start_wandb_run(settings, folder.path)
    if run.mode == "disabled":
        return
    try:
        run.log(_contents(sheets, plots), 0)
    except Exception as error:  # whatever W&B does, the report lies on the disk
        say(f"W&B did not take the report: {error}")
    run.finish()


def _contents(sheets: Sequence[Sheet], plots: Sequence[Path]) -> dict[str, Any]:
    """Return the tables and pictures as W&B takes them."""
    import wandb

    tables = {sheet.title: wandb.Table(columns=list[str | int](sheet.headings), data=sheet.rows) for sheet in sheets}
    return {**tables, **{f"plots/{plot.stem}": wandb.Image(str(plot)) for plot in plots}}
