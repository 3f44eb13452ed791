"""What is odd about a result, in words: look at it before believing the number.

A difference is called one only when the 95 % intervals are apart, so that chance seldom warns.
Several checks are the signs of an attack that failed rather than a network that held:
Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from .words import attack_name, dig, interval, known, percent, plural, points, radius

Record = dict[str, Any]
FEW = 200  # examples: below it a 95 % interval is wider than ten points
FLOOR = 0.005  # robust accuracy under which forms cannot be told apart


def oddities(result: Record) -> list[str]:
    """Return every warning the numbers of a result call for, once each."""
    rows = [row for row in result.get("rows") or [] if isinstance(row, dict)]
    found = [text for check in CHECKS for text in check(result, rows)]
    return list(dict.fromkeys(found))


def above(a: Record | None, b: Record | None) -> bool:
    """Say whether proportion ``a`` is above ``b`` beyond both intervals."""
    if not (a and b and interval(a) and interval(b)):
        return False
    return a["low"] > b["high"]


def files(result: Record, rows: Sequence[Record]) -> Iterator[str]:
    """A packed file should be smaller, and the very network it was made from."""
    by_form = {str(row.get("form")): row for row in rows}
    packed, shared = by_form.get("packed", {}), by_form.get("shared", {})
    if known(packed.get("ratio")) and packed["ratio"] <= 1:
        yield "The packed file is no smaller than the dense network."
    right = [dig(row, "clean", "correct") for row in (packed, shared)]
    if known(right[0]) and known(right[1]) and right[0] != right[1]:
        yield (
            "The packed file, loaded again, does not get the same number of examples right as the "
            f"network it was made from ({right[0]:,} against {right[1]:,}): packing should be exact."
        )


def accuracy(result: Record, rows: Sequence[Record]) -> Iterator[str]:
    """Clean accuracy: lost to compression, close to guessing, or measured on few examples."""
    classes = dig(result, "data", "classes") or []
    totals = [dig(row, "clean", "total") for row in rows]
    smallest = min((t for t in totals if known(t)), default=FEW)
    if smallest < FEW:
        yield f"Only {plural(int(smallest), 'example')} were used: the intervals are wide."
    for row in rows:
        clean, form = dig(row, "clean"), row.get("form")
        if not clean or not known(clean.get("value")):
            continue
        if len(classes) > 1 and known(clean.get("low")) and clean["low"] <= 1 / len(classes):
            yield f"{form}: clean accuracy {percent(clean['value'])} is no better than guessing."
        if row is not rows[0] and "ratio" in row and above(dig(rows[0], "clean"), clean):
            lost = points(rows[0]["clean"]["value"] - clean["value"])
            yield f"{form}: compression cost {lost} of clean accuracy, beyond the 95\u00a0% intervals."


def attacks(result: Record, rows: Sequence[Record]) -> Iterator[str]:
    """An attack should do more than noise, more steps more than one, and its own gradient most."""
    for row in rows:
        found = row.get("attacks") or {}
        noise, form = dig(found, "noise", "robust"), row.get("form")
        for key, record in found.items():
            left, name = record.get("robust"), attack_name(key)
            same = dig(found, "noise", "eps") == record.get("eps")
            if key != "noise" and same and above(left, noise):
                yield f"{form}: {name} fools less than random noise of the same size does."
            if key not in ("noise", "fgsm") and record.get("eps") == dig(found, "fgsm", "eps"):
                single = dig(found, "fgsm", "robust")
                if above(left, single):
                    yield f"{form}: {name} fools less than FGSM, which takes a single step."
        if above(dig(row, "clean"), noise):
            lost = points(row["clean"]["value"] - noise["value"])
            yield f"{form}: random noise alone costs {lost} of accuracy."
        strongest = [r.get("robust") for k, r in found.items() if k != "noise" and r.get("robust")]
        if strongest and all(above(left, row.get("transfer_from_dense")) for left in strongest):
            yield (
                f"{form}: examples made against the dense network fool it more often than its own "
                "gradient does, so its robust accuracy flatters it (its gradient is masked)."
            )


def floor(result: Record, rows: Sequence[Record]) -> Iterator[str]:
    """Where everything is fooled, nothing can be compared."""
    keys = list((rows[0].get("attacks") or {}) if rows else {})
    for key in keys:
        left = [dig(row, "attacks", key, "robust", "value") for row in rows]
        if len(rows) > 1 and all(known(value) and value <= FLOOR for value in left):
            eps = radius(dig(rows[0], "attacks", key, "eps"))
            yield (
                f"{attack_name(key)} at ε\u00a0=\u00a0{eps} fools every form almost always: "
                "compare the forms at a smaller ε."
            )


def curves(result: Record, rows: Sequence[Record]) -> Iterator[str]:
    """A larger radius contains the smaller one, so accuracy must not rise with it."""
    for curve in result.get("curves") or []:
        if not (curve.get("low") and curve.get("high")):
            continue
        keys = ("eps", "low", "high")
        places = sorted(zip(*(curve[key] for key in keys), strict=True), key=lambda p: p[0])
        for (smaller, _, high), (larger, low, _) in pairwise(places):
            if known(low) and known(high) and low > high and curve.get("attack") != "noise":
                yield (
                    f"{curve['form']}: {attack_name(str(curve.get('attack', 'the attack')))} leaves "
                    f"more at ε\u00a0=\u00a0{radius(larger)} than at {radius(smaller)}, which holds the "
                    "smaller ball: the attack got stuck."
                )
                break


def transfers(result: Record, rows: Sequence[Record]) -> Iterator[str]:
    """Examples should hurt most the network that they were made against."""
    for entry in result.get("transfer") or []:
        table, names = entry["accuracy"], entry["names"]
        for j, name in enumerate(names):
            column = [row[j] for row in table]
            if all(map(known, column)) and column[j] > min(column) + 0.05:
                best = names[column.index(min(column))]
                yield (
                    f"At ε\u00a0=\u00a0{radius(entry.get('eps'))}, {name} is fooled more by examples made "
                    f"against {best} than by its own: the attack on {name} is weak there."
                )


def history(result: Record, rows: Sequence[Record]) -> Iterator[str]:
    """A loss that is not a number ends a training."""
    losses = [record.get("train_loss") for record in result.get("history") or []]
    if any(loss is not None and not known(loss) for loss in losses):
        yield "The training loss became infinite or not a number: lower the learning rate."


CHECKS: tuple[Callable[[Record, Sequence[Record]], Iterator[str]], ...] = (
    files,
    accuracy,
    attacks,
    floor,
    curves,
    transfers,
    history,
)
