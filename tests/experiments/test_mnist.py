"""MNIST's files: what is read from good ones, and what is said about bad ones."""

import gzip
import struct
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rims_rl.errors import ConfigError
from rims_rl.experiments.mnist import WHERE, load_digits, read_idx_images, read_idx_labels

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def idx(magic: int, values: np.ndarray) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.astype(np.uint8).tobytes()


IMAGE_BYTES, LABEL_BYTES = idx(2051, IMAGES), idx(2049, LABELS)


def write_set(folder: Path, stem: str, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> None:
    (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(2051, images)))
    (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(2049, labels))


def complaint(call, *arguments) -> str:
    """Return the one line that a call complains with."""
    with pytest.raises(ConfigError) as found:
        call(*arguments)
    assert "\n" not in str(found.value)
    return str(found.value)


class TestGoodFiles:
    @pytest.mark.parametrize(("part", "stem"), [("train", "train"), ("train", "train10k"), ("test", "t10k")])
    def test_images_and_labels_come_out_as_they_were_written(self, tmp_path, part, stem):
        write_set(tmp_path, stem)
        digits = load_digits(tmp_path, part)
        assert digits.images.dtype == np.uint8
        assert digits.labels.dtype == np.int64
        np.testing.assert_array_equal(digits.images, IMAGES)
        np.testing.assert_array_equal(digits.labels, [7, 0, 9])
        assert len(digits) == 3

    def test_names_with_dots_are_found_too(self, tmp_path):
        (tmp_path / "t10k-images.idx3-ubyte").write_bytes(IMAGE_BYTES)
        (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(LABEL_BYTES)
        assert load_digits(tmp_path, "test").labels.tolist() == [7, 0, 9]

    def test_the_whole_training_set_comes_before_a_part_of_it(self, tmp_path):
        write_set(tmp_path, "train10k")
        write_set(tmp_path, "train", labels=np.array([1, 2, 3]))
        assert load_digits(tmp_path, "train").labels.tolist() == [1, 2, 3]

    @pytest.mark.parametrize("name", ["packed", "packed.gz"])
    def test_a_packed_file_is_known_by_its_content_not_its_name(self, tmp_path, name):
        (tmp_path / name).write_bytes(gzip.compress(IMAGE_BYTES))
        np.testing.assert_array_equal(read_idx_images(tmp_path / name), IMAGES)

    def test_a_plain_file_may_be_called_packed(self, tmp_path):
        (tmp_path / "unpacked.gz").write_bytes(LABEL_BYTES)
        assert read_idx_labels(tmp_path / "unpacked.gz").tolist() == [7, 0, 9]


@pytest.mark.faults
class TestMissingFiles:
    def test_no_folder(self, tmp_path):
        assert "is no folder" in complaint(load_digits, tmp_path / "nowhere", "train")

    def test_an_empty_folder_says_what_was_looked_for_and_where_to_get_it(self, tmp_path):
        said = complaint(load_digits, tmp_path, "train")
        assert "train-images-idx3-ubyte[.gz]" in said
        assert WHERE in said

    @pytest.mark.parametrize(
        ("kept", "missing"), [("images-idx3", "t10k-labels-idx1-ubyte"), ("labels-idx1", "t10k-images-idx3-ubyte")]
    )
    def test_one_of_the_two_is_missing(self, tmp_path, kept, missing):
        (tmp_path / f"t10k-{kept}-ubyte").write_bytes(b"")
        assert f"no {missing}" in complaint(load_digits, tmp_path, "test")

    def test_images_are_not_joined_with_labels_of_another_set(self, tmp_path):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(IMAGE_BYTES)
        (tmp_path / "train10k-labels-idx1-ubyte").write_bytes(LABEL_BYTES)
        assert "no train-labels-idx1-ubyte" in complaint(load_digits, tmp_path, "train")


@pytest.mark.faults
class TestDamagedFiles:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "too short: 0 bytes, an IDX header has 16"),
            (IMAGE_BYTES[:11], "too short: 11 bytes, an IDX header has 16"),
            (LABEL_BYTES + bytes(8), "starts with 2049 (labels), IDX files of images start with 2051"),
            (b"<!DOCTYPE html><html>", "starts with 1008813135, IDX files of images start with 2051"),
            (struct.pack(">4I", 2051, 3, 32, 32) + bytes(3 * 32 * 32), "images of 32x32 pixels, expected 28x28"),
            (struct.pack(">4I", 2051, 3, 2**32 - 1, 2**32 - 1), "images of 4294967295x4294967295 pixels"),
            (struct.pack(">4I", 2051, 0, 28, 28), "says it has 0 images, expected 1 to 1,000,000"),
            (struct.pack(">4I", 2051, 2**32 - 1, 28, 28), "says it has 4,294,967,295 images"),
            (struct.pack(">4I", 2051, 999_999, 28, 28), "too short for the 783,999,216 bytes that its header says"),
            (IMAGE_BYTES[:-1], "ends after 2,351 bytes of images, its header says 2,352"),
            (IMAGE_BYTES + b"\0", "has more bytes of images, its header says 2,352"),
        ],
    )
    @pytest.mark.parametrize("packed", [False, True])
    def test_says_what_was_found_and_what_was_expected(self, tmp_path, content, expected, packed):
        file = tmp_path / "images"
        file.write_bytes(gzip.compress(content) if packed else content)
        said = complaint(read_idx_images, file)
        assert expected in said
        assert str(file) in said
        assert WHERE in said

    @pytest.mark.parametrize("spoil", [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:40] + bytes(byte ^ 255 for byte in packed[40:60]) + packed[60:],
        lambda packed: packed[:-8] + bytes(8),
        lambda packed: packed + b"no gzip behind it",
    ])  # fmt: skip
    def test_a_spoilt_packing_is_noticed(self, tmp_path, spoil):
        (tmp_path / "images.gz").write_bytes(spoil(gzip.compress(IMAGE_BYTES)))
        assert "cannot be read" in complaint(read_idx_images, tmp_path / "images.gz")

    def test_a_large_promise_takes_no_memory(self, tmp_path):
        (tmp_path / "images").write_bytes(struct.pack(">4I", 2051, 999_999, 28, 28))
        (tmp_path / "images.gz").write_bytes(gzip.compress(struct.pack(">4I", 2051, 9_999, 28, 28) + bytes(10_000)))
        tracemalloc.start()
        complaint(read_idx_images, tmp_path / "images")
        complaint(read_idx_images, tmp_path / "images.gz")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000

    def test_a_small_file_that_unpacks_without_end_is_not_unpacked(self, tmp_path):
        (tmp_path / "images.gz").write_bytes(gzip.compress(IMAGE_BYTES + bytes(50_000_000)))
        tracemalloc.start()
        said = complaint(read_idx_images, tmp_path / "images.gz")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "has more bytes" in said
        assert peak < 2_000_000

    def test_a_label_above_nine_is_another_data_set(self, tmp_path):
        (tmp_path / "labels").write_bytes(idx(2049, np.array([3, 10, 1])))
        assert "label 10, expected digits 0 to 9" in complaint(read_idx_labels, tmp_path / "labels")

    def test_images_and_labels_of_different_number_do_not_belong_together(self, tmp_path):
        write_set(tmp_path, "train", labels=np.array([1, 2]))
        said = complaint(load_digits, tmp_path, "train")
        assert "3 images" in said
        assert "2 labels" in said

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.integers(0, 400), spoilt=st.binary(min_size=1, max_size=9), packed=st.booleans())
    def test_whatever_is_overwritten_the_file_is_read_or_refused_in_one_line(self, tmp_path, place, spoilt, packed):
        content = bytearray(gzip.compress(IMAGE_BYTES, mtime=0) if packed else IMAGE_BYTES)
        content[place : place + len(spoilt)] = spoilt
        (tmp_path / "images").write_bytes(content)
        said, shape = "", (3, 28, 28)
        try:
            shape = read_idx_images(tmp_path / "images").shape
        except ConfigError as error:
            said = str(error)
        assert "\n" not in said
        assert shape == (3, 28, 28)


class TestHub:
    def offer(self, monkeypatch, load):
        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))

    def test_without_the_package_both_ways_are_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        said = complaint(load_digits, None, "train")
        assert "--data-dir" in said
        assert 'pip install "rims-rl[data]"' in said

    def test_without_a_network_both_ways_are_named(self, monkeypatch):
        def load(name, split):
            raise ConnectionError("no route\nto host")

        self.offer(monkeypatch, load)
        said = complaint(load_digits, None, "train")
        assert "ConnectionError: no route to host" in said
        assert "--data-dir" in said
        assert "network" in said

    def test_asks_for_the_part_of_mnist_and_returns_it(self, monkeypatch):
        asked = []

        def load(name, split):
            asked.append((name, split))
            return {"image": list(IMAGES), "label": [7, 0, 9]}

        self.offer(monkeypatch, load)
        digits = load_digits(None, "test")
        assert asked == [("ylecun/mnist", "test")]
        np.testing.assert_array_equal(digits.images, IMAGES)
        assert digits.labels.tolist() == [7, 0, 9]

    @pytest.mark.parametrize(
        "rows", [{"image": list(IMAGES[:, :14]), "label": [1, 2, 3]}, {"image": list(IMAGES), "label": [1, 2, 10]}]
    )
    def test_another_data_set_under_that_name_is_refused(self, monkeypatch, rows):
        self.offer(monkeypatch, lambda name, split: rows)
        assert "is not MNIST" in complaint(load_digits, None, "train")
