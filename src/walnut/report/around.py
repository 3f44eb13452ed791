"""The sections that show the input space around examples: maps of classes, logits along lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import tables
from .charts import chart
from .maps import cells, class_map, class_name, leading, logit_lines
from .parts import Section
from .words import dig, known, percent, radius

Record = dict[str, Any]
MOST = 12  # maps, and lines, on one page; the others are in result.json


def asked(result: Record, entry: Record) -> Any:
    """Return the radius that was asked for an entry's form."""
    if known(entry.get("eps")):
        return entry["eps"]
    mine = [v for v in result.get("verdict") or [] if v.get("form") == entry.get("form")]
    return dig(mine[0], "eps") if mine else None


def drawn(found: Sequence[Record]) -> str:
    """Say how many of the records are on the page, where that is not all."""
    return f" The first {MOST} of {len(found)} are drawn." if len(found) > MOST else ""


def subject(result: Record, entry: Record) -> str:
    """Return which example a drawing is of, and whose, where there are several forms."""
    forms = {str(row.get("form")) for row in result["geometry"]}
    return f"Example {entry['example']}" + (f", {entry['form']}" if len(forms) > 1 else "")


def label_of(entry: Record) -> str:
    """Return the class of a map's example in words."""
    label = entry["label"]
    return class_name(entry["names"], label) if isinstance(label, int) else str(label)


def maps(result: Record) -> Section | None:
    """Which class is predicted where in planes through examples."""
    found = [entry for entry in result["geometry"] if entry["kind"] == "map"]
    if not found:
        return None
    charts = []
    for i, entry in enumerate(found[:MOST]):
        grid = cells(entry)
        numbers, sizes = np.unique(grid, return_counts=True)
        lines = [
            [class_name(entry["names"], number), percent(size / grid.size)]
            for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True)
        ]
        planes = f"{entry['axes'][0]} × {entry['axes'][1]}"
        title = f"{subject(result, entry)}: {planes}"
        charts.append(
            chart(
                class_map(entry, asked(result, entry)),
                prefix=f"map-{i}",
                title=title,
                words=f"The class predicted on a plane through a {label_of(entry)}: "
                + "; ".join(f"{name} on {share}" for name, share in lines),
                table=tables.grid("Share of the map", "class", ("share",), lines),
            )
        )
    intro = (
        "The class that is predicted on a plane through an example, which is the cross in the middle: "
        "a colour a class, its name where there is room. Dashed: the ε that was asked, where the map "
        "reaches beyond it."
    )
    if any(entry.get("inside") for entry in found):
        intro += " Faded, beyond the dotted line: no valid input, a value outside its range."
    intro += drawn(found)
    return Section("maps", "Maps around examples", "Maps", intro, charts=tuple(charts))


def lines(result: Record) -> Section | None:
    """How the logits run along one direction."""
    found = [entry for entry in result["geometry"] if entry["kind"] == "line"]
    if not found:
        return None
    charts = []
    for i, entry in enumerate(found[:MOST]):
        label = class_name(entry["classes"], entry["label"])
        shown = leading(entry)
        heads = [class_name(entry["classes"], number) for number in shown]
        rows = [
            [signed(eps), *(f"{row[number]:.3g}" for number in shown)]
            for eps, row in zip(entry["eps"], entry["logits"], strict=True)
        ]
        charts.append(
            chart(
                logit_lines(entry, asked(result, entry)),
                prefix=f"logits-{i}",
                title=f"{subject(result, entry)}: {entry['axis']} direction",
                words=f"The logits of a {label} along one {entry['axis']} direction, from "
                f"ε {signed(entry['eps'][0])} to {signed(entry['eps'][-1])}.",
                table=tables.grid(f"Logits of a {label}", "ε", heads, rows),
            )
        )
    intro = (
        "The logit of every class along one direction; the class of the example and those that are "
        "ever predicted are named. Along an adversarial direction another class soon leads; along a "
        "random one, seldom. Dashed: the ε that was asked."
    ) + drawn(found)
    return Section("logits", "Logits along a direction", "Logits", intro, charts=tuple(charts))


def signed(eps: Any) -> str:
    """Return a radius with its sign.

    >>> signed(-0.1), signed(0.1)
    ('−0.1', '0.1')
    """
    return f"−{radius(-eps)}" if known(eps) and eps < 0 else radius(eps)
