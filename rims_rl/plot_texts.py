"""Texts in plots are shown as they are: Matplotlib takes what stands between two dollar signs for mathematics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rims_rl.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_LINE = 200


def make_plain(figure: Figure) -> None:
    """Take every text in a figure as it is written, its lines no longer than fit."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_text("\n".join(printable(line, _LONGEST_LINE) for line in text.get_text().split("\n")))
