"""MNIST's files: IDX, packed or not."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from rims_rl.errors import ConfigError
from rims_rl.experiments.mnist import load_digits, read_idx_images, read_idx_labels
from tests.fuzz.guard import survives
from tests.fuzz.hostile import fuzzed

pytestmark = pytest.mark.faults
IMAGES = struct.pack(">4I", 2051, 5, 28, 28) + bytes(range(250)) * 16
LABELS = struct.pack(">2I", 2049, 5) + bytes([7, 0, 9, 1, 2])
IMAGES = IMAGES[: 16 + 5 * 784] + b"\0" * max(0, 5 * 784 + 16 - len(IMAGES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mnist")


def read_mutated(read, good, folder, by):
    """Return what a reader makes of damaged content, packed or not."""
    file = folder / "digits"
    content = by.bytes(good)
    file.write_bytes(by.one_of([content, gzip.compress(content), by.bytes(gzip.compress(good))]))
    return survives(lambda: read(file), folder, names=file.name)


class TestMutations:
    @fuzzed(300)
    def test_images(self, folder, by):
        found = read_mutated(read_idx_images, IMAGES, folder, by)
        assert isinstance(found, ConfigError) or found.shape[1:] == (28, 28)

    @fuzzed(300)
    def test_labels(self, folder, by):
        found = read_mutated(read_idx_labels, LABELS, folder, by)
        assert isinstance(found, ConfigError) or (found.max() < 10 and len(found) > 0)


class TestBombs:
    def test_what_unpacks_to_more_than_its_header_says(self, folder):
        file = folder / "bomb"
        file.write_bytes(gzip.compress(LABELS + bytes(2**27), compresslevel=9))
        assert "has more bytes" in str(survives(lambda: read_idx_labels(file), folder, names=file.name))

    def test_a_million_empty_members(self, folder):
        file = folder / "members"
        file.write_bytes(gzip.compress(b"") * 200_000)
        assert isinstance(survives(lambda: read_idx_labels(file), folder, names=file.name), ConfigError)

    @pytest.mark.parametrize("behind", [bytes(2**26), gzip.compress(b"") * 10**6])
    def test_what_lies_behind_the_digits_is_not_read(self, folder, behind):
        file = folder / "padded"
        file.write_bytes(gzip.compress(LABELS) + behind)
        found = survives(lambda: read_idx_labels(file), folder, names=file.name, seconds=5)
        assert "something lies behind what is packed" in str(found)

    def test_a_packed_file_that_is_cut_short(self, folder):
        file = folder / "cut"
        for length in (9, 60, -9, -1):
            file.write_bytes(gzip.compress(IMAGES)[:length])
            assert "it is cut short" in str(survives(lambda: read_idx_images(file), folder, names=file.name))

    def test_a_header_that_promises_more_than_the_file_can_hold(self, folder):
        file = folder / "promise"
        file.write_bytes(struct.pack(">4I", 2051, 10**6, 28, 28))
        assert "too short" in str(survives(lambda: read_idx_images(file), folder, names=file.name))

    def test_pipes_are_no_files(self, tmp_path):
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
            os.mkfifo(tmp_path / name)
        assert isinstance(survives(lambda: load_digits(tmp_path, "train"), tmp_path), ConfigError)

    def test_good_files_are_read(self, folder):
        (folder / "good").write_bytes(gzip.compress(IMAGES))
        np.testing.assert_array_equal(read_idx_images(folder / "good").ravel()[:9], np.arange(9))
