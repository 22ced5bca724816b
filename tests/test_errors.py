"""Errors of ours are one family, and a name that nobody knows comes with the nearest ones."""

from __future__ import annotations

import pickle

import pytest

from rims_rl.errors import (
    CheckpointError,
    ConfigError,
    EnvironmentFault,
    NonFiniteError,
    OutOfMemory,
    RimsError,
    RunExistsError,
    UnknownNameError,
    nearest_names,
    printable,
    said,
)


class TestFamily:
    @pytest.mark.parametrize(
        "kind",
        [
            CheckpointError, ConfigError, EnvironmentFault, NonFiniteError, OutOfMemory, RunExistsError,
            UnknownNameError,
        ],
    )  # fmt: skip
    def test_every_error_is_a_rims_error(self, kind: type[Exception]) -> None:
        assert issubclass(kind, RimsError)

    @pytest.mark.parametrize("kind", [ConfigError, RunExistsError, UnknownNameError])
    def test_bad_settings_are_value_errors_too(self, kind: type[Exception]) -> None:
        assert issubclass(kind, ValueError)


class TestUnknownNameError:
    def test_says_the_kind_the_name_and_the_nearest(self) -> None:
        error = UnknownNameError("game", "pnog", ["pong", "breakout", "zaxxon"])
        assert str(error) == "unknown game 'pnog'; did you mean 'pong'?"

    def test_it_passes_from_one_process_to_another(self) -> None:
        error = UnknownNameError("game", "pnog", (name for name in ["pong", "breakout"]))
        assert str(pickle.loads(pickle.dumps(error))) == str(error) == "unknown game 'pnog'; did you mean 'pong'?"


class TestPrintable:
    """Nothing that a stranger wrote does anything to a terminal."""

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("pong é ±", "pong é ±"), ("\x1b]0;x\x07\x1b[2J", "\\x1b]0;x\\x07\\x1b[2J"), ("a\nb\tc\u00a0d", "a b c d"),
            ("\ud800\u202e\x9b", "\\ud800\\u202e\\x9b"), ("x" * 2_000, "x" * 2_000), ("x" * 2_001, "x" * 1_997 + "..."),
        ],
    )  # fmt: skip
    def test_escapes_what_is_no_character_to_see(self, text: str, shown: str) -> None:
        assert printable(text) == shown

    def test_is_what_every_message_of_ours_is(self) -> None:
        for error in (ConfigError("\x1b[2J"), UnknownNameError("game", "\x1b[2J", ["\x1b[2K"]), NonFiniteError("\x1b")):
            assert str(error).isprintable()
            assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert said(OSError("\x1b[2J")) == "\\x1b[2J"


class TestNearestNames:
    def test_the_nearest_comes_first(self) -> None:
        assert nearest_names("breakot", ["breakout", "break", "pong"]) == "did you mean 'breakout' or 'break'?"

    def test_upper_and_lower_case_are_the_same(self) -> None:
        assert nearest_names("PONG", ["Pong", "Zaxxon"]) == "did you mean 'Pong'?"

    def test_at_most_so_many(self) -> None:
        names = [f"unit_{letter}" for letter in "abcdefg"]
        assert nearest_names("unit_", names, most=3).count("'") == 2 * 3
        assert nearest_names("unit_", names).count("'") == 2 * 5

    def test_when_nothing_is_near_all_are_listed_in_order(self) -> None:
        assert nearest_names("xyzzy", ["pong", "breakout"]) == "known names: breakout, pong"

    def test_a_long_list_is_cut(self) -> None:
        shown = nearest_names("xyzzy", [f"name{index:03}" for index in range(101)])
        assert shown.endswith(", name039, ...")
        assert "name040" not in shown

    def test_names_are_listed_once(self) -> None:
        assert nearest_names("xyzzy", ["pong", "pong"]) == "known names: pong"

    def test_is_one_line(self) -> None:
        assert "\n" not in nearest_names("xyzzy", [f"name{index}" for index in range(101)])
