"""What every kind does to frames, one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs.distractors import KINDS, SPLITS, Distraction, Distractor, Screen
from rims_rl.envs.distractors.looks import Stamp, put, stamp_of
from rims_rl.errors import ConfigError

MOVING = [kind for kind in KINDS if kind not in ("flicker", "drop")]


SEAQUEST = Screen(210, 160, "seaquest")


def _distraction(*distractors, screen=SEAQUEST):
    return Distraction(distractors, screen)


def _frames(distraction, frame, count, seed=3, episode=0):
    distraction.start(seed)
    for _ in range(episode):
        distraction.next_episode()
    return np.stack([distraction(frame) for _ in range(count)])


class TestAnEpisodesPixels:
    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_decided_by_seed_and_episode(self, kind, split, seaquest_frame):
        spec = Distractor(kind, 0.6, split=split)
        first = _frames(_distraction(spec), seaquest_frame, 23)
        other = _distraction(spec)
        _frames(other, seaquest_frame, 7, seed=19)  # what was seen before counts for nothing
        np.testing.assert_array_equal(_frames(other, seaquest_frame, 23), first)
        assert (_frames(other, seaquest_frame, 23, seed=4) != first).any()
        assert (_frames(other, seaquest_frame, 23, episode=1) != first).any()

    @pytest.mark.parametrize("kind", KINDS)
    def test_go_on_exactly_from_a_snapshot(self, kind, seaquest_frame):
        spec = Distractor(kind, 0.7)
        distraction, other = _distraction(spec), _distraction(spec)
        _frames(distraction, seaquest_frame, 11, episode=2)
        other.restore(distraction.snapshot())
        for _ in range(2):
            for _ in range(13):
                np.testing.assert_array_equal(other(seaquest_frame), distraction(seaquest_frame))
            other.next_episode(), distraction.next_episode()

    def test_a_snapshot_of_other_distractors_is_refused(self):
        distraction = _distraction(Distractor("balls", 0.5))
        distraction.start(3)
        with pytest.raises(
            ConfigError, match=r"of distractors balls:0\.5, but the environment has noise:0\.5:held-out"
        ):
            _distraction(Distractor("noise", 0.5, split="held-out")).restore(distraction.snapshot())

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_frame_can_be_seen_again(self, kind, seaquest_frame):
        distraction = _distraction(Distractor(kind, 0.7))
        for seen in _frames(distraction, seaquest_frame, 5)[-1:]:
            np.testing.assert_array_equal(distraction.again(seaquest_frame), seen)


class TestIntensity:
    @pytest.mark.parametrize("kind", KINDS)
    def test_zero_leaves_every_pixel(self, kind, seaquest_frame):
        frames = _frames(_distraction(Distractor(kind, 0.0)), seaquest_frame, 31)
        np.testing.assert_array_equal(frames, np.broadcast_to(seaquest_frame, frames.shape))

    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_more_of_it_is_seen_more(self, kind, split, seaquest_frame):
        changes = []
        for intensity in (0.0, 0.25, 0.5, 0.75, 1.0):
            distraction = _distraction(Distractor(kind, intensity, split=split))
            frames = [_frames(distraction, seaquest_frame, 13, seed) for seed in range(7)]
            changes.append(np.abs(np.concatenate(frames).astype(int) - seaquest_frame).mean())
        assert changes[0] == 0
        assert (np.diff(changes) > 0).all()

    def test_the_given_frame_is_never_written_to(self, seaquest_frame):
        before = seaquest_frame.copy()
        _frames(_distraction(*(Distractor(kind, 1.0) for kind in KINDS)), seaquest_frame, 9)
        np.testing.assert_array_equal(seaquest_frame, before)


class TestMotion:
    @pytest.mark.parametrize("kind", MOVING)
    def test_a_static_distractor_stays_within_an_episode_and_changes_with_the_next(self, kind, seaquest_frame):
        frames = _frames(_distraction(Distractor(kind, 0.8, dynamic=False)), seaquest_frame, 61)
        np.testing.assert_array_equal(frames, np.broadcast_to(frames[0], frames.shape))
        others = [
            _frames(_distraction(Distractor(kind, 0.8, dynamic=False)), seaquest_frame, 1, episode=n) for n in (1, 2, 3)
        ]
        assert any((other[0] != frames[0]).any() for other in others)

    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_dynamic_one_changes(self, kind, split, seaquest_frame):
        frames = _frames(_distraction(Distractor(kind, 0.8, split=split)), seaquest_frame, 61)
        assert (frames != frames[0]).any()

    def test_balls_never_jump_not_even_where_their_film_turns(self):
        black = np.zeros((210, 160, 3), np.uint8)
        distraction = _distraction(Distractor("balls", 0.0001), screen=Screen(210, 160))  # one ball
        centres = [np.argwhere(frame.any(axis=2)).mean(axis=0) for frame in _frames(distraction, black, 907)]
        steps = np.abs(np.diff(centres, axis=0))
        assert 1 <= steps.max() <= 0.012 * 210 + 1.5


class TestComposition:
    def test_the_second_distractor_works_on_what_the_first_one_left(self, seaquest_frame):
        balls, shake, nothing = Distractor("balls", 0.5), Distractor("shake", 0.5), Distractor("noise", 0.0001)
        together = _frames(_distraction(balls, shake), seaquest_frame, 13)
        alone = _frames(_distraction(balls), seaquest_frame, 13)
        second = _distraction(nothing, shake)  # the same place in the order, hence the same motion
        second.start(3)
        np.testing.assert_array_equal(np.stack([second(frame) for frame in alone]), together)
        assert (together != alone).any()

    def test_two_of_a_kind_are_two_different_ones(self, seaquest_frame):
        one = _frames(_distraction(Distractor("balls", 0.5)), seaquest_frame, 3)
        two = _frames(_distraction(Distractor("balls", 0.5), Distractor("balls", 0.5)), seaquest_frame, 3)
        assert (two != seaquest_frame).any(axis=3).sum() > 1.5 * (one != seaquest_frame).any(axis=3).sum()

    def test_the_order_counts(self):
        black = np.zeros((210, 160, 3), np.uint8)
        colour, balls = Distractor("colour", 1.0), Distractor("balls", 1.0)
        first = _frames(_distraction(colour, balls), black, 3)
        last = _frames(_distraction(balls, colour), black, 3)
        assert (first != last).any()


class TestOtherScreens:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [(37, 53), (420, 320), (210, 11)])
    def test_every_kind_works_on_frames_of_any_size(self, kind, size):
        frame = np.random.default_rng(5).integers(256, size=(*size, 3), dtype=np.uint8)
        frame[: size[0] // 2] = (9, 30, 60)
        frames = _frames(_distraction(Distractor(kind, 1.0), screen=Screen(*size)), frame, 41)
        assert frames.shape == (41, *size, 3)
        assert (frames != frame).any()

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [(1, 1), (2, 40)])
    def test_every_kind_bears_frames_that_are_hardly_any(self, kind, size):
        black = np.zeros((*size, 3), np.uint8)
        assert _frames(_distraction(Distractor(kind, 1.0), screen=Screen(*size)), black, 41).shape == (41, *size, 3)


class TestStamps:
    @pytest.mark.parametrize(
        ("top", "left", "rows", "columns"),
        [(2, 3, (2, 5), (3, 5)), (-1, -1, (0, 2), (0, 1)), (9, 6, (9, 11), (6, 7)), (50, 3, (0, 0), (0, 0))],
    )
    def test_what_lies_beyond_the_edge_is_cut_off(self, top, left, rows, columns):
        frame = np.zeros((11, 7, 3), np.uint8)
        put(frame, stamp_of(np.ones((3, 2), bool), np.array([5, 6, 7], np.uint8)), top, left)
        expected = np.zeros_like(frame)
        expected[slice(*rows), slice(*columns)] = (5, 6, 7)
        np.testing.assert_array_equal(frame, expected)

    def test_holes_show_what_is_below(self):
        frame = np.full((3, 3, 3), 200, np.uint8)
        mask = np.zeros((3, 3), np.uint8)
        mask[1, 2] = 255
        put(frame, Stamp(np.full((3, 3, 3), 9, np.uint8), mask), 0, 0)
        assert (frame == 9).sum() == 3
        assert (frame[1, 2] == 9).all()
