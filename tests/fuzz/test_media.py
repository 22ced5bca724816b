"""Images and videos that the background distractor shows."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from rims_rl.envs.distractors.distractor import Distractor, parse_distractors
from rims_rl.envs.distractors.videos import clip_files, load_clip
from rims_rl.errors import ConfigError, RimsError
from tests.fuzz.guard import survives
from tests.fuzz.hostile import fuzzed

pytestmark = pytest.mark.faults
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 52, 3)).astype(np.uint8)
IMAGES = [".png", ".jpg", ".bmp", ".webp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("video") / "good.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (52, 40))
    for shift in range(5):
        writer.write(np.roll(PICTURE, shift, 0))
    writer.release()
    load_clip(file, 20, 30)
    return file.read_bytes()


class TestMutations:
    @fuzzed(300)
    def test_images(self, folder, by):
        ending = by.one_of(IMAGES)
        content = cv2.imencode(ending, PICTURE)[1].tobytes()
        file = folder / f"image-{by.seed}{ending}"
        file.write_bytes(by.bytes(content))
        found = survives(lambda: load_clip(file, 20, 30), folder, names=file.name)
        assert isinstance(found, RimsError) or found.shape == (1, 20, 30, 3)
        file.unlink()

    @fuzzed(60)
    def test_videos(self, folder, video, by):
        file = folder / f"video-{by.seed}.avi"
        file.write_bytes(by.bytes(video))
        found = survives(lambda: load_clip(file, 20, 30), folder, names=file.name)
        assert isinstance(found, RimsError) or found.shape[1:] == (20, 30, 3)
        file.unlink()

    @fuzzed(200)
    def test_texts(self, folder, by):
        text = by.bytes(b"balls:0.5:static+noise:0.2:held-out+background:0.5:folder=clips").decode("utf-8", "replace")
        survives(lambda: parse_distractors(text), folder)


def png_of(width: int, height: int) -> bytes:
    """Return the bytes of a PNG file that says to be of any size, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


class TestSizes:
    @pytest.mark.parametrize("size", [(50_000, 50_000), (2**20, 2**20), (2**31 - 1, 2**31 - 1), (0, 0)])
    def test_an_image_that_says_to_be_larger_than_any(self, folder, size):
        (folder / "large.png").write_bytes(png_of(*size))
        found = survives(lambda: load_clip(folder / "large.png", 20, 30), folder, names="large.png")
        assert isinstance(found, ConfigError)
        load_clip.cache_clear()


class TestFolders:
    def test_pipes_are_not_waited_for(self, tmp_path):
        for name in ("a.png", "b.mp4", "c.jpg"):
            os.mkfifo(tmp_path / name)
        found = survives(lambda: Distractor("background", folder=str(tmp_path)), tmp_path)
        assert "holds 0 videos or images" in str(found)

    def test_links_to_devices_are_no_images(self, tmp_path):
        for name in ("a.png", "b.png"):
            (tmp_path / name).symlink_to("/dev/zero")
        assert isinstance(survives(lambda: clip_files(tmp_path, "train"), tmp_path), ConfigError)

    @pytest.mark.parametrize("path", ["\0", "a" * 5_000, "/a" * 3_000, "/dev/zero", "/proc/self/mem", ""])
    def test_what_is_no_folder(self, path, tmp_path):
        found = survives(lambda: Distractor("background", folder=path), tmp_path)
        assert isinstance(found, ConfigError)

    def test_frames_are_fitted_one_by_one(self, tmp_path, video, monkeypatch):
        """A hundred frames of a large video would not fit into memory beside each other."""
        import rims_rl.envs.distractors.videos as videos

        (tmp_path / "good.avi").write_bytes(video)
        order: list[str] = []
        real = videos._fitted
        monkeypatch.setattr(videos, "_fitted", lambda *given: (order.append("fitted"), real(*given))[1])
        frames = videos._video

        def told(path: Path):
            for frame in frames(path):
                order.append("read")
                yield frame

        monkeypatch.setattr(videos, "_video", told)
        load_clip(tmp_path / "good.avi", 21, 31)
        assert order == ["read", "fitted"] * 5
