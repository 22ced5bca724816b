"""NumPy generators as text, so that a snapshot of an environment holds no pickled object."""

from __future__ import annotations

import json

import numpy as np

from rims_rl.errors import ConfigError, said
from rims_rl.storage.plain_files import parse_json
from rims_rl.storage.random_states import check_bit_generator


def dump_generator(generator: np.random.Generator) -> str:
    """Return the generator's whole state as JSON."""
    return json.dumps(generator.bit_generator.state)


def load_generator(generator: np.random.Generator, text: str) -> None:
    """Set the generator's state to the one in `text`, which `dump_generator` wrote.

    Raises:
        ConfigError: when it is none for this kind of generator; the generator is as it was.
    """
    try:
        state = parse_json(text)
        check_bit_generator(type(generator.bit_generator)(), state)
        generator.bit_generator.state = state
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ConfigError(f"a stored generator is damaged ({said(error)})") from None
