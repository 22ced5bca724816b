"""A process that is killed at any moment of a write leaves the old file or the new one, whole."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rims_rl.agents.checkpoint import CheckpointStore
from rims_rl.storage import plain_files
from rims_rl.storage.plain_files import UNFINISHED, write_text
from rims_rl.storage.tensor_files import read_tensors, write_tensors

pytestmark = pytest.mark.faults
REAL = {"_write_through": plain_files._write_through, "fsync": os.fsync, "replace": os.replace}
OLD, NEW = {"x": torch.full((300,), 1.0)}, {"x": torch.full((500,), 2.0), "y": torch.arange(7)}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(body: Callable[[], None]) -> bool:
    """Run a function in a process of its own; return whether it was killed, rather than ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child touches none of the threads around it
        child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def dying_at_byte(count: int) -> Callable[..., None]:
    """Return a writer that dies after so many bytes, which may or may not have reached the disk."""

    def write(path: Path, content: bytes) -> None:
        with open(path, "wb", buffering=0) as handle:
            handle.write(content[:count])
            die()

    return write


def dying_at(name: str, call: int, *, before: bool) -> Callable[..., Any]:
    """Return `os`'s function of this name, which dies before or after its n-th call."""
    real, calls = getattr(os, name), []

    def function(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if before and len(calls) == call:
            die()
        result = real(*given, **named)
        if len(calls) == call:
            die()
        return result

    return function


MOMENTS = [
    *(("_write_through", dying_at_byte(count)) for count in (0, 1, 8, 9, 100, 700, 1_500, 10**6)),
    *(("fsync", dying_at("fsync", 1, before=before)) for before in (True, False)),
    *(("replace", dying_at("replace", 1, before=before)) for before in (True, False)),
    *(("fsync", dying_at("fsync", 2, before=before)) for before in (True, False)),
]


@pytest.fixture(params=range(len(MOMENTS)), ids=lambda number: f"{MOMENTS[number][0]}-{number}")
def moment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let the next write die at one of the moments."""
    name, deadly = MOMENTS[request.param]
    monkeypatch.setattr(plain_files if name.startswith("_") else os, name, deadly)
    return name


def plainly(write: Callable[[], Any]) -> None:
    """Write with the real functions, although deadly ones are in place."""
    with pytest.MonkeyPatch.context() as patch:
        for name, real in REAL.items():
            patch.setattr(plain_files if name.startswith("_") else os, name, real)
        write()


def test_the_checkpoint_is_the_old_one_or_the_new_one(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "step_000000100.safetensors"
    plainly(lambda: write_tensors(path, OLD, {"step": "old"}))
    assert in_a_child(lambda: write_tensors(path, NEW, {"step": "new"}))
    tensors, manifest = read_tensors(path)
    expected = OLD if manifest == {"step": "old"} else NEW
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_text_is_the_old_one_or_the_new_one(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "config.yaml"
    plainly(lambda: write_text(path, "old\n"))
    assert in_a_child(lambda: write_text(path, "new\n" * 1_000))
    assert path.read_text() in ("old\n", "new\n" * 1_000)


def test_a_folder_of_checkpoints_goes_on_from_a_whole_one_and_cleans_up(tmp_path: Path, moment: str) -> None:
    plainly(lambda: [CheckpointStore(tmp_path).save(step, OLD, {"step": step}) for step in (100, 200)])
    assert in_a_child(lambda: CheckpointStore(tmp_path).save(300, NEW, {"step": 300}))
    store = CheckpointStore(tmp_path)
    assert store.newest().manifest["step"] in (200, 300)
    assert set(store.steps()) <= {100, 200, 300}
    plainly(lambda: store.save(400, NEW, {"step": 400}))
    assert not list(tmp_path.glob(f".*{UNFINISHED}"))
    assert store.newest().manifest == {"step": 400}


def test_these_tests_kill_at_every_moment_that_they_name(tmp_path: Path) -> None:
    assert not in_a_child(lambda: write_tensors(tmp_path / "x.safetensors", NEW, {}))
    assert read_tensors(tmp_path / "x.safetensors")[0]["x"].shape == (500,)
