"""How the loop in C is made: compiled once and kept, and machines without a compiler do without it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rims_rl import compiling
from rims_rl.cores import RIM, RIMConfig, native_build

INPUT_SIZE = 7
needs_compiler = pytest.mark.skipif(not native_build.available(torch.float64), reason="no compiler for the loop in C")


class TestWhereThereIsNoLoopInC:
    @pytest.fixture(autouse=True)
    def _forgotten_library(self) -> Iterator[None]:
        native_build.library.cache_clear()
        yield
        native_build.library.cache_clear()

    def test_without_a_working_compiler_the_eager_loop_serves_and_it_is_said_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
        core = RIM(INPUT_SIZE, RIMConfig()).double()
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            for _ in range(2):
                outputs, _ = core(torch.zeros(2, 3, INPUT_SIZE, dtype=torch.float64), core.initial_state(3))
        assert not native_build.available(torch.float64)
        assert outputs.shape == (2, 3, core.output_size)
        (record,) = caplog.records
        assert "without its compiled loop" in record.getMessage()
        assert "\n" not in record.getMessage()

    def test_a_compiler_that_fails_is_no_compiler(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", "false")
        with caplog.at_level(logging.WARNING, logger="rims_rl"):
            assert not native_build.available(torch.float32)
        assert list((tmp_path / "rims_rl").iterdir()) == []
        assert len(caplog.records) == 1

    @needs_compiler
    def test_a_compiler_of_several_words_is_one(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", "env cc")
        assert native_build.available(torch.float64)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
    def test_other_number_types_are_not_its_business(self, dtype: torch.dtype) -> None:
        assert not native_build.available(dtype)

    @pytest.mark.parametrize("name", sorted(path.name for path in native_build.MAIN.parent.iterdir()))
    def test_a_change_in_any_of_its_files_makes_another_library(
        self, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        shutil.copytree(native_build.MAIN.parent, tmp_path / "csrc")
        main, flags = tmp_path / "csrc" / "loop.c", native_build.REALS[torch.float64]
        monkeypatch.setattr(compiling, "_compile", lambda command, main, target: target.touch())
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CC", "cc")
        before = compiling.compiled(main, flags)
        assert compiling.compiled(main, flags) == before
        with (tmp_path / "csrc" / name).open("a") as file:
            file.write("/* changed */")
        assert compiling.compiled(main, flags) != before

    @needs_compiler
    def test_is_compiled_once_and_kept(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert native_build.available(torch.float64)
        (library,) = (tmp_path / "rims_rl").iterdir()
        made = library.stat().st_mtime_ns
        native_build.library.cache_clear()
        assert native_build.available(torch.float64)
        assert [path.stat().st_mtime_ns for path in (tmp_path / "rims_rl").iterdir()] == [made]
