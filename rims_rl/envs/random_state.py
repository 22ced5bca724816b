"""NumPy generators as text, so that a snapshot of an environment holds no pickled object."""

from __future__ import annotations

import json

import numpy as np


def dump_generator(generator: np.random.Generator) -> str:
    """Return the generator's whole state as JSON."""
    return json.dumps(generator.bit_generator.state)


def load_generator(generator: np.random.Generator, text: str) -> None:
    """Set the generator's state to the one in `text`, which `dump_generator` wrote."""
    generator.bit_generator.state = json.loads(text)
