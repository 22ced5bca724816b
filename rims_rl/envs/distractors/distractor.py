"""Distractors as data: what they are called, how strong they are, and the texts that name them.

`balls:0.5` is half of the greatest intensity, `balls:0.5:static` does not move, `balls:0.5:held-out` is of the other
split, and `+` puts one upon the other: `balls:0.5+noise:0.2`. `background:0.5:folder=clips` shows the user's videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rims_rl.envs.distractors.videos import check_folder
from rims_rl.errors import ConfigError, UnknownNameError, shortened

KINDS: dict[str, str] = {
    "balls": "balls that bounce off each other and off the screen's edges",
    "blobs": "large translucent shapes that drift",
    "sprites": "figures cut from other games' screens, marching by",
    "noise": "gaussian noise on every pixel",
    "salt-and-pepper": "pixels that turn black or white",
    "flicker": "the screen's brightness pulses",
    "drop": "frames that are lost, up to every second one",
    "colour": "the whole screen is tinted",
    "contrast": "the screen's contrast and brightness are off",
    "curtain": "bars that sweep over the screen and hide what is behind",
    "shake": "the camera moves",
    "background": "moving textures, or the user's videos, behind the game",
    "digits": "counters that look like scores and mean nothing",
}
"""Every kind, and what it does."""

SPLITS = ("train", "held-out")
_MOST = 32  # in one text
_ONLY_DYNAMIC = ("flicker", "drop")
_FORM = "write kind:intensity[:static][:held-out][:folder=PATH], joined by +, as in balls:0.5+noise:0.2"


@dataclass(frozen=True)
class Distractor:
    """One distractor: a kind, how strong it is, and from which half of all looks and motions it is drawn.

    Raises:
        ConfigError: one line on the first field that cannot work; UnknownNameError for an unknown kind.
    """

    kind: str
    """One of `KINDS`."""
    intensity: float = 0.5
    """From 0 (not a pixel is changed) to 1; at 0.5 a person can still play."""
    dynamic: bool = True
    """Whether it moves or changes within an episode; flicker and drop always do."""
    split: str = "train"
    """train or held-out: the two never share a shape, a colour, a texture, a video or a motion."""
    folder: str | None = None
    """For background: a folder of videos or images to show instead of the textures that are built in."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise UnknownNameError("kind of distractor", str(self.kind), KINDS)
        if isinstance(self.intensity, bool) or not isinstance(self.intensity, int | float):
            raise ConfigError(f"intensity must be a number from 0 to 1, got {shortened(self.intensity)}")
        if not 0 <= self.intensity <= 1:
            raise ConfigError(f"intensity must be from 0 to 1, got {shortened(self.intensity)}")
        object.__setattr__(self, "intensity", float(self.intensity))
        if not isinstance(self.dynamic, bool):
            raise ConfigError(f"dynamic must be True or False, got {shortened(self.dynamic)}")
        if self.kind in _ONLY_DYNAMIC and not self.dynamic:
            raise ConfigError(f"{self.kind} is a change over time and can't be static")
        check_split(self.split)
        if self.folder is not None:
            if self.kind != "background":
                raise ConfigError(f"folder is for the kind background, got it for {self.kind}")
            if not isinstance(self.folder, str):
                raise ConfigError(f"folder must be a path as text, got {shortened(self.folder)}")
            check_folder(Path(self.folder))

    @property
    def text(self) -> str:
        """The text that `parse_distractors` reads back."""
        held_out = "" if self.split == SPLITS[0] else f":{self.split}"
        folder = "" if self.folder is None else f":folder={self.folder}"
        return f"{self.kind}:{self.intensity!r}" + ("" if self.dynamic else ":static") + held_out + folder


Distractors = tuple[Distractor, ...]
AnyDistractor = str | Distractor | Mapping[str, Any] | Iterable[Distractor | Mapping[str, Any]] | None


def check_split(split: object) -> None:
    """Raise UnknownNameError unless `split` is train or held-out."""
    if not isinstance(split, str) or split not in SPLITS:
        raise UnknownNameError("distractor split", str(split), SPLITS)


def parse_distractors(text: str, split: str = "train") -> Distractors:
    """Return the distractors that a text like `balls:0.5+noise:0.2:static` names, the first applied first.

    Args:
        text: parts joined by +, as above; a path with + or : in it fits only into a `Distractor`.
        split: of the parts that name none.

    Raises:
        ConfigError: one line on what can't be read, with the right form; UnknownNameError for an unknown kind.
    """
    parts = text.split("+")
    if len(parts) > _MOST:
        raise ConfigError(f"at most {_MOST} distractors can be joined, got {len(parts):,}")
    return tuple(_parse_one(part, text, split) for part in parts)


def _parse_one(part: str, text: str, split: str) -> Distractor:
    """Return the distractor that one part of a text names."""
    kind, *rest = (word.strip() for word in part.split(":"))
    settings: dict[str, Any] = {"split": split}
    for word in rest:
        name, value = _read_word(word)
        if value is None or (name in settings and name != "split"):
            raise ConfigError(f"distractor {shortened(text)} can't be read; {_FORM}")
        settings[name] = value
    return Distractor(kind, **settings)


def _read_word(word: str) -> tuple[str, Any]:
    """Return the field that a word of a text sets, and its value; None when it can't be read."""
    if word in SPLITS:
        return "split", word
    if word == "static":
        return "dynamic", False
    if word.startswith("folder="):
        return "folder", word.removeprefix("folder=")
    try:
        return "intensity", float(word)
    except ValueError:
        return "intensity", None


def as_distractors(value: AnyDistractor, split: str | None = None) -> Distractors:
    """Return distractors from a text, a `Distractor`, plain data as `as_plain` gives, or several; () for None.

    Args:
        value: what is asked for.
        split: train or held-out instead of what `value` says; None leaves it.
    """
    if split is not None:
        check_split(split)
    if value is None:
        found: Distractors = ()
    elif isinstance(value, str):
        found = parse_distractors(value)
    elif isinstance(value, Distractor | Mapping):
        found = (_from_one(value),)
    elif isinstance(value, Iterable):
        found = tuple(_from_one(one) for one in value)
    else:
        raise ConfigError(f"distractor must be a text like 'balls:0.5' or a Distractor, got {shortened(value)}")
    return found if split is None else tuple(replace(one, split=split) for one in found)


def _from_one(value: object) -> Distractor:
    """Return a distractor from itself or from plain data."""
    if isinstance(value, Distractor):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"distractor must be a text like 'balls:0.5' or a Distractor, got {shortened(value)}")
    known = [field.name for field in fields(Distractor)]
    for key in value:
        if key not in known:
            raise UnknownNameError("field of a distractor", str(key), known)
    if "kind" not in value:
        raise ConfigError(f"a distractor needs a kind, got {shortened(dict(value))}")
    return Distractor(**value)


def as_plain(distractors: Distractors) -> list[dict[str, Any]]:
    """Return the distractors as what JSON can hold; `as_distractors` reads it back."""
    return [asdict(one) for one in distractors]
