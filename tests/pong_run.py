"""A run on Pong that is trained in a second, with balls before the agent's eyes, and what an evaluation of it sees."""

from __future__ import annotations

from pathlib import Path

from rims_rl.cli import main

DISTRACTOR = "balls:0.5"
CORE = "num_units:3,active_units:2,unit_size:5"
SMALL = [
    "--env", "pong", "--core-kwargs", CORE, "--encoder", "nature", "--encoder-kwargs", "features_dim:7",
    "--n-envs", "2", "--n-steps", "4", "--batch-size", "8", "--n-epochs", "1", "-n", "8", "--log-interval", "1",
    "--wandb", "disabled", "--verbose", "0", "--device", "cpu",
]  # fmt: skip


def train_pong(folder: Path, *options: str) -> Path:
    """Train for one update in a folder, and return it."""
    assert main(["train", *SMALL, "--output", str(folder), *options]) == 0
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Return all that lies in a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
