"""Every kind of distractor at work."""

from __future__ import annotations

from rims_rl.envs.distractors.distractor import Distractor
from rims_rl.envs.distractors.effect import Effect, Screen
from rims_rl.envs.distractors.kinds.background import Background
from rims_rl.envs.distractors.kinds.camera import Shake
from rims_rl.envs.distractors.kinds.covers import Curtain, Digits
from rims_rl.envs.distractors.kinds.light import Colour, Contrast, Drop, Flicker
from rims_rl.envs.distractors.kinds.movers import Balls, Blobs, Sprites
from rims_rl.envs.distractors.kinds.pixels import Noise, SaltAndPepper

EFFECTS: dict[str, type[Effect]] = {
    "balls": Balls,
    "blobs": Blobs,
    "sprites": Sprites,
    "noise": Noise,
    "salt-and-pepper": SaltAndPepper,
    "flicker": Flicker,
    "drop": Drop,
    "colour": Colour,
    "contrast": Contrast,
    "curtain": Curtain,
    "shake": Shake,
    "background": Background,
    "digits": Digits,
}


def make_effect(spec: Distractor, screen: Screen) -> Effect:
    """Return the distractor at work on frames of that size."""
    return EFFECTS[spec.kind](spec, screen)
