"""The page's charts: functions that return a matplotlib ``Figure``, for a page or a notebook.

No pyplot: nothing is registered anywhere, and a figure is gone when it is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .labels import name_ends
from .palette import DASHES, MARKERS, light, series
from .parts import Number
from .svg import styled
from .words import count, known, percent, radius, shortened

HEAT_DEPTH = 0.7  # at this opacity the ink still has a contrast of 4.5 : 1, light and dark
CHARACTER = 6.9  # pixels a character takes at 12 px, on the generous side


def canvas(width: Number, height: Number) -> Figure:
    """Return an empty figure of the given size in pixels of the page."""
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def transfer_heatmap(entry: dict[str, Any]) -> Figure:
    """Draw accuracy left on each network (columns) by examples made against each (rows).

    ``entry`` has ``names`` and ``accuracy[i][j]`` in [0, 1], source ``i`` and target ``j``, and
    may have ``noise[j]`` and ``clean[j]``, drawn beneath. The stronger the colour, the less is left.
    """
    names = [folded(shortened(str(name))) for name in entry["names"]]
    blocks = [list(zip(names, entry["accuracy"], strict=True))]
    controls = [(label, entry[key]) for key, label in CONTROLS if entry.get(key)]
    blocks += [controls] if controls else []
    longest = max(len(line) for name in names for line in name.split("\n"))
    tilted = longest > 9
    cell = 54 if tilted else max(54, longest * CHARACTER + 8)
    left = max(longest, max((len(label) for label, _ in controls), default=0)) * CHARACTER + 34
    lines = max(name.count("\n") for name in names)
    top = 28 + (longest * CHARACTER * 0.64 + 14 + 12 * lines if tilted else 22)
    rows = sum(map(len, blocks))
    width = left + cell * len(names) + (longest * CHARACTER * 0.5 if tilted else 2)
    height = top + 38 * rows + 12 * (len(blocks) - 1) + 2
    with styled():
        figure = canvas(width, height)
        axes = blank(figure, width, height)
        head: dict[str, Any] = (
            {"rotation": 40, "ha": "left", "va": "bottom"} if tilted else {"ha": "center"}
        )
        for j, name in enumerate(names):
            shift = -6 if tilted else 0
            axes.text(left + cell * (j + 0.5) + shift, top - 8, name, color=light("ink"), **head)
        middle = left + cell * len(names) / 2
        quiet: dict[str, Any] = {"color": light("muted"), "fontsize": 11.5}
        axes.text(middle, 14, "accuracy left on", ha="center", **quiet)
        made = top + 19 * len(names)
        axes.text(12, made, "made against", rotation=90, ha="center", va="center", **quiet)
        y = top
        for block in blocks:
            for label, values in block:
                heat_row(axes, label, values, left, y, cell)
                y += 38
            y += 12
    return figure


def folded(name: str) -> str:
    """Return a long name on two lines, broken at the space nearest its middle.

    >>> folded("lenet-300-100 seed 0")
    'lenet-300-100\\nseed 0'
    """
    spaces = [i for i, letter in enumerate(name) if letter == " "]
    if len(name) <= 12 or not spaces:
        return name
    middle = min(spaces, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:middle]}\n{name[middle + 1 :]}"


CONTROLS = (("noise", "noise"), ("clean", "clean"))


def heat_row(
    axes: Axes, label: str, values: Sequence[Any], left: Number, y: Number, cell: Number
) -> None:
    """Draw one row of the heat map, its values printed in its cells."""
    axes.text(left - 8, y + 19, label, ha="right", va="center", linespacing=1.0, color=light("ink"))
    for j, value in enumerate(values):
        depth = 0.04 + (HEAT_DEPTH - 0.04) * (1 - value) if known(value) else 0.0
        axes.add_patch(
            FancyBboxPatch(
                (left + cell * j + 2, y + 2),
                cell - 4,
                34,
                boxstyle="round,pad=0,rounding_size=3",
                facecolor=light("heat"),
                edgecolor="none",
                alpha=depth,
            )
        )
        text = percent(value).replace("\u00a0%", "")
        place = (left + cell * (j + 0.5), y + 19.5)
        axes.text(*place, text, ha="center", va="center_baseline", fontsize=12.5)


def blank(figure: Figure, width: Number, height: Number) -> Axes:
    """Return axes whose units are the page's pixels, from the top left."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    return axes


def robustness_curves(curves: Sequence[dict[str, Any]]) -> Figure:
    """Draw accuracy left against eps, a line a form, with its 95 % band, named at its end.

    Each curve has ``form``, ``eps`` and ``accuracy``, and may have ``low`` and ``high``.
    """
    forms = [str(curve["form"]) for curve in curves]
    numbers = series(forms)
    margin = min(150, max(len(shortened(form, 20)) for form in forms) * CHARACTER + 16)
    width, height = 330 + margin, 280
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((52 / width, 46 / height, 266 / width, 222 / height))
        for form, curve in zip(forms, curves, strict=True):
            number = numbers[form]
            color = light(f"series-{number}")
            eps, accuracy = in_order(curve, "accuracy")
            if curve.get("low") and curve.get("high"):
                low, high = in_order(curve, "low")[1], in_order(curve, "high")[1]
                axes.fill_between(eps, low, high, color=color, alpha=0.13, linewidth=0)
            mark: dict[str, Any] = {"marker": MARKERS[number], "linestyle": DASHES[number]}
            axes.plot(eps, accuracy, color=color, clip_on=False, **mark)
        percent_axis(axes)
        ticks = sorted({value for curve in curves for value in curve["eps"]})
        axes.set_xticks(thinned(ticks), [radius(tick) for tick in thinned(ticks)])
        axes.set_xlabel("ε, radius in input units")
        ends = [in_order(curve, "accuracy") for curve in curves]
        name_ends(axes, [(eps[-1], value[-1]) for eps, value in ends], forms, numbers)
    return figure


def in_order(curve: dict[str, Any], key: str) -> tuple[list[float], list[float]]:
    """Return a curve's radii, ascending, and its values at them; a missing value is a gap."""
    pairs = sorted(zip(curve["eps"], curve[key], strict=True), key=lambda pair: pair[0])
    return [float(e) for e, _ in pairs], [float(v) if known(v) else math.nan for _, v in pairs]


def thinned(ticks: Sequence[Number], most: int = 6) -> list[Number]:
    """Return ticks that are not too close to read: at least a sixth of the axis apart."""
    if len(ticks) < 2:
        return list(ticks)
    gap = (ticks[-1] - ticks[0]) / most
    kept = [ticks[0]]
    for tick in ticks[1:]:
        if tick - kept[-1] >= gap * 0.999:
            kept.append(tick)
    return kept


def percent_axis(axes: Axes) -> None:
    """Make the upright axis a proportion from nothing to all."""
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="\u00a0%"))
    axes.grid(axis="y")
    axes.tick_params(length=0, pad=6)
    axes.spines["left"].set_visible(False)


def weight_histograms(records: Sequence[dict[str, Any]]) -> Figure:
    """Draw one layer's non-zero weights, a strip a form, on a common axis.

    Each record has ``form``, ``edges`` (n + 1), ``counts`` (n) and may have ``zeros``. Every strip
    is scaled to its own fullest bin; zeros are left out of the bars and written beside the name.
    """
    numbers = series([str(record["form"]) for record in records])
    strip, width = 74, 340
    height = strip * len(records) + 34
    low = min(record["edges"][0] for record in records)
    high = max(record["edges"][-1] for record in records)
    with styled():
        figure = canvas(width, height)
        for i, record in enumerate(records):
            bottom = (34 + strip * (len(records) - 1 - i)) / height
            axes = figure.add_axes((14 / width, bottom, (width - 28) / width, 46 / height))
            color = light(f"series-{numbers[str(record['form'])]}")
            axes.stairs(record["counts"], record["edges"], fill=True, color=color, linewidth=0)
            axes.set(xlim=(low, high), ylim=(0, 1.12 * max([*record["counts"], 1])), yticks=[])
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.tick_params(length=0, pad=6, labelbottom=i == len(records) - 1)
            name = shortened(record.get("shown", str(record["form"])), 24)
            axes.text(0, 1.1, name, transform=axes.transAxes, color=color, fontweight="bold")
            note = zeros_note(record)
            head: dict[str, Any] = {
                "transform": axes.transAxes,
                "ha": "right",
                "color": light("muted"),
            }
            axes.text(1, 1.1, note, fontsize=11.5, **head)
    return figure


def zeros_note(record: dict[str, Any]) -> str:
    """Return how many of a layer's weights are zero, in a few words."""
    if record.get("zeros") is None:
        return ""
    total = record["zeros"] + sum(record["counts"])
    share = percent(record["zeros"] / total if total else None)
    return f"{share} of {count(total)} are zero" if record["zeros"] else "no zeros"


def history_curve(
    steps: Sequence[Number], values: Sequence[Any], *, share: bool, marks: Sequence[str] = ()
) -> Figure:
    """Draw one measure of a training; ``share`` says that it is a proportion.

    ``marks`` names each step's stage: a line stands where it changes.
    """
    width, height = 340, 210
    numbers = [float(value) if known(value) else math.nan for value in values]
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((56 / width, 42 / height, 268 / width, 144 / height))
        marker = "o" if len(steps) <= 40 else ""
        axes.plot(list(steps), numbers, color=light("series-0"), marker=marker, markersize=4)
        axes.grid(axis="y")
        axes.tick_params(length=0, pad=6)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if share:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}\u00a0%")
        for i in range(1, len(marks)):
            if marks[i] != marks[i - 1]:
                between = (steps[i] + steps[i - 1]) / 2
                axes.axvline(
                    between, color=light("strong-line"), linewidth=1, linestyle=(0, (2, 3))
                )
        axes.set_xlabel("step" if marks else "epoch")
    return figure
