"""A look through an emulator's stored state before ALE reads it.

ALE believes what a stored state says: it writes as many bytes of RAM as the state counts, also beyond the console's
128, and reads a cartridge's bank wherever its number leads. So a state is compared, number by number, with one of an
emulator of one's own: the same parts, the same counts, and no index out of its range. What is left free are values that
stay inside the emulated console, whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from rims_rl.errors import ConfigError

Limit = Container[int] | None
"""What a number may be; None for anything."""

_ANY: Limit = None
_FLAG = frozenset({-1160660270, -88999246})  # how ALE writes false and true
_BYTES_OF_RAM: list[Limit] = [range(128, 129), *[_ANY] * 128]
_EIGHT = range(8, 9)
_PARTS: list[tuple[bytes, list[Limit]]] = [
    (b"M6502Low", [*[_ANY] * 6, *[_FLAG] * 7, _ANY]),  # the processor's registers and flags
    (b"M6532", [*_BYTES_OF_RAM, *[_ANY] * 4, _FLAG, _ANY, _ANY]),  # the RAM and the timer
    (
        b"TIA",  # the graphics chip; motions and positions of what it draws are places in its tables
        [
            *[_ANY] * 19, _FLAG, _FLAG, *[_ANY] * 5, *[_FLAG] * 4, *[range(16)] * 5, *[_FLAG] * 5, _ANY,
            *[range(160)] * 5, *[_ANY] * 3, _FLAG, _FLAG, _ANY, _FLAG, _ANY,
        ],
    ),
    (b"TIASound", [_ANY] * 7),
]  # fmt: skip
"""What every console keeps, in ALE's order."""
_CARTRIDGES: dict[bytes, list[Limit]] = {
    b"Cartridge2K": [],
    b"Cartridge4K": [],
    b"CartridgeFE": [],
    b"CartridgeF8": [range(2)],
    b"CartridgeF6": [range(4)],
    b"CartridgeF8SC": [range(2), *_BYTES_OF_RAM],
    b"CartridgeF6SC": [range(4), *_BYTES_OF_RAM],
    b"CartridgeE0": [range(4, 5), *[range(8)] * 4],
    b"CartridgeDPC": [
        range(2), _EIGHT, *[_ANY] * 8, _EIGHT, *[_ANY] * 8, _EIGHT, *[range(2048)] * 8, _EIGHT, *[_ANY] * 8,
        range(3, 4), *[_FLAG] * 3, *[_ANY] * 3,
    ],
}  # fmt: skip
"""What a cartridge keeps: banks or slices of its memory, its own RAM, pointers into it."""
_GENERATOR = re.compile(rb"[0-9 ]{1,20000}")


class _Reader:
    """Reads the parts of a state one after the other; ValueError where there is no more."""

    def __init__(self, state: bytes) -> None:
        self._state, self._place = state, 0

    def number(self) -> int:
        """Return the next number, of 32 bits."""
        return int.from_bytes(self._take(4), "little", signed=True)

    def text(self) -> bytes:
        """Return the next text."""
        return self._take(self.number())

    def rest(self) -> bytes:
        """Return all that is not read yet."""
        return self._take(self.left)

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self._state) - self._place

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise ValueError
        self._place += size
        return self._state[self._place - size : self._place]


def check_emulator_state(state: bytes, own: bytes) -> None:
    """Raise ConfigError unless ALE can be given a state without harm.

    Args:
        state: a serialized state, from a file that nobody vouches for.
        own: one of an emulator that plays the same game in the same mode and difficulty.
    """
    mine, theirs = _Reader(own), _Reader(state)
    try:
        _compare(mine, theirs)
    except ValueError:
        raise ConfigError("this snapshot is damaged: its emulator's state is not one of this game") from None


def _compare(mine: _Reader, theirs: _Reader) -> None:
    """Walk through both; ValueError at the first part that differs in kind, or lies out of its range."""
    for _ in range(4):  # paddles, frames
        mine.number(), theirs.number()
    for _ in range(2):  # mode, difficulty
        _require(mine.number() == theirs.number())
    _compare_consoles(_Reader(mine.text()), _Reader(theirs.text()))
    _require(mine.left == theirs.left)  # the paddles' range


def _compare_consoles(mine: _Reader, theirs: _Reader) -> None:
    _shared_text(mine, theirs)  # the game's checksum
    _require(_shared_text(mine, theirs) == b"System")
    _compare_numbers(mine, theirs, [_ANY])
    _require(bool(_GENERATOR.fullmatch(mine.text()) and _GENERATOR.fullmatch(theirs.text())))
    for name, limits in _PARTS:
        _require(_shared_text(mine, theirs) == name)
        _compare_numbers(mine, theirs, limits)
    cartridge = _shared_text(mine, theirs)
    _require(cartridge in _CARTRIDGES)
    _compare_numbers(mine, theirs, _CARTRIDGES[cartridge])
    while (number := mine.number()) != mine.left:  # what the game counts, up to the length of the last part
        _require(theirs.number() in _FLAG or number not in _FLAG)
    _require(theirs.number() == theirs.left and bool(_GENERATOR.fullmatch(theirs.rest())))


def _compare_numbers(mine: _Reader, theirs: _Reader, limits: Sequence[Limit]) -> None:
    for limit in limits:
        mine.number()
        number = theirs.number()
        _require(limit is None or number in limit)


def _shared_text(mine: _Reader, theirs: _Reader) -> bytes:
    """Return the next text, which must be the same in both."""
    text = mine.text()
    _require(theirs.text() == text)
    return text


def _require(is_so: bool) -> None:
    if not is_so:
        raise ValueError
