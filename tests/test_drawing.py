"""The picture of one step: game, strip and trace say what happened."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.drawing import HEIGHT, HISTORY, WIDTH, Moment, Painter, fitted, unit_colour


def moments(count: int, units: int = 3) -> list[Moment]:
    """Return steps in which unit t % units alone is active, and whose frame is all t."""
    made = []
    for t in range(count):
        active = np.arange(units) == t % units
        frame = np.full((7, 11, 3), t, np.uint8)
        made.append(Moment(frame, t, float(t), 1.0, 0.5, "fire", active, np.full(units, 0.25, np.float32)))
    return made


class TestPicture:
    def test_active_steps_are_coloured_and_the_newest_is_at_the_right(self) -> None:
        painter = Painter("Pong", "RIM")
        for moment in moments(4):  # unit 0 is active at t = 0 and 3, unit 1 at 1, unit 2 at 2
            image = painter.paint(moment)
        right, step_width = 1124, 500 // HISTORY
        for unit, row in enumerate((270, 350, 430)):
            shown = [tuple(image[row, right - step_width * (4 - t) + 1]) == unit_colour(unit) for t in range(4)]
            assert shown == [t % 3 == unit for t in range(4)]

    def test_the_strip_scrolls(self) -> None:
        painter = Painter("Pong", "RIM")
        images = [painter.paint(moment) for moment in moments(HISTORY + 2)]
        strip = [image[240:470, 624:1124] for image in images[-2:]]
        assert np.array_equal(strip[0][:, 5:], strip[1][:, :-5])

    def test_the_game_is_in_the_picture_in_whole_pixels(self) -> None:
        frame = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3)
        large = fitted(frame, 14, 21)
        assert large.shape == (20, 12, 3)
        assert np.array_equal(large[::4, ::4], frame)

    def test_a_frame_larger_than_its_place_is_shrunk_in_proportion(self) -> None:
        assert fitted(np.zeros((400, 600, 3), np.uint8), 480, 630).shape == (320, 480, 3)

    @pytest.mark.parametrize("units", [1, 6, 24, 97])
    def test_any_number_of_units_fits(self, units: int) -> None:
        image = Painter("Pong", "RIM").paint(moments(1, units)[0])
        assert image.shape == (HEIGHT, WIDTH, 3)

    def test_the_frame_is_lit_where_the_units_look(self) -> None:
        attention = np.zeros(49, np.float32)
        attention[0] = 1.0
        moment = moments(1)[0]._replace(frame=np.full((70, 70, 3), 200, np.uint8), attention=attention)
        image = Painter("Pong", "RIM").paint(moment).astype(int)
        assert image[160, 80].sum() > 2 * image[555, 480].sum()  # upper left corner of the game against lower right

    def test_a_note_stands_above_the_game_and_nowhere_else(self) -> None:
        plain, noted = (Painter("Pong", "RIM", note).paint(moments(1)[0]) for note in ("", "balls 0.5"))
        rows, columns = np.nonzero((plain != noted).any(axis=-1))
        assert len(rows) > 50
        assert rows.max() < 45  # where the game begins
        assert (columns.min(), columns.max() < 520) >= (40, True)

    def test_what_the_agent_sees_stands_in_the_corner_pixel_by_pixel(self) -> None:
        seen = np.arange(84 * 84, dtype=np.uint16).reshape(84, 84).astype(np.uint8)
        image = Painter("Pong", "RIM").paint(moments(1)[0]._replace(seen=seen))
        assert np.array_equal(image[118:202, 1156:1240], np.repeat(seen[..., None], 3, axis=-1))

    def test_without_what_the_agent_sees_the_corner_stays_empty(self) -> None:
        image = Painter("CartPole", "RIM").paint(moments(1)[0])
        assert (image[112:208, 1100:] == image[0, 0]).all()

    def test_it_is_not_kept_for_later_pictures(self) -> None:
        painter, (first, second) = Painter("Pong", "RIM"), moments(2)
        painter.paint(first._replace(seen=np.full((84, 84), 200, np.uint8)))
        plain = Painter("Pong", "RIM")
        plain.paint(first)
        assert np.array_equal(painter.paint(second), plain.paint(second))

    def test_switches_count_beginnings_and_ends(self) -> None:
        painter = Painter("Pong", "RIM")
        painter.paint(moments(1)[0])
        assert painter.switches() == 0
        painter.paint(moments(2)[1])
        assert painter.switches() == 2
