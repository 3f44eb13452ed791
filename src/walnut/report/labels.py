"""Names at the ends of lines, kept apart: a legend that needs no looking up."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from .palette import light
from .parts import Number
from .words import known, shortened


def name_ends(
    axes: Axes,
    ends: Sequence[tuple[float, float]],
    forms: Sequence[str],
    numbers: dict[str, int],
    length: int = 20,
) -> None:
    """Write each line's name at its end, apart enough to read, in its colour.

    An end is an x of the data and a height as a share of the axes.
    """
    heights = [value if known(value) else 0.0 for _, value in ends]
    right = max((x for x, _ in ends), default=0.0)
    for i, height in zip(range(len(forms)), spread(heights, 0.072, low=0.04), strict=True):
        color = light(f"series-{numbers[forms[i]]}")
        # offset in points: the names stand in a column of their own, right of the last radius
        axes.annotate(
            shortened(forms[i], length),
            (right, height),
            xycoords=axes.get_xaxis_transform(),
            xytext=(12, 0),
            textcoords="offset points",
            va="center_baseline",
            color=color,
            annotation_clip=False,
            fontweight="bold",
        )


def spread(
    heights: Sequence[float], gap: Number, low: Number = 0.0, high: Number = 1.0
) -> list[float]:
    """Return heights moved as little as keeps them ``gap`` apart and in [low, high], in order.

    The first of two equal heights goes on top:

    >>> spread([0.5, 0.5, 0.9], 0.1)
    [0.55, 0.45, 0.9]
    """
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i))
    runs: list[tuple[float, int]] = []  # labels that touch: their common centre, how many
    for i in order:
        centre, number = heights[i], 1
        while runs and centre - runs[-1][0] < gap * (number + runs[-1][1]) / 2:
            below, several = runs.pop()
            centre = (centre * number + below * several) / (number + several)
            number += several
        runs.append((centre, number))
    placed = [c + gap * (k - (n - 1) / 2) for c, n in runs for k in range(n)]
    last = len(placed) - 1
    placed = [max(value, low + gap * k) for k, value in enumerate(placed)]
    placed = [min(value, high - gap * (last - k)) for k, value in enumerate(placed)]
    result = [0.0] * len(heights)
    for value, i in zip(placed, order, strict=True):
        result[i] = round(value, 6)
    return result
