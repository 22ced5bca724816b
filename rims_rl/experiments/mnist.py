"""MNIST: handwritten digits from IDX files, or from the Hugging Face hub.

IDX, LeCun's format: a magic number (2051 for images, 2049 for labels), one length per axis, each a big-endian 32-bit
number, then unsigned bytes; the file may be packed with gzip. Nothing is believed before it has been checked: a header
that promises more than its file can hold is refused before memory is taken for it.
"""

from __future__ import annotations

import importlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from rims_rl.errors import ConfigError
from rims_rl.storage.plain_files import expanded, only_plain

Part = Literal["train", "test"]

SIDE = 28
"""Rows and columns of a digit."""
CLASSES = 10
"""Digits 0 to 9."""
HUB_NAME = "ylecun/mnist"
"""The data set's name on the Hugging Face hub."""
WHERE = (
    "the four MNIST files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz are at https://storage.googleapis.com/cvdf-datasets/mnist/"
)
"""Where the files are to be had, as messages say it."""

_IMAGE_MAGIC, _LABEL_MAGIC = 2051, 2049
_KINDS = {_IMAGE_MAGIC: "images", _LABEL_MAGIC: "labels"}
_STEMS: dict[str, tuple[str, ...]] = {"train": ("train", "train10k"), "test": ("t10k", "test")}
_MOST_DIGITS = 1_000_000
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_PACKED = 1100  # deflate packs at most 1032 bytes into one
_CHUNK = 2**20


@dataclass(frozen=True)
class Digits:
    """Digits and what they show."""

    images: NDArray[np.uint8]
    """Grey values (N, 28, 28), 0 black to 255 white: a light digit on dark ground."""
    labels: NDArray[np.int64]
    """Classes (N,), 0 to 9."""

    def __len__(self) -> int:
        return len(self.labels)


def load_digits(data_dir: Path | None, part: Part) -> Digits:
    """Return MNIST's training or test digits.

    Args:
        data_dir: a folder with IDX files under their usual names, packed by gzip or plain, of the whole training set
            (`train-...`) or, where that is missing, of a part of it (`train10k-...`); None for the Hugging Face hub,
            which needs a network and the package `datasets`.
        part: "train" or "test".

    Raises:
        ConfigError: when files are missing, damaged or of another data set, or the hub can't be reached; one line that
            says what was expected and where it is to be had.
    """
    if data_dir is None:
        return _from_hub(part)
    folder = expanded(data_dir)
    if not folder.is_dir():
        raise ConfigError(f"--data-dir {data_dir} is no folder; {WHERE}")
    image_file, label_file = _find(folder, part)
    images, labels = read_idx_images(image_file), read_idx_labels(label_file)
    if len(images) != len(labels):
        raise ConfigError(f"{image_file} has {len(images):,} images but {label_file} {len(labels):,} labels; {WHERE}")
    return Digits(images, labels)


def _find(folder: Path, part: Part) -> tuple[Path, Path]:
    """Return the files of images and labels, both of the same set."""
    for stem in _STEMS[part]:
        images, labels = (_first(folder, stem, kind, axes) for kind, axes in (("images", 3), ("labels", 1)))
        if images and labels:
            return images, labels
        if images or labels:
            missing = f"{stem}-labels-idx1-ubyte" if images else f"{stem}-images-idx3-ubyte"
            raise ConfigError(f"{folder} has {(images or labels)} but no {missing}[.gz] beside it; {WHERE}")
    raise ConfigError(f"{folder} has no {_STEMS[part][0]}-images-idx3-ubyte[.gz], MNIST's {part} images; {WHERE}")


def _first(folder: Path, stem: str, kind: str, axes: int) -> Path | None:
    names = [f"{stem}-{kind}{mark}idx{axes}-ubyte{packed}" for mark in "-." for packed in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_idx_images(path: Path) -> NDArray[np.uint8]:
    """Return the images (N, 28, 28) of an IDX file; ConfigError when it is damaged or holds something else."""
    (count, rows, columns), values = _read_idx(path, _IMAGE_MAGIC, 3)
    return values.reshape(count, rows, columns)


def read_idx_labels(path: Path) -> NDArray[np.int64]:
    """Return the labels (N,) of an IDX file; ConfigError when it is damaged or holds something else."""
    _, values = _read_idx(path, _LABEL_MAGIC, 1)
    if values.max() >= CLASSES:
        raise ConfigError(f"{path} has a label {values.max()}, expected digits 0 to 9; {WHERE}")
    return values.astype(np.int64)


def _read_idx(path: Path, magic: int, axes: int) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
    """Return the lengths of an IDX file's axes and its bytes."""
    try:
        with open(path, "rb", opener=only_plain) as whole:
            is_packed = whole.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            whole.seek(0)
            file = _Packed(whole) if is_packed else whole
            lengths = _read_header(path, file, magic, axes)
            size = int(np.prod(lengths))
            _check_room(path, size)
            content = _read_at_most(file, size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {_one_line(error)}; {WHERE}") from None
    if len(content) != size:
        found = f"ends after {len(content):,}" if len(content) < size else "has more"
        raise ConfigError(f"{path} {found} bytes of {_KINDS[magic]}, its header says {size:,}; {WHERE}")
    return lengths, np.frombuffer(content, np.uint8)


class _Packed:
    """Reads what is packed in a gzip file of one part, whose size alone bounds the time: nothing may lie behind it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._unpacking = file, zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def read(self, size: int) -> bytes:
        """Return the next bytes, `size` of them or fewer, and none at the end."""
        while not self._unpacking.eof:
            packed = self._unpacking.unconsumed_tail or self._file.read(_CHUNK)
            content = self._unpacking.decompress(packed, size)
            if content:
                return content
            if not packed:
                raise EOFError("it is cut short")
        if self._unpacking.unused_data or self._file.read(1):
            raise OSError("something lies behind what is packed")
        return b""


def _read_header(path: Path, file: _Packed | BinaryIO, magic: int, axes: int) -> tuple[int, ...]:
    """Return the lengths of the axes, or raise ConfigError unless they are those of some number of digits."""
    header = file.read(4 * (1 + axes))
    if len(header) < 4 * (1 + axes):
        raise ConfigError(f"{path} is too short: {len(header)} bytes, an IDX header has {4 * (1 + axes)}; {WHERE}")
    found, count, *sides = (int(number) for number in np.frombuffer(header, ">u4"))
    if found != magic:
        holds = f" ({_KINDS[found]})" if found in _KINDS else ""
        raise ConfigError(
            f"{path} starts with {found}{holds}, IDX files of {_KINDS[magic]} start with {magic}; {WHERE}"
        )
    if sides and sides != [SIDE, SIDE]:
        raise ConfigError(f"{path} has images of {sides[0]}x{sides[1]} pixels, expected {SIDE}x{SIDE}; {WHERE}")
    if not 1 <= count <= _MOST_DIGITS:
        raise ConfigError(f"{path} says it has {count:,} {_KINDS[magic]}, expected 1 to {_MOST_DIGITS:,}; {WHERE}")
    return (count, *sides)


def _check_room(path: Path, size: int) -> None:
    """Raise ConfigError when a file is too small to hold `size` bytes, even packed."""
    if size > _MOST_PACKED * path.stat().st_size:
        raise ConfigError(f"{path} is too short for the {size:,} bytes that its header says; {WHERE}")


def _read_at_most(file: _Packed | BinaryIO, size: int) -> bytearray:
    """Read `size` bytes, or fewer where the file ends, taking memory only for what is there."""
    content = bytearray()
    while len(content) < size:
        chunk = file.read(min(_CHUNK, size - len(content)))
        if not chunk:
            break
        content += chunk
    return content


# ---------------------------------------------------------------------- the hub


def _from_hub(part: Part) -> Digits:
    """Load from the Hugging Face hub, or from the copy that it left on this machine before."""
    ways = f"give --data-dir FOLDER ({WHERE}), or"
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError:
        raise ConfigError(f'MNIST is not here: {ways} pip install "rims-rl[data]" for the Hugging Face hub') from None
    try:
        rows = datasets.load_dataset(HUB_NAME, split=part)
        images = np.stack([np.asarray(image, dtype=np.uint8) for image in rows["image"]])
        labels = np.asarray(rows["label"], dtype=np.int64)
    except Exception as error:  # the hub's client raises errors of three other packages
        reason = f"{type(error).__name__}: {_one_line(error)}"
        raise ConfigError(f"{HUB_NAME} cannot be loaded from the hub ({reason}); {ways} connect a network") from None
    if images.shape != (len(labels), SIDE, SIDE) or not 0 <= labels.min() <= labels.max() < CLASSES:
        raise ConfigError(f"{HUB_NAME} on the hub is not MNIST: images {images.shape}, labels {labels.shape}; {ways}"
                          " mend the hub's copy")  # fmt: skip
    return Digits(images, labels)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
