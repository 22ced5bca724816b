"""The picture of one step: the game, the activity of the memory's units, and the value that the agent expects.

Colours are RGB, positions are (x, y) in pixels from the upper left corner.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 1280, 720
HISTORY = 100
"""Steps that the strip and the trace show."""

_BACKGROUND: Colour = (14, 17, 23)
_PANEL: Colour = (23, 27, 36)
_REST: Colour = (33, 39, 51)
_LINE: Colour = (52, 60, 76)
_DIM: Colour = (139, 149, 167)
_BRIGHT: Colour = (233, 237, 244)
_GAIN: Colour = (98, 205, 142)
_LOSS: Colour = (239, 105, 105)
_ATTENTION: Colour = (255, 176, 64)
# Told apart on dark ground, neighbours differing in lightness too.
_UNITS: tuple[Colour, ...] = (
    (86, 180, 233), (230, 159, 0), (46, 196, 150), (240, 128, 190), (240, 228, 66), (150, 140, 255), (255, 122, 80),
    (160, 210, 120),
)  # fmt: skip

_GAME_AT, _GAME_SIZE = (40, 45), (480, 630)
_LEFT, _RIGHT = 564, 1240
_STRIP_LEFT, _STRIP_RIGHT = 624, 1124
_NULL_LEFT = 1148
_STRIP_TOP, _STRIP_BOTTOM = 238, 476
_TRACE_BOTTOM = 675
_SEEN_TOP = 118
_MOST_TICKS = 40


class Moment(NamedTuple):
    """What one step has to show; K units, N places."""

    frame: Image
    """The game's picture, (H, W, 3)."""
    step: int
    """Steps since the episode's start."""
    score: float
    """Raw score so far."""
    reward: float
    """Raw reward of this step."""
    value: float
    """What the critic expects from here."""
    action: str
    """Name of the action."""
    active: NDArray[np.bool_] | None = None
    """Which units were active, (K,); None for a memory without units."""
    null_attention: NDArray[np.float32] | None = None
    """Attention of each unit on the null row, (K,)."""
    attention: NDArray[np.float32] | None = None
    """Attention of the active units on each place of the frame, (N,) with N a square number."""
    seen: Image | None = None
    """What the agent itself sees of the frame, grey (84, 84); None where that is no picture."""


class Painter:
    """Paints an episode step by step; remembers the last steps for the strip and the trace."""

    def __init__(self, title: str, subtitle: str, note: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.note = note
        self._past: deque[Moment] = deque(maxlen=HISTORY)

    def paint(self, moment: Moment) -> Image:
        """Return the picture (720, 1280, 3) of the next step."""
        self._past.append(moment._replace(frame=moment.frame[:0], seen=None))
        canvas = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
        _paint_game(canvas, moment)
        _text(canvas, self.note, (_GAME_AT[0], _GAME_AT[1] - 14), 0.5, _ATTENTION)
        _paint_seen(canvas, moment)
        _text(canvas, self.title, (_LEFT, 76), 1.15, _BRIGHT, bold=True)
        _text(canvas, self.subtitle, (_LEFT + 1, 106), 0.52, _DIM)
        _paint_numbers(canvas, moment)
        if moment.active is None:
            self._paint_trace(canvas, _STRIP_TOP)
        else:
            self._paint_units(canvas, moment)
            self._paint_trace(canvas, _STRIP_BOTTOM + 48)
        return canvas

    def switches(self) -> int:
        """Return how often a unit began or ended to be active in the steps shown; a frame with many tells more."""
        shown = [moment.active for moment in self._past if moment.active is not None]
        return int(np.sum(np.diff(np.array(shown, dtype=np.int8), axis=0) != 0)) if len(shown) > 1 else 0

    def _paint_units(self, canvas: Image, moment: Moment) -> None:
        assert moment.active is not None
        count = len(moment.active)
        _text(canvas, f"ACTIVE UNITS, last {HISTORY} steps", (_LEFT, _STRIP_TOP - 14), 0.42, _DIM)
        if moment.null_attention is not None:
            _text(canvas, "NULL ATTENTION", (_RIGHT, _STRIP_TOP - 14), 0.42, _DIM, align=1.0)
        edges = np.linspace(_STRIP_TOP, _STRIP_BOTTOM, count + 1).round().astype(int)
        for unit, (top, bottom) in enumerate(pairwise(edges)):
            gap = 3 if bottom - top > 12 else 1 if bottom - top > 3 else 0
            self._paint_unit(canvas, moment, unit, (int(top), int(bottom) - gap))

    def _paint_unit(self, canvas: Image, moment: Moment, unit: int, rows: tuple[int, int]) -> None:
        """Paint one unit's row: its name, its last steps, its attention on the null row."""
        assert moment.active is not None
        top, bottom = rows
        colour = unit_colour(unit)
        if bottom - top >= 12:
            middle = (top + bottom) // 2 + 5
            _text(canvas, f"unit {unit + 1}", (_LEFT, middle), 0.42, colour if moment.active[unit] else _DIM)
        canvas[top:bottom, _STRIP_LEFT:_STRIP_RIGHT] = _PANEL
        step_width = (_STRIP_RIGHT - _STRIP_LEFT) // HISTORY
        begin = _STRIP_RIGHT - step_width * len(self._past)
        for index, past in enumerate(self._past):
            if past.active is not None and past.active[unit]:
                left = begin + index * step_width
                canvas[top:bottom, left : left + step_width - 1] = colour
        if moment.null_attention is not None:
            share = float(np.clip(moment.null_attention[unit], 0.0, 1.0))
            canvas[top:bottom, _NULL_LEFT:_RIGHT] = _REST
            canvas[top:bottom, _NULL_LEFT : _NULL_LEFT + round(share * (_RIGHT - _NULL_LEFT))] = (
                colour if moment.active[unit] else _DIM
            )

    def _paint_trace(self, canvas: Image, top: int) -> None:
        """Paint the values of the last steps as a line, with a tick where the score changed."""
        values = np.array([moment.value for moment in self._past])
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        high = high if high - low > 1e-6 else low + 1.0
        _text(canvas, "EXPECTED RETURN", (_LEFT, top - 12), 0.42, _DIM)
        scored = [moment.reward for moment in self._past if moment.reward]
        has_ticks = len(scored) <= _MOST_TICKS  # where every step scores, ticks would tell nothing and hide the line
        if has_ticks:
            _text(canvas, "ticks: score went up or down", (_STRIP_RIGHT, top - 12), 0.42, _DIM, align=1.0)
        cv2.rectangle(canvas, (_STRIP_LEFT, top), (_STRIP_RIGHT - 1, _TRACE_BOTTOM), _PANEL, cv2.FILLED)
        rows = _TRACE_BOTTOM - 8 - (values - low) / (high - low) * (_TRACE_BOTTOM - top - 16)
        zero = round(_TRACE_BOTTOM - 8 + low / (high - low) * (_TRACE_BOTTOM - top - 16))
        cv2.line(canvas, (_STRIP_LEFT, zero), (_STRIP_RIGHT - 1, zero), _LINE, 1)
        _text(canvas, _short(high), (_STRIP_LEFT - 8, top + 14), 0.42, _DIM, align=1.0)
        _text(canvas, _short(low), (_STRIP_LEFT - 8, _TRACE_BOTTOM - 2), 0.42, _DIM, align=1.0)
        step_width = (_STRIP_RIGHT - _STRIP_LEFT) // HISTORY
        columns = _STRIP_RIGHT - step_width * (len(values) - np.arange(len(values))) + step_width // 2
        if has_ticks:
            self._paint_ticks(canvas, columns, top)
        points = np.stack([columns, rows], axis=-1).round().astype(np.int32)
        cv2.polylines(canvas, [points], False, _BRIGHT, 2, cv2.LINE_AA)
        column, row = (int(place) for place in points[-1])
        cv2.circle(canvas, (column, row), 4, _ATTENTION, cv2.FILLED, cv2.LINE_AA)
        _text(canvas, _short(float(values[-1])), (_NULL_LEFT, row + 5), 0.5, _BRIGHT)

    def _paint_ticks(self, canvas: Image, columns: NDArray[np.int64], top: int) -> None:
        for column, moment in zip(columns, self._past, strict=True):
            if moment.reward:
                colour = _GAIN if moment.reward > 0 else _LOSS
                cv2.line(canvas, (int(column), top + 1), (int(column), _TRACE_BOTTOM - 1), colour, 2)


def unit_colour(unit: int) -> Colour:
    """Return the colour of a unit."""
    return _UNITS[unit % len(_UNITS)]


def _paint_game(canvas: Image, moment: Moment) -> None:
    """Paint the frame as large as its box allows, whole pixels where it grows, and the attention over it."""
    x, y = _GAME_AT
    width, height = _GAME_SIZE
    canvas[y : y + height, x : x + width] = _PANEL
    picture = fitted(moment.frame, width, height)
    if moment.attention is not None:
        picture = _with_attention(picture, moment.attention)
        _text(canvas, "lit: where the active units look", (x + width, y + height + 20), 0.42, _DIM, align=1.0)
    left, top = x + (width - picture.shape[1]) // 2, y + (height - picture.shape[0]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def fitted(frame: Image, width: int, height: int) -> Image:
    """Return the frame scaled to fit: by a whole number where it grows, smoothly where it shrinks."""
    scale = min(width / frame.shape[1], height / frame.shape[0])
    scale = float(int(scale)) if scale >= 1 else scale
    size = (int(frame.shape[1] * scale), int(frame.shape[0] * scale))
    how = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(np.ascontiguousarray(frame), size, interpolation=how), np.uint8)


def _with_attention(picture: Image, attention: NDArray[np.float32]) -> Image:
    """Return the picture lit where the active units look, and dimmed to a third elsewhere."""
    side = round(len(attention) ** 0.5)
    grid = attention.reshape(side, side) / max(float(attention.max()), 1e-9)
    size = (picture.shape[1], picture.shape[0])
    light = cv2.resize(grid.astype(np.float32), size, interpolation=cv2.INTER_CUBIC).clip(0.0, 1.0)[..., None]
    lit: Image = (picture * (1 / 3 + 2 / 3 * light)).astype(np.uint8)
    return lit


def _paint_seen(canvas: Image, moment: Moment) -> None:
    """Paint what the agent sees in the upper right corner, without any scaling."""
    if moment.seen is None:
        return
    height, width = moment.seen.shape
    left, top = _RIGHT - width, _SEEN_TOP
    _text(canvas, "AGENT'S VIEW", (left - 12, top + 10), 0.42, _DIM, align=1.0)
    canvas[top - 1 : top + height + 1, left - 1 : _RIGHT + 1] = _LINE
    canvas[top : top + height, left:_RIGHT] = moment.seen[..., None]


def _paint_numbers(canvas: Image, moment: Moment) -> None:
    entries = [("SCORE", _short(moment.score)), ("STEP", f"{moment.step:,}"), ("ACTION", moment.action.lower())]
    for (label, text), left in zip(entries, (_LEFT, 724, 884), strict=True):
        _text(canvas, label, (left, 142), 0.42, _DIM)
        _text(canvas, text, (left - 1, 180), 1.0, _BRIGHT)


def _short(number: float) -> str:
    """Return a number as one reads it: whole ones without a point, others with two places."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.2f}"


def _text(
    canvas: Image, text: str, at: tuple[int, int], size: float, colour: Colour, bold: bool = False, align: float = 0.0
) -> None:
    """Write text whose baseline begins at `at`; with align=1.0 it ends there."""
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, 2 if bold else 1
    (width, _), _ = cv2.getTextSize(text, font, size, thickness)
    cv2.putText(canvas, text, (int(at[0] - align * width), at[1]), font, size, colour, thickness, cv2.LINE_AA)
