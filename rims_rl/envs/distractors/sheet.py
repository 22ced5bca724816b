"""A picture of every kind of distractor on real game screens, to be looked at.

Axes: H rows, W columns.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from rims_rl.envs.distractors.distraction import Distraction
from rims_rl.envs.distractors.distractor import KINDS, SPLITS, Distractor, Distractors
from rims_rl.envs.distractors.effect import Screen
from rims_rl.envs.distractors.looks import Frame
from rims_rl.envs.emulator import typical_screens
from rims_rl.errors import ConfigError

_GAMES = ("pong", "breakout", "seaquest", "space_invaders", "ms_pacman", "beam_rider")
_SHOWN = ((0.25, "train"), (0.5, "train"), (1.0, "train"), (0.5, "held-out"))
_WIDTH, _HEIGHT, _GAP, _TITLE, _CAPTION = 124, 163, 6, 22, 18
_COMBINED = ("balls", "background", "shake")
_BLOCKS = 2  # side by side
_FRAMES = 96  # of an episode, of which the one that is altered most is shown
_PAPER, _INK, _PALE = (252, 252, 250), (30, 30, 30), (110, 110, 110)


def contact_sheet(path: Path) -> None:
    """Draw every kind of distractor at three intensities, and at 0.5 from the held-out split, into a PNG file.

    Raises:
        ConfigError: when the file can't be written.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} to write {path.name} into")
    blocks = [_block((kind,), KINDS[kind], game) for kind, game in zip(KINDS, cycle(_GAMES), strict=False)]
    blocks.append(_block(_COMBINED, "one upon the other", "breakout"))
    blocks += [np.full_like(blocks[0], _PAPER)] * (-len(blocks) % _BLOCKS)
    rows = [np.concatenate(blocks[start : start + _BLOCKS], axis=1) for start in range(0, len(blocks), _BLOCKS)]
    sheet = np.pad(np.concatenate(rows), ((_GAP, 0), (_GAP, 0), (0, 0)), constant_values=_PAPER[0])
    found, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    try:
        path.write_bytes(data.tobytes() if found else b"")
    except OSError as problem:
        raise ConfigError(f"{path} can't be written: {problem.strerror}") from problem


def _block(kinds: tuple[str, ...], description: str, game: str) -> Frame:
    """Return some kinds together on one game: a title, then a cell per intensity and split."""
    cells = np.concatenate([_cell(kinds, power, split, game) for power, split in _SHOWN], axis=1)
    title = np.full((_TITLE, cells.shape[1], 3), _PAPER, np.uint8)
    name = " + ".join(kinds)
    _write(title, name, 0, 0.5, _INK)
    _write(title, description, 10 + _text_width(name, 0.5), 0.36, _PALE)
    return np.concatenate([title, cells, np.full((_GAP, cells.shape[1], 3), _PAPER, np.uint8)])


def _cell(kinds: tuple[str, ...], intensity: float, split: str, game: str) -> Frame:
    """Return a game's screen under distractors, small, with their intensity and split below."""
    cell = np.full((_HEIGHT + _CAPTION, _WIDTH + _GAP, 3), _PAPER, np.uint8)
    altered = most_altered(tuple(Distractor(kind, intensity, split=split) for kind in kinds), game)
    small = cv2.resize(altered, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
    cell[:_HEIGHT, :_WIDTH] = np.asarray(small, np.uint8) & 0xF0  # fewer shades, or noise makes the file large
    held_out = "" if split == SPLITS[0] else ", held-out"
    _write(cell[_HEIGHT:], f"{intensity:g}{held_out}", 0, 0.38, _INK)
    return cell


def most_altered(distractors: Distractors, game: str) -> Frame:
    """Return a typical screen (H, W, 3) as that frame of an episode in which distractors change it most."""
    screen = typical_screens(game)[7]
    distraction = Distraction(distractors, Screen(screen.shape[0], screen.shape[1], game))
    distraction.start(seed=3)
    frames = [distraction(screen) for _ in range(_FRAMES)]
    return max(frames, key=lambda frame: float(cv2.absdiff(frame, screen).mean()))


def _write(picture: Frame, text: str, left: int, size: float, colour: tuple[int, int, int]) -> None:
    """Write into a picture, in place."""
    cv2.putText(picture, text, (left, 13), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _text_width(text: str, size: float) -> int:
    """Return the width of a text in pixels."""
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])
