"""Accuracy against eps as a verdict gives it: its points, the eps that was asked, where half falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .figures import CHARACTER, canvas, in_order, percent_axis
from .labels import name_ends
from .palette import DASHES, light, series
from .parts import Number
from .svg import styled
from .words import known, percent, radius, shortened

Z = 1.959963984540054  # two-sided 95 %
LONGEST = 13  # characters of a name at a line's end, so that a phone can still show the chart whole


def wilson(share: float, total: Number) -> tuple[float, float]:
    """Return the 95 % interval of a proportion of ``total`` (Wilson 1927).

    >>> low, high = wilson(0.5, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    wide = 1 + Z * Z / total
    centre = (share + Z * Z / (2 * total)) / wide
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total)) / wide
    return max(0.0, centre - half), min(1.0, centre + half)


def whole_curve(entry: dict[str, Any]) -> dict[str, Any]:
    """Return one form's curve from the clean accuracy at 0 on, with its 95 % band.

    ``entry`` is one of the verdicts: ``clean``, ``curve`` and, for the band, ``robust["total"]``.
    """
    points = list(zip(entry["curve"]["eps"], entry["curve"]["accuracy"], strict=True))
    if not any(eps == 0 for eps, _ in points):
        points = [(0.0, entry["clean"]["value"]), *points]
    total = entry["robust"].get("total")
    made: dict[str, Any] = {
        "form": str(entry["form"]),
        "eps": [eps for eps, _ in points],
        "accuracy": [value for _, value in points],
        "median": entry["curve"].get("median"),
    }
    if known(total) and total > 0 and all(known(value) for value in made["accuracy"]):
        made["low"], made["high"] = zip(*(wilson(v, total) for v in made["accuracy"]), strict=True)
    return made


def curve_figure(curves: Sequence[dict[str, Any]], asked: Sequence[Number], norm: str) -> Figure:
    """Draw accuracy left against eps, a line a form.

    Args:
        curves: as :func:`whole_curve` returns them.
        asked: radii that the verdict was asked for: a dashed upright line each.
        norm: of the radii, as people write it.
    """
    forms = [curve["form"] for curve in curves]
    numbers = series(forms)
    longest = max(len(shortened(form, LONGEST)) for form in forms)
    margin = longest * CHARACTER + 16 if len(forms) > 1 else 18
    width, height = 310 + margin, 286
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((52 / width, 46 / height, 248 / width, 212 / height))
        for curve in curves:
            draw_curve(axes, curve, numbers[curve["form"]])
        percent_axis(axes)
        axes.set_xlim(0, max(max(curve["eps"]) for curve in curves))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.set_xlabel(f"ε, {norm} radius in input units")
        for eps in asked:
            mark_asked(axes, eps)
        if len(forms) > 1:
            ends = [in_order(curve, "accuracy") for curve in curves]
            places = [(eps[-1], value[-1]) for eps, value in ends]
            name_ends(axes, places, forms, numbers, LONGEST)
    return figure


def draw_curve(axes: Axes, curve: dict[str, Any], number: int) -> None:
    """Draw one form's line with its band, and a diamond at its median."""
    color = light(f"series-{number}")
    eps, accuracy = in_order(curve, "accuracy")
    if curve.get("low"):
        low, high = in_order(curve, "low")[1], in_order(curve, "high")[1]
        axes.fill_between(eps, low, high, color=color, alpha=0.13, linewidth=0)
    axes.plot(eps, accuracy, color=color, linestyle=DASHES[number])
    axes.plot(eps, accuracy, color=color, linestyle="", marker="o", markersize=3.4, clip_on=False)
    median = curve.get("median")
    if known(median) and eps[0] <= median <= eps[-1]:
        height = at(eps, accuracy, median)
        faint: dict[str, Any] = {"color": color, "linewidth": 1, "linestyle": (0, (1, 2))}
        axes.plot([median, median], [0, height], **faint)
        diamond: dict[str, Any] = {
            "marker": "D",
            "markersize": 8,
            "markeredgewidth": 2,
            "markerfacecolor": light("panel"),
            "markeredgecolor": color,
        }
        axes.plot([median], [height], zorder=4, linestyle="", **diamond)


def at(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Return the height of a line at ``x``.

    >>> at([0.0, 1.0, 2.0], [1.0, 0.5, 0.0], 1.5)
    0.25
    """
    for i in range(1, len(xs)):
        if x <= xs[i]:
            share = (x - xs[i - 1]) / (xs[i] - xs[i - 1]) if xs[i] > xs[i - 1] else 1.0
            return ys[i - 1] + share * (ys[i] - ys[i - 1])
    return ys[-1]


def mark_asked(axes: Axes, eps: Number) -> None:
    """Draw the radius that was asked, its name above the axes."""
    axes.axvline(eps, color=light("ink"), linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    left, right = axes.get_xlim()
    share = (eps - left) / (right - left) if right > left else 0.5
    side = "left" if share < 0.25 else "right" if share > 0.75 else "center"
    axes.text(
        eps,
        1.035,
        f"asked ε\u00a0=\u00a0{radius(eps)}",
        transform=axes.get_xaxis_transform(),
        ha=side,
        color=light("muted"),
        fontsize=11.5,
    )


def median_words(curve: dict[str, Any]) -> str:
    """Return where half of those that were right have fallen, in a few words."""
    if known(curve.get("median")):
        return radius(curve["median"])
    left = next((v for v in reversed(curve["accuracy"]) if known(v)), None)
    return f"beyond {radius(curve['eps'][-1])} ({percent(left)} left)"
