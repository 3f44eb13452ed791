"""A verdict on robustness for people at a terminal: flags, stages, the curve in a few points."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .screen import Screen
from .tables import percent

SHOWN = 8  # examples that a flag names
KEPT = 100  # examples that a result names; where it names so many there may be more
WHY = 60  # letters of a stage's reason; the flags above have it in full
POINTS = 5  # of the curve; the page has all

Entry = Mapping[str, Any]


def flagged(entries: Sequence[Entry]) -> bool:
    """Say whether any check raised a red flag."""
    return any(check["level"] == "wrong" for e in entries for check in e.get("checks") or [])


def flag_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """Return what speaks against the figure: red flags first, then what is odd, then a blank line."""
    found = [(e, c) for e in entries for c in e.get("checks") or [] if c["level"] != "good"]
    found.sort(key=lambda pair: pair[1]["level"] != "wrong")
    for entry, check in found:
        mark = "RED FLAG" if check["level"] == "wrong" else "note"
        form = f" ({entry['form']})" if len(entries) > 1 else ""
        yield f"{mark} {check['name']}{form}: {check['sentence']}"
        rows, attacks = check.get("examples") or [], check.get("attacks") or []
        seen = ", ".join(map(str, rows[:SHOWN]))
        least = "at least " if len(rows) >= KEPT else ""
        seen += f" and {least}{len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        parts = [f"examples {seen}"] * bool(rows) + [f"attacks {', '.join(attacks)}"] * bool(
            attacks
        )
        if parts:
            yield f"  evidence: {'; '.join(parts)}"
        if check.get("remedy"):
            yield f"  what to do: {check['remedy']}"
    if found:
        yield ""


def verdict_tables(screen: Screen, entries: Sequence[Entry]) -> None:
    """Print each form's stages, how its gradients were had, and its curve."""
    for entry in entries:
        several = f", {entry['form']}" if len(entries) > 1 else ""
        if entry.get("stages"):
            screen.table(
                f"stage by stage{several} (passes per example that entered)",
                ["", "entered", "broke", "forward", "backward", "s", "why"],
                map(stage_cells, entry["stages"]),
            )
        path = entry.get("path") or {}
        if path.get("kind") not in (None, "direct"):
            screen.say(f"{entry['form']}: {path['sentence']}")
    curves = [entry for entry in entries if entry.get("curve")]
    if curves:
        screen.table("accuracy left, in %, against eps", *curve_cells(curves))
    for entry in curves:
        median = entry["curve"].get("median")
        told = "less than half fall" if median is None else f"half fall within eps {median:.4g}"
        screen.say(f"{entry['form']}: of those that were right {told}")


def stage_cells(stage: Entry) -> list[str]:
    """Return one stage's row."""
    entered = stage["entered"]
    each = [stage[key] / entered if entered else 0.0 for key in ("forward", "backward")]
    numbers = [str(entered), str(stage["broke"]), *(f"{value:.1f}" for value in each)]
    why = textwrap.shorten(str(stage.get("why") or ""), WHY, placeholder=" …")
    return [stage["name"], *numbers, f"{stage['seconds']:.1f}", why]


def curve_cells(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of a table with a few points of each curve, from 0 on."""
    radii = entries[0]["curve"]["eps"]
    places = sorted({round((i + 1) * len(radii) / POINTS) - 1 for i in range(POINTS)} - {-1})
    heads = ["", "0", *(f"{radii[place]:.3g}" for place in places)]
    rows = []
    for entry in entries:
        left = [percent(entry["curve"]["accuracy"][place]) for place in places]
        rows.append([entry["form"], percent(entry["clean"]), *left])
    return heads, rows
