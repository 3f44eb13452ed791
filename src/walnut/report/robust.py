"""A verdict on robustness: its flags and its figure, its curve, what each stage did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import tables
from .charts import chart
from .curve import curve_figure, median_words, whole_curve
from .flags import flags
from .palette import series
from .parts import Cell, Column, Section, Table, Tile, Verdict
from .words import (
    MISSING,
    count,
    dig,
    duration,
    interval,
    known,
    norm_name,
    percent,
    plural,
    radius,
    shortened,
    stage_name,
)

Record = dict[str, Any]


def verdict(entries: Sequence[Record]) -> Verdict:
    """Return what the page begins with: red flags first, then the figure."""
    red, told = flags(entries, "wrong"), figure_words(entries)
    headline = told
    if red:
        many = plural(len(red), "red flag")
        headline = f"{many}: do not quote the figure below as it stands."
    said = tuple(sentences(entries))
    return Verdict(headline, red, told if red else "", said, tiles(entries))


def weakest(entries: Sequence[Record]) -> Record:
    """Return the form that keeps least."""

    def left(entry: Record) -> float:
        value = entry["robust"]["value"]
        return float(value) if known(value) else math.inf

    return min(entries, key=left)


def figure_words(entries: Sequence[Record]) -> str:
    """Return the figure in a sentence: the network's, or the weakest form's."""
    least = weakest(entries)
    total = dig(least, "robust", "total")
    name = shortened(str(least["form"]), 40)
    name += f", the weakest of {len(entries)} forms," if len(entries) > 1 else ""
    told = f"{name} keeps {percent(least['robust']['value'])}"
    told += f" of {plural(int(total), 'example')}" if known(total) else ""
    told += f" against every attack tried at ε\u00a0=\u00a0{radius(least['eps'])}"
    told += f" ({norm_name(least['norm'])}); clean {percent(dig(least, 'clean', 'value'))}."
    return told[:1].upper() + told[1:]


def tiles(entries: Sequence[Record]) -> tuple[Tile, ...]:
    """Return the large numbers: clean, robust, the median ε and the passes of the weakest form."""
    least = weakest(entries)
    made = [
        Tile(percent(least["clean"]["value"]), "clean accuracy", interval(least["clean"])),
        Tile(percent(least["robust"]["value"]), "robust accuracy", interval(least["robust"])),
    ]
    if least.get("curve"):
        curve = whole_curve(least)
        value = radius(curve["median"]) if known(curve["median"]) else MISSING
        note = "" if known(curve["median"]) else median_words(curve)
        made.append(Tile(value, "ε at which half of those right fall", note))
    if known(least.get("forward")) and known(least.get("backward")):
        both = f"{short(least['forward'])} + {short(least['backward'])}"
        made.append(Tile(both, "forward + backward passes per example"))
    return tuple(made)


def short(value: Any) -> str:
    """Return a mean number of passes with three figures."""
    return f"{value:,.0f}" if known(value) and value >= 100 else f"{value:.3g}"


def sentences(entries: Sequence[Record]) -> list[str]:
    """Say how gradients were had where that was not plain, and what the checks came to."""
    several, told = len(entries) > 1, []
    for entry in entries:
        path = entry.get("path") or {}
        if path.get("kind") in (None, "direct"):
            continue
        head = f"{entry['form']}: " if several else ""
        said = [str(path.get("sentence") or f"gradient path: {path['kind']}").rstrip(".")]
        told_already = "agree" in said[0]
        if known(path.get("agreement")) and not told_already:
            said.append(f"it agrees on {percent(path['agreement'])} of the examples")
        if known(path.get("gap")) and not told_already:
            said.append(f"largest difference of a logit {path['gap']:.3g}")
        told.append(head + "; ".join(said) + ".")
    levels = [str(check["level"]) for entry in entries for check in entry.get("checks") or []]
    if levels:
        odd = levels.count("odd")
        also = f", {odd} to look at" if odd else ""
        good = levels.count("good")
        told.append(f"Of {plural(len(levels), 'check')}, {good} came out well{also}.")
    if any(entry.get("effort") == "autoattack" for entry in entries):
        told.append("The protocol of AutoAttack (standard) was run in full.")
    return told


def curves(result: Record) -> Section | None:
    """Accuracy against ε, every form in one chart a norm."""
    entries = [entry for entry in result["verdict"] if entry.get("curve")]
    if not entries:
        return None
    charts = []
    for i, norm in enumerate(dict.fromkeys(str(entry["norm"]) for entry in entries)):
        mine = [entry for entry in entries if str(entry["norm"]) == norm]
        whole = [whole_curve(entry) for entry in mine]
        asked = [entry["eps"] for entry in mine if known(entry["eps"])]
        lines = [
            [curve["form"], radius(eps), percent(value)]
            for curve in whole
            for eps, value in zip(curve["eps"], curve["accuracy"], strict=True)
        ]
        named = norm_name(norm)
        spoken_medians = "; ".join(f"{c['form']}, half fallen at {median_words(c)}" for c in whole)
        charts.append(
            chart(
                curve_figure(whole, list(dict.fromkeys(asked)), named),
                prefix=f"verdict-curve-{i}",
                title=f"Accuracy left against ε, {named}",
                words=f"Accuracy left against the radius, a line a form: {spoken_medians}.",
                table=tables.grid(
                    f"Accuracy left, {named}", "network", ("ε", "accuracy left"), lines
                ),
            )
        )
    intro = (
        "Accuracy left as an attack may change every input by more; at 0 it is the clean accuracy. "
        "Shaded: 95\u00a0% intervals. A diamond stands at the median minimal ε, where half of the "
        "examples that were right have fallen."
    )
    shown = (summary(entries),)
    return Section(
        "curve", "Accuracy against ε", "Curve", intro, charts=tuple(charts), tables=shown
    )


def summary(entries: Sequence[Record]) -> Table:
    """Return a row a form: at which ε half has fallen, and what the curve cost."""
    roles = series([str(entry["form"]) for entry in entries])
    rows = []
    for entry in entries:
        form, curve = str(entry["form"]), whole_curve(entry)
        rows.append(
            (
                Cell(form, role=f"series-{roles[form]}", head=True),
                Cell(median_words(curve)),
                Cell(f"{radius(entry['eps'])} ({norm_name(entry['norm'])})"),
                tables.proportion(entry["robust"]),
                Cell(pair(entry)),
                Cell(pair(entry["curve"])),
            )
        )
    heads = (
        Column("Network", numeric=False),
        Column("Median minimal ε", "half of those right fall"),
        Column("Asked", "ε"),
        Column("Left there", "all attacks"),
        Column("Passes", "at the asked ε"),
        Column("Passes", "for the curve"),
    )
    return Table(
        "Where half of those that were right fall; passes are forward + backward, per example",
        heads,
        tuple(rows),
    )


def pair(record: Record) -> str:
    """Return forward and backward passes: ``4.2 + 3.1``."""
    both = (record.get("forward"), record.get("backward"))
    return " + ".join(short(value) for value in both) if all(map(known, both)) else MISSING


def stages(result: Record) -> Section | None:
    """What each stage of the cascade did, a table a form."""
    entries = [entry for entry in result["verdict"] if entry.get("stages")]
    if not entries:
        return None
    several = len(entries) > 1
    made = tuple(
        stage_table(entry, f"Stage by stage, {entry['form']}" if several else "Stage by stage")
        for entry in entries
    )
    intro = (
        "An example enters one stage after another until one breaks it. Passes are per example that "
        "entered. The figure is the worst over all stages."
    )
    return Section("stages", "What each attack did", "Attacks", intro, tables=made)


def stage_table(entry: Record, caption: str) -> Table:
    """Return one form's stages in the order they ran, with their sums."""
    rows = [stage_row(stage) for stage in entry["stages"]]
    broke = sum(stage["broke"] for stage in entry["stages"])
    total = (
        Cell("all", head=True),
        Cell(""),
        Cell(count(broke)),
        Cell(short(entry["forward"]) if known(entry.get("forward")) else MISSING, "per example"),
        Cell(short(entry["backward"]) if known(entry.get("backward")) else MISSING, "per example"),
        Cell(duration(entry.get("seconds"))),
        Cell(""),
    )
    heads = (
        Column("Stage", numeric=False),
        Column("Entered"),
        Column("Broke"),
        Column("Forward", "passes"),
        Column("Backward", "passes"),
        Column("Time"),
        Column("Why it ran", numeric=False),
    )
    return Table(caption, heads, (*rows, total), totals=True)


def stage_row(stage: Record) -> tuple[Cell, ...]:
    """Return one stage: how many entered and fell, what it cost, why it ran."""
    entered, broke = stage["entered"], stage["broke"]
    each = [stage[key] / entered if entered else None for key in ("forward", "backward")]
    return (
        Cell(stage_name(str(stage["name"])), head=True),
        Cell(count(entered)),
        Cell(count(broke), bar=min(broke / entered, 1) if entered else None),
        *(Cell(MISSING if value is None else short(value)) for value in each),
        Cell(duration(stage.get("seconds"))),
        Cell(str(stage.get("why") or "")),
    )
