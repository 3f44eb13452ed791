"""The input space around an example, drawn: which class is predicted where, and how logits run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .figures import canvas
from .labels import name_ends
from .palette import DASHES, SERIES, light
from .parts import Number
from .svg import styled
from .words import known, radius, shortened

DEPTHS = (0.42, 0.17)  # of the first eight classes and the next: text on either can be read
NAMED = 4  # classes of a logit line that get a colour and a name


def cells(entry: dict[str, Any]) -> Int[np.ndarray, " rows columns"]:
    """Return a map's predicted classes; raise where they are no grid.

    Row 0 is the lowest, so that ``classes[i][j]`` is at the i-th step of the second axis.
    """
    grid = np.array(entry["classes"], dtype=np.int64)
    if grid.ndim != 2 or not grid.size:
        raise ValueError("a map's classes must be a grid of numbers")
    return grid


def class_map(entry: dict[str, Any], eps: Number | None) -> Figure:
    """Draw the class predicted at every point of a plane through an example.

    Args:
        entry: ``classes`` (rows of numbers), ``names``, ``axes`` (two names) and ``extent``; where
            it has ``inside``, a grid of the same shape with 1 inside the input's box, the edge of the
            box is drawn and what is outside it is faded.
        eps: radius that was asked, drawn as a dashed square where the map reaches beyond it.
    """
    grid, extent = cells(entry), float(entry["extent"])
    # the outermost points lie at the extent, so that their cells reach half a cell beyond it
    reach = extent * len(grid) / (len(grid) - 1) if len(grid) > 1 else extent
    width, height, side = 318, 322, 248
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((60 / width, 52 / height, side / width, side / height))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        for number in np.unique(grid).tolist():
            region(axes, grid == number, reach, number)
        axes.add_patch(
            PathPatch(edges(grid, reach), fill=False, edgecolor=light("panel"), linewidth=1.5)
        )
        if entry.get("inside"):
            box_edge(axes, np.array(entry["inside"], dtype=bool), reach)
        name_regions(axes, grid, reach, entry["names"])
        axes.plot([0], [0], marker="+", color=light("ink"), markersize=11, markeredgewidth=2)
        if known(eps) and 0 < eps < extent:
            square: dict[str, Any] = {
                "linewidth": 1.4,
                "linestyle": (0, (4, 3)),
                "edgecolor": light("ink"),
            }
            axes.add_patch(Rectangle((-eps, -eps), 2 * eps, 2 * eps, fill=False, **square))
        map_axes(axes, entry, extent, eps)
    return figure


def map_axes(axes: Axes, entry: dict[str, Any], extent: float, eps: Number | None) -> None:
    """Name a map's axes and its radii."""
    inner = [-eps, eps] if known(eps) and 0.3 * extent < eps < 0.75 * extent else []
    ticks = sorted({-extent, 0.0, extent, *inner})
    told = [("−" if tick < 0 else "") + radius(abs(tick)) for tick in ticks]
    axes.set_xticks(ticks, told)
    axes.set_yticks(ticks, told)
    axes.tick_params(length=0, pad=6)
    axes.set_xlabel(f"{entry['axes'][0]} direction")
    axes.set_ylabel(f"{entry['axes'][1]} direction", labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def region(
    axes: Axes, inside: Bool[np.ndarray, " rows columns"], extent: float, number: int
) -> None:
    """Fill the cells of one class: one path of one rectangle a run of cells."""
    depth = DEPTHS[number // SERIES % len(DEPTHS)]
    color = light(f"series-{number % SERIES}")
    axes.add_patch(PathPatch(runs(inside, extent), facecolor=color, alpha=depth, linewidth=0))


def runs(inside: Bool[np.ndarray, " rows columns"], extent: float) -> Path:
    """Return the outline of cells, row by row, in the map's units."""
    rows, columns = inside.shape
    points: list[tuple[float, float]] = []
    for i in range(rows):
        j = 0
        bottom, top = place(i, rows, extent), place(i + 1, rows, extent)
        for value, run in groupby(inside[i].tolist()):
            length = len(list(run))
            if value:
                left, right = place(j, columns, extent), place(j + length, columns, extent)
                points += [
                    (left, bottom),
                    (right, bottom),
                    (right, top),
                    (left, top),
                    (left, bottom),
                ]
            j += length
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(np.array(points).reshape(-1, 2), codes * (len(points) // 5))


def edges(grid: np.ndarray, extent: float) -> Path:
    """Return the lines between cells of different classes."""
    rows, columns = grid.shape
    points: list[tuple[float, float]] = []
    for i, j in np.argwhere(grid[1:] != grid[:-1]).tolist():
        height = place(i + 1, rows, extent)
        points += [(place(j, columns, extent), height), (place(j + 1, columns, extent), height)]
    for i, j in np.argwhere(grid[:, 1:] != grid[:, :-1]).tolist():
        x = place(j + 1, columns, extent)
        points += [(x, place(i, rows, extent)), (x, place(i + 1, rows, extent))]
    return Path(np.array(points).reshape(-1, 2), [Path.MOVETO, Path.LINETO] * (len(points) // 2))


def place(index: int, count: int, extent: float) -> float:
    """Return where the ``index``-th line between ``count`` cells stands.

    >>> [place(i, 4, 1.0) for i in (0, 2, 4)]
    [-1.0, 0.0, 1.0]
    """
    return (2 * index / count - 1) * extent


def box_edge(axes: Axes, inside: Bool[np.ndarray, " rows columns"], extent: float) -> None:
    """Fade what is outside the box of inputs and draw its edge."""
    veil: dict[str, Any] = {"facecolor": light("panel"), "alpha": 0.6, "linewidth": 0}
    axes.add_patch(PathPatch(runs(~inside, extent), **veil))
    edge: dict[str, Any] = {"edgecolor": light("muted"), "linewidth": 1.4, "linestyle": (0, (1, 2))}
    axes.add_patch(PathPatch(edges(inside, extent), fill=False, **edge))


def name_regions(axes: Axes, grid: np.ndarray, extent: float, names: Sequence[str]) -> None:
    """Write each class's name where its region is widest, if it has room there."""
    rows, columns = grid.shape
    for number in np.unique(grid).tolist():
        depth, (i, j) = deepest(grid == number)
        if depth * 2 >= 0.06 * rows:
            x, y = place(2 * j + 1, 2 * columns, extent), place(2 * i + 1, 2 * rows, extent)
            shift = 0.09 * extent if abs(x) < 0.1 * extent and abs(y) < 0.1 * extent else 0.0
            text = shortened(class_name(names, number), 12)
            axes.text(
                x, y + shift, text, ha="center", va="center", fontweight="bold", fontsize=12.5
            )


def class_name(names: Sequence[Any], number: int) -> str:
    """Return a class's name, or its number where it has none."""
    return str(names[number]) if 0 <= number < len(names) else str(number)


def deepest(inside: Bool[np.ndarray, " rows columns"]) -> tuple[int, tuple[int, int]]:
    """Return how many cells a region is deep, and its deepest cell: peeled from its edge inwards.

    >>> deepest(np.ones((5, 5), dtype=bool))
    (3, (2, 2))
    """
    depth, left = 0, inside
    where = (0, 0)
    while left.any():
        depth += 1
        found = np.argwhere(left)
        middle = found.mean(0)
        nearest = found[((found - middle) ** 2).sum(1).argmin()]
        where = (int(nearest[0]), int(nearest[1]))
        held = np.pad(left, 1)
        left = left & held[:-2, 1:-1] & held[2:, 1:-1] & held[1:-1, :-2] & held[1:-1, 2:]
    return depth, where


def finite(logits: Sequence[Sequence[Any]]) -> Float[np.ndarray, " points classes"]:
    """Return a line's logits, a gap where one is missing or infinite."""
    values = np.array(logits, dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def leading(entry: dict[str, Any]) -> list[int]:
    """Return the classes of a line that matter: the label first, then each that is ever predicted."""
    logits = finite(entry["logits"])
    won = np.nan_to_num(logits, nan=-math.inf).argmax(1).tolist()
    ranked = sorted(set(won), key=won.count, reverse=True)
    runner = np.nan_to_num(logits[-1], nan=-math.inf).argsort()[::-1].tolist()
    order = [int(entry["label"]), *ranked, *runner[:2]]
    return list(dict.fromkeys(order))[:NAMED]


def logit_lines(entry: dict[str, Any], asked: Number | None) -> Figure:
    """Draw every class's logit along one direction; those that matter in colour, with their names.

    ``entry`` has ``eps``, ``logits`` (a row a radius, a column a class), ``classes`` and ``label``.
    """
    logits = finite(entry["logits"])
    eps, shown = [float(e) for e in entry["eps"]], leading(entry)
    there = logits[~np.isnan(logits)]
    low, high = (float(there.min()), float(there.max())) if there.size else (0.0, 1.0)
    room = 0.04 * (high - low) or 1.0
    low, high = low - room, high + room
    width, height = 372, 250
    with styled():
        figure = canvas(width, height)
        axes = figure.add_axes((46 / width, 46 / height, 246 / width, 182 / height))
        quiet: dict[str, Any] = {"color": light("strong-line"), "linewidth": 0.9, "alpha": 0.7}
        axes.plot(eps, np.delete(logits, shown, axis=1), **quiet)
        for i, number in enumerate(shown):
            axes.plot(eps, logits[:, number], color=light(f"series-{i}"), linestyle=DASHES[i])
        axes.set(xlim=(eps[0], eps[-1]), ylim=(low, high))
        if known(asked) and eps[0] < asked <= eps[-1]:
            dashed: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 1}
            for at in [asked, -asked] if -asked >= eps[0] else [asked]:
                axes.axvline(at, color=light("ink"), **dashed)
        axes.grid(axis="y")
        axes.tick_params(length=0, pad=6)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("ε along the direction")
        told = [class_name(entry["classes"], number) for number in shown]
        ends = [(eps[-1], (float(logits[-1, n]) - low) / (high - low)) for n in shown]
        name_ends(axes, ends, told, {name: i for i, name in enumerate(told)}, 9)
    return figure
