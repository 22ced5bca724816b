"""The folder of checkpoints: the newest few and the best, and always a way back to a good one."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import torch

from rims_rl.agents import checkpoint
from rims_rl.agents.checkpoint import CheckpointStore, read_tensors
from rims_rl.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.faults


def save(store: CheckpointStore, step: int) -> Path:
    return store.save(step, {"x": torch.full((5,), float(step))}, {"step": step})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


class TestKeeping:
    def test_the_newest_k_are_kept(self, tmp_path):
        store = CheckpointStore(tmp_path / "checkpoints", keep=3)
        for step in (7, 110, 1_300, 17_000, 190_000):
            save(store, step)
        assert store.steps() == [1_300, 17_000, 190_000]

    def test_names_are_padded_so_that_they_sort(self, tmp_path):
        assert save(CheckpointStore(tmp_path), 102_400).name == "step_000102400.safetensors"

    def test_the_best_is_kept_beside_them(self, tmp_path):
        store = CheckpointStore(tmp_path, keep=1)
        store.save_best({"x": torch.zeros(1)}, {"step": 7}, 13.5)
        for step in (11, 13):
            save(store, step)
        assert store.steps() == [13]
        assert store.best_score() == 13.5
        assert read_tensors(store.best_file)[1] == {"step": 7, "score": 13.5}

    def test_no_best_means_no_score(self, tmp_path):
        assert CheckpointStore(tmp_path).best_score() is None

    def test_saving_a_step_again_replaces_it(self, tmp_path):
        store = CheckpointStore(tmp_path)
        save(store, 7)
        store.save(7, {}, {"step": "again"})
        assert store.newest().manifest == {"step": "again"}

    def test_a_run_that_went_back_forgets_its_abandoned_future(self, tmp_path):
        store = CheckpointStore(tmp_path, keep=2)
        for step in (100, 200, 300):
            save(store, step)
        save(store, 250)
        assert store.steps() == [200, 250]

    def test_with_one_kept_a_damaged_newer_file_does_not_push_out_the_good_one(self, tmp_path):
        store = CheckpointStore(tmp_path, keep=1)
        cut(save(store, 200))
        save(store, 150)
        assert store.newest().manifest == {"step": 150}

    def test_keeping_none_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="keep_checkpoints must be at least 1, got 0"):
            CheckpointStore(tmp_path, keep=0)


class TestFallingBack:
    def test_the_newest_comes_first(self, tmp_path):
        store = CheckpointStore(tmp_path)
        for step in (9, 10):
            save(store, step)
        path, tensors, manifest = store.newest()
        assert (path.name, manifest) == ("step_000000010.safetensors", {"step": 10})
        assert torch.equal(tensors["x"], torch.full((5,), 10.0))

    def test_a_damaged_newest_is_passed_over_and_said(self, tmp_path, caplog):
        store = CheckpointStore(tmp_path)
        for step in (100, 200, 300):
            save(store, step)
        cut(tmp_path / "step_000000200.safetensors")
        (tmp_path / "step_000000300.safetensors").write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            assert store.newest().manifest == {"step": 100}
        assert [record.message.split(" is ")[0].rpartition(os.sep)[2] for record in caplog.records] == [
            "step_000000300.safetensors",
            "step_000000200.safetensors",
        ]
        assert all("going back to step_000000100.safetensors" in record.message for record in caplog.records)

    def test_the_best_is_the_last_resort(self, tmp_path):
        store = CheckpointStore(tmp_path)
        store.save_best({}, {"step": 7}, 1.0)
        cut(save(store, 9))
        assert store.newest().path == store.best_file

    def test_an_empty_folder_is_named(self, tmp_path):
        with pytest.raises(CheckpointError, match=f"{tmp_path.name} holds no checkpoint"):
            CheckpointStore(tmp_path).newest()

    def test_when_all_are_damaged_the_newest_damage_is_named(self, tmp_path):
        store = CheckpointStore(tmp_path)
        for step in (100, 200):
            cut(save(store, step))
        with pytest.raises(CheckpointError, match=r"step_000000200\.safetensors is truncated"):
            store.newest()


class TestInterruptedWrites:
    LEFTOVER = ".step_000000900.safetensors.77.unfinished"

    def test_a_leftover_is_never_taken_for_a_checkpoint(self, tmp_path):
        store = CheckpointStore(tmp_path)
        whole = save(store, 100).read_bytes()
        (tmp_path / self.LEFTOVER).write_bytes(whole)
        assert store.steps() == [100]
        assert store.newest().manifest == {"step": 100}

    def test_the_next_writer_removes_it_and_a_reader_does_not(self, tmp_path):
        save(CheckpointStore(tmp_path), 100)
        (tmp_path / self.LEFTOVER).write_bytes(b"half")
        CheckpointStore(tmp_path).newest()
        assert (tmp_path / self.LEFTOVER).exists()
        save(CheckpointStore(tmp_path), 200)
        assert not (tmp_path / self.LEFTOVER).exists()

    @pytest.mark.parametrize(
        "name", ["step_x.safetensors", "step_1.safetensors.old", "step_5.safetensors~", "notes.txt"]
    )
    def test_other_files_are_left_alone(self, tmp_path, name):
        (tmp_path / name).write_text("mine")
        store = CheckpointStore(tmp_path, keep=1)
        for step in (100, 200):
            save(store, step)
        assert store.steps() == [200]
        assert (tmp_path / name).read_text() == "mine"


class TestFullDisk:
    @pytest.fixture
    def disk(self, monkeypatch):
        """Return a dictionary whose `room` is how many checkpoint files fit on the disk."""
        state = {"room": 99}
        real = checkpoint.write_tensors

        def write(path, tensors, manifest):
            if not path.exists() and len(list(path.parent.glob("*.safetensors"))) >= state["room"]:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(path, tensors, manifest)

        monkeypatch.setattr(checkpoint, "write_tensors", write)
        return state

    def test_our_oldest_makes_room(self, tmp_path, disk, caplog):
        store = CheckpointStore(tmp_path, keep=3)
        for step in (100, 200, 300):
            save(store, step)
        disk["room"] = 2
        save(store, 400)
        assert store.steps() == [300, 400]
        assert "dropping its oldest checkpoint, step 100" in caplog.text

    def test_the_last_good_one_is_never_dropped(self, tmp_path, disk):
        store = CheckpointStore(tmp_path, keep=3)
        for step in (100, 200):
            save(store, step)
        disk["room"] = 0
        with pytest.raises(OSError, match="No space left"):
            save(store, 300)
        assert store.newest().manifest == {"step": 200}

    def test_a_damaged_newer_one_does_not_count_as_good(self, tmp_path, disk):
        store = CheckpointStore(tmp_path, keep=3)
        save(store, 100)
        cut(save(store, 200))
        disk["room"] = 0
        with pytest.raises(OSError, match="No space left"):
            save(store, 300)
        assert store.newest().manifest == {"step": 100}

    def test_other_failures_drop_nothing(self, tmp_path, monkeypatch):
        store = CheckpointStore(tmp_path, keep=3)
        for step in (100, 200):
            save(store, step)

        def fail(*_):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            save(store, 300)
        assert store.steps() == [100, 200]
