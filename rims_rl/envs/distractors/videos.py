"""The user's own videos and images, as clips for the background.

Axes: T frames of a clip, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rims_rl.errors import ConfigError, shortened

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
MOST_FRAMES = 128
"""Frames of a clip that are kept in memory, from its start."""


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless the folder holds videos or images enough for both splits, each of which can be read."""
    for path in _files(folder):
        about = path.stat()
        _check_file(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4096)
def _check_file(path: Path, changed: int, size: int) -> None:
    """Raise ConfigError unless a file's first frame can be read; `changed` and `size` tell its content from another."""
    if not _frames(path, 1, 1, most=1):
        raise _unreadable(path)


def clip_files(folder: Path, split: str) -> list[Path]:
    """Return the split's files: in the order of their names every second one is held out."""
    return _files(folder)[0 if split == "train" else 1 :: 2]


@lru_cache(maxsize=8)
def load_clip(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Return a video's first frames, or an image, as RGB (T, H, W, 3), T at most 128.

    Raises:
        ConfigError: when nothing can be read from the file.
    """
    frames = _frames(path, height, width, MOST_FRAMES)
    if not frames:
        raise _unreadable(path)
    return np.stack(frames)


def _frames(path: Path, height: int, width: int, most: int) -> list[NDArray[np.uint8]]:
    """Return a file's first frames as RGB (H, W, 3), none where it can't be read."""
    read = _image if path.suffix.lower() in IMAGES else _video
    try:  # a large frame is gone before the next one is read
        return [_fitted(frame, height, width) for frame in islice(read(path), most)]
    except (cv2.error, ValueError, OSError):
        return []


def _unreadable(path: Path) -> ConfigError:
    return ConfigError(f"{path} can't be read as a video or an image; replace it or take it out of the folder")


def _files(folder: Path) -> list[Path]:
    """Return the folder's videos and images in the order of their names, or raise ConfigError."""
    try:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {shortened(str(folder))[1:-1]}; folder must hold videos or images")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES + VIDEOS and path.is_file())
    except OSError as problem:
        raise ConfigError(f"folder {shortened(str(folder))[1:-1]} can't be read: {problem.strerror}") from problem
    if len(files) < 2:
        kinds = ", ".join(IMAGES + VIDEOS)
        raise ConfigError(
            f"folder {folder} holds {len(files)} videos or images; it must hold 2 or more, for two splits ({kinds})"
        )
    return files


def _image(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield an image as the only frame of a clip (BGR), or nothing."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is not None:
        yield np.asarray(image, np.uint8)


def _video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield a video's first frames (BGR)."""
    reader = cv2.VideoCapture(str(path))
    try:
        for _ in range(MOST_FRAMES):
            found, frame = reader.read()
            if not found:
                return
            yield np.asarray(frame, np.uint8)
    finally:
        reader.release()


def _fitted(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the middle of a BGR frame, cut to the asked proportions and resized, in RGB."""
    rows, columns = frame.shape[:2]
    scale = min(rows / height, columns / width)
    tall, wide = max(int(height * scale), 1), max(int(width * scale), 1)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    small = cv2.resize(frame[top : top + tall, left : left + wide], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
