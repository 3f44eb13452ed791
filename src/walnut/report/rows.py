"""What a row of a result says, looked up: a row is one form of a network under its attacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .words import attack_name, dig, known, plural, radius

Record = dict[str, Any]


def robust(row: Record, name: str) -> Record:
    """Return a row's robust accuracy under an attack, or an empty record."""
    return dig(row, "attacks", name, "robust") or {}


def attack_at(row: Record, name: str) -> str:
    """Return an attack with its radius: ``PGD at ε = 0.1``."""
    eps = dig(row, "attacks", name, "eps")
    return (
        f"{attack_name(name)} at ε\u00a0=\u00a0{radius(eps)}" if known(eps) else attack_name(name)
    )


def strongest_attack(rows: Sequence[Record]) -> str:
    """Return the attack that leaves least of the first row; noise only where nothing else was run."""
    found = {key: dig(a, "robust", "value") for key, a in (rows[0].get("attacks") or {}).items()}
    real = {key: value for key, value in found.items() if known(value) and key != "noise"}
    # the last of equals: audits list attacks from the weakest to the strongest
    return min(reversed(list(real)), key=lambda key: real[key]) if real else next(iter(found), "")


def number_of(record: Record) -> str:
    """Return how many examples a proportion is of."""
    total = record.get("total")
    return plural(int(total), "example") if known(total) else "these examples"


def disjoint(a: Record, b: Record) -> bool:
    """Say whether two 95 % intervals have nothing in common."""
    return a["high"] < b["low"] or b["high"] < a["low"]
