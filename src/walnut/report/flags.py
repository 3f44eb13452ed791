"""What speaks against a verdict: its checks, as red flags, as things to look at, or folded away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .parts import Cell, Column, Flag, Section, Table
from .words import listed, plural, stage_name, told

Record = dict[str, Any]
SHOWN = 12  # rows of examples that a flag names
KEPT = 100  # rows that a result names; where it names so many there may be more


def flags(entries: Sequence[Record], level: str) -> tuple[Flag, ...]:
    """Return the checks of one level as flags, form by form."""
    several = len(entries) > 1
    return tuple(
        Flag(
            level,
            spoken(str(check["name"])),
            told(str(check["sentence"])),
            evidence(check),
            told(str(check.get("remedy") or "")),
            str(entry["form"]) if several else "",
        )
        for entry in entries
        for check in entry.get("checks") or []
        if check["level"] == level
    )


def spoken(name: str) -> str:
    """Return a check's name in words.

    >>> spoken("black-box-beats-white-box")
    'Black box beats white box'
    """
    words = name.replace("-", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def evidence(check: Record) -> str:
    """Return on which examples a check rests, and on which attacks.

    >>> evidence({"examples": [3, 17], "attacks": ["square"]})
    'Evidence: examples 3 and 17; attack square.'
    """
    rows, attacks = check.get("examples") or [], check.get("attacks") or []
    parts = []
    if rows:
        named = [str(row) for row in rows[:SHOWN]]
        least = "at least " if len(rows) >= KEPT else ""
        named += [f"{least}{len(rows) - SHOWN:,} more"] if len(rows) > SHOWN else []
        parts.append(f"{'example' if len(rows) == 1 else 'examples'} {listed(named)}")
    if attacks:
        names = listed([stage_name(str(name)) for name in attacks])
        parts.append(f"{'attack' if len(attacks) == 1 else 'attacks'} {names}")
    return f"Evidence: {'; '.join(parts)}." if parts else ""


def checks(result: Record) -> Section | None:
    """Every check: those to look at in full, the good ones folded."""
    entries = [entry for entry in result["verdict"] if entry.get("checks")]
    if not entries:
        return None
    good = [(e, c) for e in entries for c in e["checks"] if c["level"] == "good"]
    red, odd = flags(entries, "wrong"), flags(entries, "odd")
    folded: tuple[tuple[str, Table], ...] = ()
    if good:
        several = len(entries) > 1
        lines = [
            [
                spoken(str(check["name"])),
                *([str(e["form"])] if several else []),
                told(str(check["sentence"])),
            ]
            for e, check in good
        ]
        heads = [Column("Check", numeric=False), *[Column("Network", numeric=False)] * several]
        columns = (*heads, Column("What was found", numeric=False))
        rows = tuple((Cell(n, head=True), *(Cell(str(t)) for t in rest)) for n, *rest in lines)
        title = f"{plural(len(good), 'check')} came out well"
        folded = ((title, Table("Checks that came out well", columns, rows)),)
    intro = "A red flag means that the figure may be too high; what is only odd is worth a look."
    intro += " Red flags stand at the top of the page." if red else ""
    if not odd and not red:
        intro = "Signs of an attack that failed rather than a network that held: none was found."
    return Section(
        "checks", "Can the figure be believed?", "Checks", intro, flags=odd, folded=folded
    )
