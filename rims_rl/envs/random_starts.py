"""How many frames without input a game starts with, drawn as ale-py's C++ vector environment draws it.

That is libstdc++'s `std::uniform_int_distribution` over `std::mt19937`: Lemire, "Fast Random Integer Generation in an
Interval", 2019, https://arxiv.org/abs/1805.10941. ale-py's wheels for Linux are built with it; where they are built
with another library, the numbers have the same distribution but are others.
"""

from __future__ import annotations

import numpy as np

_WORD = 2**32


class RandomStarts:
    """A stream of numbers from 0 to `noop_max` - 1; without a seed, one that can't be foretold."""

    def __init__(self, noop_max: int) -> None:
        self._count = max(noop_max, 1)
        self._words = np.random.MT19937()

    def seed(self, seed: int) -> None:
        """Begin the stream of a seed, of 32 bits."""
        self._words.state = np.random.RandomState(seed).get_state(legacy=False)  # type: ignore[assignment]

    def draw(self) -> int:
        """Return the next number."""
        product = self._word() * self._count
        if product % _WORD < self._count:
            while product % _WORD < _WORD % self._count:
                product = self._word() * self._count
        return product // _WORD

    def _word(self) -> int:
        """Return the generator's next 32 bits."""
        return int(self._words.random_raw())
