"""A figure on the page: inline SVG, its title, and its numbers beside it."""

from __future__ import annotations

from matplotlib.figure import Figure

from .parts import Chart, Table
from .svg import inline_svg


def chart(figure: Figure, *, prefix: str, title: str, words: str, table: Table) -> Chart:
    """Return a figure with what stands around it; ``words`` say what it shows to who cannot see."""
    svg = inline_svg(figure, prefix=prefix, title=title, description=words)
    return Chart(title, svg, round(72 * figure.get_figwidth()), table)
