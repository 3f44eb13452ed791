"""Figures of the input space: logits along a direction, maps of the classes, counts of directions.

They take what ``json()`` of the results in :mod:`walnut.evaluate` gives: plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from .figures import canvas
from .palette import DASHES, SERIES, light
from .parts import Number
from .svg import styled
from .words import percent, shortened

Record = dict[str, Any]
Box = tuple[float, float, float, float]
TITLES = {"along": "adversarial", "random_signs": "random", "random_normal": "random"}


def logit_lines(records: Sequence[Record], classes: Sequence[str] = ()) -> Figure:
    """Draw the logits along each direction, a panel a direction, on a common axis.

    Each record has ``axis``, ``t`` (T), ``logits`` (T, classes), ``label``. The true class is
    drawn in ink, those that win anywhere in colours, the others quietly.
    """
    panel, left, height = 270, 52, 280
    width = left + panel * len(records) + 8
    shown = sorted({winner(z) for record in records for z in record["logits"]})
    with styled():
        figure = canvas(width, height)
        first: Axes | None = None
        for i, record in enumerate(records):
            place = ((left + panel * i) / width, 46 / height, (panel - 16) / width, 168 / height)
            axes = figure.add_axes(place, sharey=first)
            first = first or axes
            for k in range(len(record["logits"][0])):
                values = [z[k] for z in record["logits"]]
                axes.plot(record["t"], values, **line_style(k, record["label"], shown, classes))
            axes.set_title(title(record["axis"]), fontsize=12, color=light("muted"))
            axes.axvline(0, color=light("strong-line"), linewidth=1, linestyle=(0, (2, 3)))
            axes.tick_params(length=0, pad=6, labelleft=i == 0)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlabel("distance from the example")
            axes.grid(axis="y")
        if first is not None:
            first.set_ylabel("logit")
            handles = first.get_legend_handles_labels()
            figure.legend(*handles, loc="upper center", ncols=5, frameon=False, fontsize=11.5)
    return figure


def winner(logits: Sequence[Number]) -> int:
    """Return the class of the largest logit."""
    return max(range(len(logits)), key=lambda k: logits[k])


def line_style(k: int, label: int, shown: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Return how the line of class ``k`` is drawn."""
    if k == label:
        return {"color": light("ink"), "linewidth": 2.6, "label": f"{named(k, classes)} (true)"}
    if k not in shown:
        return {"color": light("line"), "linewidth": 1.2, "zorder": 1}
    number = k % SERIES
    style = DASHES[(k // SERIES) % len(DASHES)]
    return {"color": light(f"series-{number}"), "linestyle": style, "label": named(k, classes)}


def named(k: int, classes: Sequence[str]) -> str:
    """Return a class' name, or its number."""
    return shortened(classes[k], 14) if k < len(classes) else str(k)


def title(axis: str) -> str:
    """Return a short name for what made a direction.

    >>> title("along(attack=GradientAttack(objective=cross_entropy()))")
    'adversarial'
    """
    return TITLES.get(axis.partition("(")[0], shortened(axis, 24))


def cross_sections(
    records: Sequence[Record], classes: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Draw maps of the classes in a plane, one an example; the true class is left blank.

    Each record has ``axes`` (two), ``grid`` (g), ``prediction`` (g, g; rows upwards), ``inside``
    (g, g) and ``label``. The example is the cross in the middle; a line runs round what lies in the
    box, if that is more than the example.
    """
    size, gap, left, bottom = 150, 30, 62, 74
    across = min(columns, max(len(records), 1))
    down = -(-len(records) // across)
    width = left + (size + gap) * across
    height = bottom + (size + gap) * down
    met = sorted({k for r in records for row in r["prediction"] for k in row})
    with styled():
        figure = canvas(width, height)
        for i, record in enumerate(records):
            x = left + (size + gap) * (i % across)
            y = bottom + (size + gap) * (down - 1 - i // across)
            axes = figure.add_axes((x / width, y / height, size / width, size / height))
            draw_map(axes, record)
            caption = f"{named(record['label'], classes)}, {percent(kept(record))} kept"
            axes.set_title(caption, fontsize=11.5, color=light("muted"), pad=5)
            axes.tick_params(labelbottom=i + across >= len(records), labelleft=i % across == 0)
        if records:
            across_name, up_name = map(title, records[0]["axes"])
            figure.text(0.5, 34 / height, f"{across_name} direction", ha="center", va="center")
            middle = (bottom + (height - bottom) / 2) / height
            figure.text(12 / width, middle, f"{up_name} direction", rotation=90, va="center")
            patches = [PathPatch(square((0, 0, 1, 1)), **fill(k)) for k in met]
            figure.legend(
                patches, [named(k, classes) for k in met], loc="lower center", ncols=10,
                frameon=False, fontsize=11.5, handlelength=1, columnspacing=1, borderpad=0,
            )  # fmt: skip
    return figure


def kept(record: Record) -> float:
    """Return the share of a map on which the true class is kept."""
    cells = [k == record["label"] for row in record["prediction"] for k in row]
    return sum(cells) / len(cells)


def draw_map(axes: Axes, record: Record) -> None:
    """Draw one map: a path a class, the example, and the outline of the box."""
    grid = record["grid"]
    half = (grid[1] - grid[0]) / 2
    boxes: dict[int, list[Box]] = {}
    for b, row in zip(grid, record["prediction"], strict=True):
        for k, begin, end in runs(row):
            cell = (grid[begin] - half, b - half, grid[end] + half, b + half)
            boxes.setdefault(k, []).append(cell)
    for k, cells in boxes.items():
        if k != record["label"]:
            path = Path.make_compound_path(*map(square, cells))
            axes.add_patch(PathPatch(path, **fill(k)))
    for xs, ys in outline(grid, record["inside"]):
        axes.plot(xs, ys, color=light("ink"), linewidth=1.2)
    axes.plot([0], [0], marker="+", color=light("ink"), markersize=8)
    low, high = grid[0] - half, grid[-1] + half
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(length=0, pad=5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)


def fill(k: int) -> dict[str, Any]:
    """Return how the area of class ``k`` is filled; classes beyond the colours are paler."""
    color = light(f"series-{k % SERIES}")
    return {"facecolor": color, "alpha": 0.85 if k < SERIES else 0.45, "linewidth": 0}


def runs(row: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (value, first, last) of each run of equal values.

    >>> runs([1, 1, 2])
    [(1, 0, 1), (2, 2, 2)]
    """
    found: list[tuple[int, int, int]] = []
    for i, value in enumerate(row):
        if found and found[-1][0] == value:
            found[-1] = (value, found[-1][1], i)
        else:
            found.append((value, i, i))
    return found


def square(box: Box) -> Path:
    """Return the outline of a rectangle (left, bottom, right, top)."""
    left, bottom, right, top = box
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    return Path(corners, closed=True)


def outline(
    grid: Sequence[float], inside: Sequence[Sequence[bool]]
) -> list[tuple[list[float], list[float]]]:
    """Return the edges between points in the box and others; none where it holds one point only."""
    if sum(map(sum, inside)) <= 1:
        return []
    half, found = (grid[1] - grid[0]) / 2, []
    for i, b in enumerate(grid):
        for j, a in enumerate(grid):
            if j + 1 < len(grid) and inside[i][j] != inside[i][j + 1]:
                found.append(([a + half] * 2, [b - half, b + half]))
            if i + 1 < len(grid) and inside[i][j] != inside[i + 1][j]:
                found.append(([a - half, a + half], [b + half] * 2))
    return found


def subspace_curve(record: Record) -> Figure:
    """Draw how many of k orthogonal directions fool the source, and how many of those each target.

    ``record`` is that of an adversarial subspace: ``curve`` with ``k``, ``fooled`` and
    ``transferred`` by name. The thin line is where all k fool.
    """
    curve = record["curve"]
    width, height = 380, 280
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((52 / width, 46 / height, 316 / width, 222 / height))
        lines = {"source": curve["fooled"]} | curve["transferred"]
        top = max([1.0, *(v for values in lines.values() for v in values if v is not None)])
        axes.plot([0, top], [0, top], color=light("strong-line"), linewidth=1)
        for i, (name, values) in enumerate(lines.items()):
            style: dict[str, Any] = {
                "color": light(f"series-{i % SERIES}"),
                "linestyle": DASHES[i % len(DASHES)],
            }
            shown = [float("nan") if v is None else v for v in values]
            axes.plot(curve["k"], shown, marker="o", label=shortened(name, 20), **style)
        axes.set(xlabel="orthogonal directions tried", ylabel="directions that fool, mean")
        axes.set_ylim(0, 1.08 * top)
        axes.grid(axis="y")
        axes.tick_params(length=0, pad=6)
        axes.legend(frameon=False, loc="upper right")
    return figure
