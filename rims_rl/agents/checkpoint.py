"""Checkpoints of a run: the newest few and the best one, each a complete and verified file without code in it."""

from __future__ import annotations

import errno
import logging
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rims_rl.agents.policy_files import load_policy, save_policy
from rims_rl.agents.training_state import capture, restore
from rims_rl.errors import CheckpointError, ConfigError
from rims_rl.storage.plain_files import UNFINISHED
from rims_rl.storage.tensor_files import read_tensors, write_tensors

__all__ = [
    "CheckpointStore",
    "Stored",
    "capture",
    "load_policy",
    "read_tensors",
    "restore",
    "save_policy",
    "write_tensors",
]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step_(\d+)\.safetensors")


class Stored(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    """Its file."""
    tensors: dict[str, Tensor]
    """Its tensors, on the CPU."""
    manifest: dict[str, Any]
    """Its JSON part."""


class CheckpointStore:
    """A folder with a run's newest `keep` checkpoints and its best one."""

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise ConfigError(f"keep_checkpoints must be at least 1, got {keep}")
        self.folder = Path(folder)
        self.keep = keep
        self._is_clean = False

    @property
    def best_file(self) -> Path:
        """Where the best checkpoint lies, or would lie."""
        return self.folder / "best.safetensors"

    def save(self, step: int, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> Path:
        """Store a checkpoint, then drop all but the newest `keep`; what is newer than `step` is an abandoned future.

        Raises:
            OSError: when the disk refuses, even after making room; the last good checkpoint is still there.
        """
        path = self._file(step)
        self._write(path, tensors, manifest)
        past = [other for other in self.steps() if other <= step]
        for other in set(self.steps()) - set(past[-self.keep :]):
            self._drop(other)
        return path

    def save_best(self, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], score: float) -> Path:
        """Store a checkpoint as the best one, with its score in the manifest."""
        self._write(self.best_file, tensors, {**manifest, "score": float(score)})
        return self.best_file

    def best_score(self) -> float | None:
        """Return the score of the best checkpoint; None when there is none that can be read, or it is no number."""
        try:
            score = read_tensors(self.best_file)[1].get("score")
        except CheckpointError:
            return None
        return score if isinstance(score, float) and math.isfinite(score) else None

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that lie here, rising; the best one is not among them."""
        matches = (_NAME.fullmatch(path.name) for path in self.folder.glob("step_*.safetensors"))
        return sorted({int(match[1]) for match in matches if match})

    def newest(self) -> Stored:
        """Return the newest checkpoint that is whole; warns in the log about every newer one that is not.

        Raises:
            CheckpointError: when there is none.
        """
        files = [self._file(step) for step in reversed(self.steps())]
        files += [self.best_file] if self.best_file.exists() else []
        damage: list[str] = []
        for path in files:
            try:
                stored = Stored(path, *read_tensors(path))
            except CheckpointError as error:
                damage.append(str(error))
                continue
            for reason in damage:
                _log.warning("%s; going back to %s", reason, path.name)
            return stored
        raise CheckpointError(damage[0] if damage else f"{self.folder} holds no checkpoint")

    def _file(self, step: int) -> Path:
        return self.folder / f"step_{step:09d}.safetensors"

    def _write(self, path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        """Write, and once more after dropping our oldest checkpoints when the disk is full."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clean()
        while True:
            try:
                return write_tensors(path, tensors, manifest)
            except OSError as error:
                if error.errno != errno.ENOSPC or not self._make_room():
                    raise

    def _make_room(self) -> bool:
        """Drop the oldest checkpoint unless it is the last good one; return whether one was dropped."""
        steps = self.steps()
        if len(steps) < 2 or not any(self._is_whole(step) for step in steps[1:]):
            return False
        _log.warning("no space left in %s: dropping its oldest checkpoint, step %d", self.folder, steps[0])
        return self._drop(steps[0])

    def _is_whole(self, step: int) -> bool:
        try:
            read_tensors(self._file(step))
        except CheckpointError:
            return False
        return True

    def _drop(self, step: int) -> bool:
        with suppress(OSError):
            self._file(step).unlink()
            return True
        return False

    def _clean(self) -> None:
        """Remove what an interrupted process left half written; once, by whoever writes here."""
        if not self._is_clean:
            for leftover in self.folder.glob(f".*{UNFINISHED}"):
                with suppress(OSError):
                    leftover.unlink()
            self._is_clean = True
