"""Files at places that a user names: refused before the work, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rims_rl.errors import ConfigError
from rims_rl.storage.plain_files import check_target, write_json


class TestCheckTarget:
    def test_a_new_file_and_an_old_one_are_fine_and_nothing_is_made(self, tmp_path: Path) -> None:
        old = tmp_path / "old.json"
        old.touch()
        check_target("--json", old)
        check_target("--json", tmp_path / "new.json")
        assert list(tmp_path.iterdir()) == [old]

    def test_the_present_folder_is_meant_by_a_bare_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        check_target("--json", Path("x.json"))

    def test_a_missing_folder_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"^--json no/x\.json: there is no folder no$"):
            check_target("--json", Path("no/x.json"))

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^--output .*: that is a folder, not a file$"):
            check_target("--output", tmp_path)

    def test_a_folder_that_may_not_be_written_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ConfigError, match="no permission to write into"):
            check_target("--json", tmp_path / "x.json")


class TestWriteJson:
    def test_what_is_written_can_be_read(self, tmp_path: Path) -> None:
        write_json(tmp_path / "x.json", {"a": [1, 2.5, None]})
        assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2.5, None]}

    def test_a_file_that_cannot_be_written_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"x\.json cannot be written: No such file"):
            write_json(tmp_path / "missing" / "x.json", {})
