"""What was chosen among: the front of a recipe search, and what each layer can spare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import tables
from .charts import chart
from .figures import CHARACTER, canvas, percent_axis
from .labels import name_ends
from .palette import DASHES, MARKERS, light, series
from .parts import Cell, Column, Number, Section, Table
from .svg import styled
from .words import count, known, milliseconds, percent, radius, size

Record = dict[str, Any]
LINES = 6  # layers in one chart
MEASURES = (("accuracy", "Clean accuracy"), ("robust", "Robust accuracy"))


def front(result: Record) -> Section:
    """Every candidate of a search: cost against accuracy and robust accuracy, and as a table."""
    found, goal = result["front"], result.get("goal") or {}
    cost = "bytes" if not known(goal.get("latency_ms")) else "latency_ms"
    charts = []
    for key, title in MEASURES:
        if not any(known(c.get(key)) for c in found):
            continue
        answer = next((c for c in found if c.get("chosen")), None)
        words = f"{title} on validation data against {NAMES[cost][0].lower()}, a mark a candidate"
        if answer is not None:
            words += (
                f"; the answer has {percent(answer.get(key))} at {NAMES[cost][1](answer[cost])}"
            )
        lines = [
            [str(c["name"]), NAMES[cost][1](c[cost]), percent(c.get(key))]
            for c in found
            if known(c.get(key))
        ]
        charts.append(
            chart(
                front_figure(found, key, cost, goal),
                prefix=f"front-{key}",
                title=title,
                words=words + ".",
                table=tables.grid(
                    title, "candidate", (NAMES[cost][0].lower(), "on validation"), lines
                ),
            )
        )
    intro = (
        "Every mark is a real file. Hollow: trials, trained briefly, robust accuracy by a short PGD, "
        "which flatters. Filled: made in full, robust accuracy by the cascade. Ringed: the answer. "
        "Dotted: what was asked for. The line joins finished candidates that no other beats."
    )
    if result.get("met") is False:
        intro = f"The goal is out of reach: the answer is the nearest. {intro}"
    told = (candidates(found, goal),)
    return Section("front", "The front", "Front", intro, charts=tuple(charts), tables=told)


NAMES: dict[str, tuple[str, Any]] = {
    "bytes": ("Bytes of the file", size),
    "latency_ms": ("Milliseconds an example", milliseconds),
}


def candidates(found: Sequence[Record], goal: Record) -> Table:
    """Return the candidates that no other beats, and what was chosen for each."""
    chosen = [c for c in found if c.get("front") or c.get("chosen")]
    names = list(dict.fromkeys(key for c in chosen for key in c.get("choice") or {}))
    eps = goal.get("eps")
    heads = [
        Column("Candidate", numeric=False),
        Column("Bytes", "of its file"),
        Column("Accuracy", "validation"),
        *([Column("Robust", f"ε\u00a0=\u00a0{radius(eps)}")] if known(eps) else []),
        Column("Latency", "one example"),
        *(Column(name.capitalize()) for name in names),
        Column("Goal", numeric=False),
    ]
    lines = []
    for c in chosen:
        robust = [Cell(percent(c.get("robust")))] if known(eps) else []
        picked = [Cell(choice((c.get("choice") or {}).get(name))) for name in names]
        told = "met" if c.get("met") else "missed"
        lines.append(
            (
                Cell(str(c["name"]), "the answer" if c.get("chosen") else "", head=True),
                Cell(count(c.get("bytes"))),
                Cell(percent(c.get("accuracy"))),
                *robust,
                Cell(milliseconds(c.get("latency_ms"))),
                *picked,
                Cell(told),
            )
        )
    return Table("The front, on validation data", tuple(heads), tuple(lines))


def choice(value: Any) -> str:
    """Return a chosen value: numbers with three figures.

    >>> choice(0.12345), choice(4), choice(True), choice(None)
    ('0.123', '4', 'yes', '–')
    """
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def front_figure(found: Sequence[Record], key: str, cost: str, goal: Record) -> Figure:
    """Draw candidates, cost (logarithmic) against one accuracy."""
    width, height = 340, 280
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((56 / width, 46 / height, 268 / width, 222 / height))
        some = [c for c in found if known(c.get(key)) and known(c.get(cost)) and c[cost] > 0]
        for stage, number in (("trial", 7), ("finished", 0)):
            marks(axes, [c for c in some if (c.get("stage") == "finished") == (number == 0)],
                  key, cost, number, filled=stage == "finished")  # fmt: skip
        best = sorted(
            (c[cost], c[key]) for c in some if c.get("front") and c["stage"] == "finished"
        )
        if len(best) > 1:
            axes.plot(*zip(*best, strict=True), color=light("series-0"), linewidth=1.2, zorder=1)
        for c in (c for c in some if c.get("chosen")):
            ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 2}
            axes.plot([c[cost]], [c[key]], "o", markersize=15, color=light("series-1"), **ring)
        axes.set_xscale("log")
        percent_axis(axes)
        wanted(axes, goal, key, cost)
        log_ticks(axes, [c[cost] for c in some])
        axes.set_xlabel(NAMES[cost][0])
    return figure


def marks(
    axes: Axes, some: Sequence[Record], key: str, cost: str, number: int, *, filled: bool
) -> None:
    """Draw one stage's candidates."""
    color = light(f"series-{number}")
    face = color if filled else "none"
    places = [(c[cost], c[key]) for c in some]
    if places:
        axes.plot(
            *zip(*places, strict=True), linestyle="", marker=MARKERS[0], color=color,
            markerfacecolor=face, clip_on=False, zorder=3,
        )  # fmt: skip


def wanted(axes: Axes, goal: Record, key: str, cost: str) -> None:
    """Draw the goal: a dotted line at the least accuracy and one at the highest cost."""
    dots: dict[str, Any] = {"color": light("ink"), "linewidth": 1.2, "linestyle": (0, (1, 2))}
    if known(goal.get(key)):
        axes.axhline(goal[key], **dots)
    if known(goal.get(cost)):
        axes.axvline(goal[cost], **dots)


def log_ticks(axes: Axes, values: Sequence[Number]) -> None:
    """Put at most five round ticks on a logarithmic axis: 1, 2 and 5 times powers of ten."""
    low, high = min(values, default=1), max(values, default=10)
    axes.set_xlim(low / 1.25, high * 1.25)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    round_ones = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    inside = [t for t in round_ones if low / 1.25 <= t <= high * 1.25]
    if len(inside) > 5:
        inside = [t for t in inside if f"{t:e}"[0] == "1"] or inside[:: len(inside) // 4]
    axes.xaxis.set_major_locator(FixedLocator(inside))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.tick_params(length=0, pad=6)


def short(value: float) -> str:
    """Return a tick's number: ``500``, ``20k``, ``1M``, ``0.05``.

    >>> short(500), short(20000.0), short(1e6), short(0.05)
    ('500', '20k', '1M', '0.05')
    """
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def sensitivity(result: Record) -> Section:
    """Accuracy against the density of one layer, the others whole; some layers a chart."""
    found = result["sensitivity"]
    charts = []
    for at in range(0, len(found), LINES):
        some = found[at : at + LINES]
        title = str(some[0]["layer"])
        title += f" to {some[-1]['layer']}" if len(some) > 1 else ""
        lines = [
            [str(entry["layer"]), percent(density), percent(value)]
            for entry in some
            for density, value in zip(entry["density"], entry["accuracy"], strict=True)
        ]
        charts.append(
            chart(
                sensitivity_figure(some),
                prefix=f"sensitivity-{at}",
                title=title,
                words="Validation accuracy against the share of one layer's weights that stays.",
                table=tables.grid(title, "layer", ("weights kept", "accuracy"), lines),
            )
        )
    intro = (
        f"Each line is the accuracy on {count(found[0].get('examples'))} validation examples with "
        "one layer pruned by magnitude and not retrained, the others whole. A line that stays up to "
        "the left end belongs to a layer that can spare most of its weights."
    )
    return Section(
        "sensitivity", "What each layer can spare", "Layers", intro, charts=tuple(charts)
    )


def layer_name(name: str, length: int = 14) -> str:
    """Return what tells layers apart: the end of the name, without ``.weight``.

    >>> layer_name("layer1.0.conv1.weight"), layer_name("features.stage.12.conv2.weight")
    ('layer1.0.conv1', '…tage.12.conv2')
    """
    name = name.removesuffix(".weight")
    return name if len(name) <= length else f"…{name[1 - length :]}"


def sensitivity_figure(entries: Sequence[Record]) -> Figure:
    """Draw layers' curves, density (logarithmic) against accuracy."""
    names = [layer_name(str(entry["layer"])) for entry in entries]
    numbers = series(names)
    margin = max(len(name) for name in names) * CHARACTER + 16
    width, height = 286 + margin, 280
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((52 / width, 46 / height, 222 / width, 222 / height))
        for name, entry in zip(names, entries, strict=True):
            number = numbers[name]
            kept: dict[str, Any] = {
                "color": light(f"series-{number}"),
                "marker": MARKERS[number],
                "markersize": 4.5,
            }
            axes.plot(
                entry["density"], entry["accuracy"], linestyle=DASHES[number], clip_on=False, **kept
            )
        axes.set_xscale("log")
        percent_axis(axes)
        smallest = min(min(entry["density"]) for entry in entries)
        axes.set_xlim(1.0, smallest)
        ticks = [t for t in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005) if t >= smallest * 0.999]
        axes.xaxis.set_major_locator(FixedLocator(ticks[:: 2 if len(ticks) > 5 else 1]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}\u00a0%"))
        axes.set_xlabel("weights of the layer that stay")
        ends = [(smallest, entry["accuracy"][-1]) for entry in entries]
        name_ends(axes, ends, names, numbers)
    return figure
