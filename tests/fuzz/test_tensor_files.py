"""Tensor files: any bytes, any header, any tree."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rims_rl.errors import CheckpointError
from rims_rl.storage import tensor_files
from rims_rl.storage.plain_files import UNFINISHED
from rims_rl.storage.tensor_files import read_tensors, write_tensors
from rims_rl.storage.trees import pack, unpack
from tests.fuzz.guard import survives
from tests.fuzz.hostile import fuzzed, nested

pytestmark = pytest.mark.faults
VALUE = {
    "counts": {"a": 1, "b": [2.5, None, True]}, "pair": (np.arange(7), torch.zeros(2, 3)), "one": np.float32(0.5),
    "numbered": {0: "x", 1: torch.ones(())},
}  # fmt: skip
TENSORS: dict[str, torch.Tensor] = {}
TREE = pack(VALUE, "tree", TENSORS)
SHARED = TENSORS | {"shared": torch.arange(11.0)}
SHARED["again"] = SHARED["shared"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensors")
    write_tensors(path / "good.safetensors", SHARED, {"tree": TREE, "step": 7})
    return path


def with_header(content: bytes, entries: Any) -> bytes:
    """Return a file's bytes with another header."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def whole(content: bytes) -> bytes:
    """Return the bytes with the checksum that belongs to them, as anyone can compute it."""
    size = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + size])
    stored = tensor_files.parse_safetensors(content)
    entries["__metadata__"]["sha256"] = tensor_files._digest(entries["__metadata__"], stored)
    return with_header(content, entries)


class TestAnyBytes:
    @fuzzed(400)
    def test_mutated_files(self, folder, by):
        file = folder / "any.safetensors"
        file.write_bytes(by.bytes((folder / "good.safetensors").read_bytes()))
        survives(lambda: read_tensors(file), folder, names=file.name)

    @fuzzed(300)
    def test_mutated_headers(self, folder, by):
        file, content = folder / "header.safetensors", (folder / "good.safetensors").read_bytes()
        size = int.from_bytes(content[:8], "little")
        entries = by.json(json.loads(content[8 : 8 + size]))
        file.write_bytes(with_header(content, entries))
        survives(lambda: read_tensors(file), folder, names=file.name)

    @fuzzed(150)
    def test_manifests_and_aliases_that_are_whole_by_their_checksum(self, folder, by):
        file, content = folder / "whole.safetensors", (folder / "good.safetensors").read_bytes()
        size = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + size])
        for name in ("manifest", "aliases"):
            good = json.loads(entries["__metadata__"][name])
            entries["__metadata__"][name] = json.dumps(by.one_of([by.json, lambda _: by.junk()])(good))
        file.write_bytes(whole(with_header(content, entries)))
        survives(lambda: read_tensors(file), folder, names=file.name)


class TestAnyTree:
    @fuzzed(400)
    def test_mutated_trees(self, folder, by):
        tree, tensors = by.json(TREE), by.tensors(TENSORS)
        survives(lambda: unpack(tree, tensors), folder)

    def test_one_tensor_under_many_names_takes_no_memory_of_its_own(self, folder):
        tensors = {"large": torch.zeros(2**24)}
        tree = [{"$tensor": "large"}] * 1_000_000
        assert "more than once" in str(survives(lambda: unpack(tree, tensors), folder))

    def test_aliases_do_not_help(self, folder):
        large = torch.zeros(2**24)
        tensors = {str(number): large for number in range(1_000)}
        tree = [{"$array": name} for name in tensors]
        assert "more than once" in str(survives(lambda: unpack(tree, tensors), folder))

    def test_an_empty_tensor_beside_another_counts_for_nothing(self):
        base = torch.arange(7.0)
        tree = [{"$tensor": "a"}, {"$tensor": "none"}]
        found = unpack(tree, {"a": base, "none": base[:0]})
        assert torch.equal(found[0], base)

    @pytest.mark.parametrize("depth", [500, 5_000, 100_000])
    def test_depth(self, folder, depth):
        survives(lambda: unpack(nested(depth), {}), folder)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
    def test_types_that_numpy_lacks(self, dtype):
        with pytest.raises(CheckpointError, match="a stored value is damaged"):
            unpack({"$array": "a"}, {"a": torch.zeros(3).to(dtype)})

    @pytest.mark.parametrize(
        "tree", [{"$tuple": "abc"}, {"$tuple": 3}, {"$pairs": [[[], 1]]}, {"$pairs": [[1]]}, {"$pairs": {"a": 1}}]
    )
    def test_marks_with_something_else_behind(self, tree):
        with pytest.raises(CheckpointError, match="a stored value is damaged"):
            unpack(tree, {})


class TestKeys:
    @pytest.mark.parametrize("keys", [[i * (2**61 - 1) for i in range(5_000)], range(20_000), [2**31], [None], [[]]])
    def test_numbers_that_share_a_hash(self, folder, keys):
        found = survives(lambda: unpack({"$pairs": [[key, 0] for key in keys]}, {}), folder, seconds=5)
        assert "a stored value is damaged: $pairs" in str(found)

    def test_those_of_an_optimizer_are_taken(self):
        state = {number: {"step": number} for number in range(2_000)}
        assert unpack(pack(state, "state", {}), {}) == state


class TestSizes:
    def sparse(self, file: Path, size: int) -> Path:
        """Write a header that is right, and behind it a hole."""
        entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
        metadata = {"format": "rims_rl/1", "manifest": "{}", "aliases": "{}", "sha256": "x"}
        header = json.dumps({"__metadata__": metadata, "a": entry}).encode()
        with file.open("wb") as handle:
            handle.write(struct.pack("<Q", len(header)) + header)
            handle.truncate(8 + len(header) + size)
        return file

    @pytest.mark.parametrize("size", [2**28, 2**32, 2**42])
    def test_holes_are_not_read(self, folder, size):
        file = self.sparse(folder / "sparse.safetensors", size)
        said = str(survives(lambda: read_tensors(file), folder, names=file.name))
        assert "is not a file of rims_rl" in said
        file.unlink()

    def test_too_little_memory_is_no_end(self, folder, monkeypatch):
        """A run goes back to an older checkpoint then."""
        monkeypatch.setattr(tensor_files, "parse_safetensors", lambda _: bytearray(2**62))
        found = survives(lambda: read_tensors(folder / "good.safetensors"), folder, names="good.safetensors")
        assert "there is too little memory" in str(found)

    def test_zeros_that_are_on_the_disk_are_taken(self, tmp_path):
        write_tensors(tmp_path / "zeros.safetensors", {"a": torch.zeros(2**25)}, {})
        assert read_tensors(tmp_path / "zeros.safetensors")[0]["a"].shape == (2**25,)


class TestShapes:
    @pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62], [0, 2**40, 2**40], [0] * 200, [2**63]])
    def test_of_nothing_with_axes_beyond_counting(self, folder, shape):
        entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, 0]}
        metadata = {"format": "rims_rl/1", "manifest": "{}", "aliases": "{}", "sha256": "x"}
        header = json.dumps({"__metadata__": metadata, "a": entry}).encode()
        file = folder / "shape.safetensors"
        file.write_bytes(struct.pack("<Q", len(header)) + header)
        assert isinstance(survives(lambda: read_tensors(file), folder, names=file.name), CheckpointError)


class TestFilesThatAreNone:
    def test_a_pipe_is_not_waited_for(self, folder):
        file = folder / "pipe.safetensors"
        os.mkfifo(file)
        assert "not a plain file" in str(survives(lambda: read_tensors(file), folder, names=file.name))

    def test_a_device_is_not_read(self, folder):
        file = folder / "zeros.safetensors"
        file.symlink_to("/dev/zero")
        assert "not a plain file" in str(survives(lambda: read_tensors(file), folder, names=file.name))

    def test_a_folder(self, folder):
        assert isinstance(survives(lambda: read_tensors(folder), folder, names=folder.name), CheckpointError)

    def test_nothing_is_written_through_a_link(self, tmp_path):
        victim = tmp_path / "victim"
        victim.write_text("precious")
        beside = tmp_path / f".x.safetensors.{os.getpid()}{UNFINISHED}"
        beside.symlink_to(victim)
        with pytest.raises(OSError, match="symbolic links"):
            write_tensors(tmp_path / "x.safetensors", {}, {})
        assert victim.read_text() == "precious"
