"""Numbers of frames without input against those that ale-py's C++ environments draw."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest

from rims_rl.envs.emulator import vector_emulators
from rims_rl.envs.protocols import AtariSettings
from rims_rl.envs.random_starts import RandomStarts


class _Words:
    """Gives these words of 32 bits, one after the other."""

    def __init__(self, *words):
        self.left = list(words)

    def random_raw(self):
        return self.left.pop(0)


@pytest.mark.skipif(sys.platform != "linux", reason="ale-py's wheels are built with another library there")
class TestDraws:
    @pytest.mark.parametrize("noop_max", [0, 1, 2, 7, 30, 1000])
    def test_are_those_of_the_plain_vector_route(self, noop_max):
        seeds = np.array([0, 1, 2**31 - 1, 12345, 7])
        emulators = vector_emulators(AtariSettings("freeway", noop_max=noop_max), len(seeds), stack_num=1)
        frames = [emulators.reset(seed=seeds)[1]["episode_frame_number"]]
        frames += [emulators.reset()[1]["episode_frame_number"] for _ in range(3)]
        emulators.close()
        starts = [RandomStarts(noop_max) for _ in seeds]
        for start, seed in zip(starts, seeds, strict=True):
            start.seed(int(seed))
        np.testing.assert_array_equal(frames, [[start.draw() for start in starts] for _ in frames])


class TestAStream:
    def test_rejects_words_that_would_make_some_numbers_likelier(self):
        starts = RandomStarts(30)
        # 2**32 is 16 modulo 30: where a product's lower half is less than 16, another word is drawn.
        words = (0, 143165577, 286331154, 5)
        assert [30 * word % 2**32 for word in words] == [0, 14, 28, 150]
        starts._words = _Words(*words)
        assert (starts.draw(), starts._words.left) == (2, [5])

    def test_has_all_numbers_about_as_often(self):
        starts = RandomStarts(7)
        starts.seed(3)
        counts = Counter(starts.draw() for _ in range(7000))
        assert set(counts) == set(range(7))
        assert all(880 < count < 1120 for count in counts.values())  # four standard deviations

    def test_without_a_seed_is_another_each_time(self):
        streams = [RandomStarts(1000) for _ in range(2)]
        assert [streams[0].draw() for _ in range(9)] != [streams[1].draw() for _ in range(9)]
