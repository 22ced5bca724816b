"""Tensor files: what is written comes back bit for bit, and nothing else is ever taken for it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import stat
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rims_rl.errors import CheckpointError
from rims_rl.storage import plain_files
from rims_rl.storage.plain_files import write_text
from rims_rl.storage.tensor_files import read_tensors, write_tensors

pytestmark = pytest.mark.faults

DTYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
    torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip


def tensor_of(dtype: torch.dtype, *shape: int) -> Tensor:
    count = max(1, int(torch.tensor(shape).prod()))
    return (torch.arange(count) % 251).to(dtype).reshape(shape)


def small_file(folder: Path, value: float = 7.0) -> Path:
    path = folder / "small.safetensors"
    write_tensors(path, {"a": torch.full((2, 3), value), "b": torch.tensor([True, False])}, {"step": value})
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_type_comes_back_bit_for_bit(self, tmp_path, dtype):
        tensors = {"matrix": tensor_of(dtype, 3, 5, 7), "scalar": tensor_of(dtype), "empty": tensor_of(dtype, 1)[:0]}
        write_tensors(tmp_path / "x.safetensors", tensors, {})
        back, _ = read_tensors(tmp_path / "x.safetensors")
        assert back.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert back[name].dtype == dtype
            assert back[name].shape == tensor.shape
            assert torch.equal(back[name], tensor)

    def test_nan_and_infinity_keep_their_bits(self, tmp_path):
        odd = torch.tensor([float("nan"), float("inf"), -0.0, 5e-324], dtype=torch.float64)
        write_tensors(tmp_path / "x.safetensors", {"odd": odd}, {})
        assert torch.equal(read_tensors(tmp_path / "x.safetensors")[0]["odd"].view(torch.int64), odd.view(torch.int64))

    def test_a_strided_view_is_stored_as_what_it_shows(self, tmp_path):
        base = torch.arange(35).reshape(5, 7)
        write_tensors(tmp_path / "x.safetensors", {"columns": base.T, "part": base[1:4, ::2]}, {})
        back, _ = read_tensors(tmp_path / "x.safetensors")
        assert torch.equal(back["columns"], base.T)
        assert torch.equal(back["part"], base[1:4, ::2])

    def test_one_memory_under_two_names_is_stored_once(self, tmp_path):
        shared = torch.arange(1009.0)
        write_tensors(tmp_path / "one.safetensors", {"a": shared}, {})
        write_tensors(tmp_path / "two.safetensors", {"a": shared, "again": shared}, {})
        back, _ = read_tensors(tmp_path / "two.safetensors")
        assert torch.equal(back["again"], shared)
        grown = (tmp_path / "two.safetensors").stat().st_size - (tmp_path / "one.safetensors").stat().st_size
        assert grown < shared.nbytes

    def test_the_manifest_keeps_big_numbers_and_nesting(self, tmp_path):
        manifest = {"state": 323726261719206589602543583274561722519, "rows": [1, None, {"x": 0.1}], "text": "é\n"}
        write_tensors(tmp_path / "x.safetensors", {}, manifest)
        assert read_tensors(tmp_path / "x.safetensors") == ({}, manifest)

    def test_other_programs_can_read_the_weights(self, tmp_path):
        from safetensors.torch import load_file

        assert torch.equal(load_file(small_file(tmp_path))["a"], torch.full((2, 3), 7.0))

    def test_what_json_cannot_hold_is_refused_before_anything_is_written(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"x\.safetensors was not written"):
            write_tensors(tmp_path / "x.safetensors", {}, {"callback": print})
        assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """Stands for the end of the process: nothing that catches Exception sees it."""


class TestInterruptedWrite:
    """Whatever happens while a file is written, its name shows the old content or the new one, whole."""

    @pytest.mark.parametrize("stage", ["open", "fsync", "replace"])
    @pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), Killed()])
    def test_the_old_file_survives(self, tmp_path, monkeypatch, stage, failure):
        path = small_file(tmp_path, 7.0)

        def fail(*_: object, **__: object) -> None:
            raise failure

        target = plain_files if stage == "open" else os
        with monkeypatch.context() as patch:
            patch.setattr(target, stage, fail, raising=False)
            with pytest.raises(type(failure)):
                small_file(tmp_path, 11.0)
        assert read_tensors(path)[1] == {"step": 7.0}
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_a_disk_that_gives_back_other_bytes_is_noticed(self, tmp_path, monkeypatch):
        path = small_file(tmp_path, 7.0)
        monkeypatch.setattr(plain_files, "_write_through", lambda beside, content: beside.write_bytes(content[:-1]))
        with pytest.raises(CheckpointError, match="other bytes"):
            small_file(tmp_path, 11.0)
        assert read_tensors(path)[1] == {"step": 7.0}

    def test_a_folder_that_cannot_be_synced_is_no_failure(self, tmp_path, monkeypatch):
        real = os.fsync

        def only_files(handle: int) -> None:
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "Invalid argument")
            real(handle)

        monkeypatch.setattr(os, "fsync", only_files)
        assert read_tensors(small_file(tmp_path, 13.0))[1] == {"step": 13.0}

    def test_the_file_is_on_the_disk_before_it_gets_its_name(self, tmp_path, monkeypatch):
        calls: list[str] = []
        for name in ("fsync", "replace"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
        small_file(tmp_path)
        assert calls == ["fsync", "replace", "fsync"]

    def test_no_pattern_for_checkpoints_matches_the_unfinished_file(self, tmp_path, monkeypatch):
        seen: list[list[str]] = []
        real = os.replace

        def look(source: Path, target: Path) -> None:
            seen.append([path.name for path in tmp_path.glob("*.safetensors")])
            real(source, target)

        monkeypatch.setattr(os, "replace", look)
        small_file(tmp_path)
        assert seen == [[]]

    def test_text_files_keep_the_same_promise(self, tmp_path, monkeypatch):
        write_text(tmp_path / "a.json", "old")
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(OSError, match="no"):
            write_text(tmp_path / "a.json", "new")
        assert (tmp_path / "a.json").read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 1


class TestDamage:
    """A file that is not exactly what was written is refused in one line that holds its path."""

    def test_truncation_at_every_byte(self, tmp_path):
        whole = small_file(tmp_path).read_bytes()
        path = tmp_path / "cut.safetensors"
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(
                CheckpointError, match=rf"cut\.safetensors is truncated: {length} bytes|not a safetensors"
            ):
                read_tensors(path)

    def test_truncated_data_names_both_sizes(self, tmp_path):
        path = small_file(tmp_path)
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(CheckpointError, match=rf"truncated: {size - 3} bytes, expected {size}$"):
            read_tensors(path)

    def test_one_flipped_bit_anywhere_is_noticed(self, tmp_path):
        whole = small_file(tmp_path).read_bytes()
        path = tmp_path / "flipped.safetensors"
        for position in range(len(whole)):
            garbled = bytearray(whole)
            garbled[position] ^= 1 << position % 8
            path.write_bytes(garbled)
            with pytest.raises(CheckpointError, match=r"flipped\.safetensors"):
                read_tensors(path)

    def test_bytes_behind_the_end_are_noticed(self, tmp_path):
        path = small_file(tmp_path)
        path.write_bytes(path.read_bytes() + b"x")
        with pytest.raises(CheckpointError, match="is damaged"):
            read_tensors(path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"gone\.safetensors does not exist"):
            read_tensors(tmp_path / "gone.safetensors")

    def test_a_folder_is_no_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_tensors(tmp_path)

    def test_a_safetensors_file_of_another_program(self, tmp_path):
        save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"not a file of rims_rl: expected format 'rims_rl/1', found 'pt'"):
            read_tensors(tmp_path / "foreign.safetensors")

    @pytest.mark.parametrize(
        "content", [b"", b"PK\x03\x04" + bytes(99), b"step,reward\n1,2\n", b'{"a": 1}' * 9, bytes(99)]
    )
    def test_files_of_other_kinds(self, tmp_path, content):
        path = tmp_path / "other.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"other\.safetensors is (truncated|not a safetensors file)"):
            read_tensors(path)

    @pytest.mark.parametrize(
        "header",
        [
            b"[]", b"{}", b'{"__metadata__": []}', b'{"__metadata__": {"format": "rims_rl/1"}}', b"{" * 99_999,
            b'{"a": {"data_offsets": [0]}}', b'{"a": {"data_offsets": [0, 1e999]}}', b'{"a": 3}', b"{\xff}",
            b'{"__metadata__": {"format": "rims_rl/1", "manifest": "3", "aliases": "{}", "sha256": ""}}',
            b'{"__metadata__": {"format": "rims_rl/1", "manifest":"{}", "aliases": "{\\"a\\": []}", "sha256": ""}}',
            b'{"__metadata__": {"format": "rims_rl/1", "manifest":"{}", "aliases": "{\\"a\\":\\"b\\"}", "sha256": ""}}',
        ],
        ids=lambda header: header[:40].decode(errors="replace"),
    )  # fmt: skip
    def test_absurd_headers(self, tmp_path, header):
        path = tmp_path / "absurd.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CheckpointError, match=r"absurd\.safetensors") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)

    def test_a_shape_larger_than_the_file_is_refused(self, tmp_path):
        entry = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}
        metadata = {"format": "rims_rl/1", "manifest": "{}", "aliases": "{}", "sha256": ""}
        header = json.dumps({"__metadata__": metadata, "a": entry}).encode()
        path = tmp_path / "shape.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(CheckpointError, match="do not fit its header"):
            read_tensors(path)

    @pytest.mark.parametrize("claimed", [2**63, 2**40, 2**30])
    def test_an_oversized_header_takes_no_memory(self, tmp_path, claimed):
        path = tmp_path / "huge.safetensors"
        with open(path, "wb") as handle:
            handle.write(claimed.to_bytes(8, "little") + b"{")
            handle.truncate(2**25)
        tracemalloc.start()
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()

    def test_a_huge_body_behind_a_foreign_header_takes_no_memory(self, tmp_path):
        path = tmp_path / "huge.safetensors"
        header = b'{"a": {"dtype": "U8", "shape": [60000000], "data_offsets": [0, 60000000]}}'
        with open(path, "wb") as handle:
            handle.write(len(header).to_bytes(8, "little") + header)
            handle.truncate(8 + len(header) + 60_000_000)
        tracemalloc.start()
        with pytest.raises(CheckpointError, match="not a file of rims_rl"):
            read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()

    @pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch.save"])
    def test_a_malicious_pickle_is_refused_and_not_run(self, tmp_path, write):
        marker = tmp_path / "ran"
        path = tmp_path / "evil.safetensors"
        path.write_bytes(write(Malicious(marker))) if write else torch.save(Malicious(marker), path)
        with pytest.raises(CheckpointError, match=r"evil\.safetensors"):
            read_tensors(path)
        assert not marker.exists()


class Malicious:
    """An object whose unpickling makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.marker,)
