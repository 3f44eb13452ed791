"""What the numbers say, in plain words, and nothing that they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import robust as trust
from .odd import oddities
from .parts import Number, Tile, Verdict
from .rows import attack_at, disjoint, number_of, robust, strongest_attack
from .words import (
    MISSING,
    attack_name,
    count,
    dig,
    interval,
    known,
    milliseconds,
    norm_name,
    percent,
    plural,
    points,
    radius,
    shortened,
    size,
    times,
)

Record = dict[str, Any]


def verdict(result: Record) -> Verdict:
    """Return the verdict on a result, from whatever it has."""
    rows = result.get("rows") or []
    if result.get("verdict"):
        return replace(trust.verdict(result["verdict"]), odd=tuple(oddities(result)))
    if len(rows) > 1 and any("ratio" in row or "bytes" in row for row in rows):
        headline, sentences, tiles = compression(rows)
    elif result.get("transfer"):
        headline, sentences, tiles = transfer(result["transfer"])
    elif any(row.get("attacks") for row in rows):
        headline, sentences, tiles = attack(rows[0])
    elif result.get("history"):
        headline, sentences, tiles = training(result["history"], rows)
    elif rows:
        headline, sentences, tiles = alone(rows[0])
    else:
        headline, sentences, tiles = "", [], []
    return Verdict(
        headline,
        sentences=tuple(sentences),
        tiles=tuple(tiles),
        odd=tuple(oddities(result)),
    )


def compression(rows: Sequence[Record]) -> tuple[str, list[str], list[Tile]]:
    """Return the verdict on the last form against the first."""
    first, last = rows[0], rows[-1]
    before, form = str(first["form"]), str(last["form"])
    ratio, strongest = last.get("ratio"), strongest_attack(rows)
    subject = "file" if form == "packed" else "network"
    clauses = []
    if known(ratio):
        change = f"{times(ratio)} smaller" if ratio > 1 else "not smaller"
        clauses.append(f"is {change}")
    if known(dig(last, "clean", "value")):
        was = dig(first, "clean", "value")
        kept = f"keeps {percent(last['clean']['value'])} clean accuracy"
        clauses.append(kept + (f" ({before} {percent(was)})" if known(was) else ""))
    start = f"The {form} {subject} " + " and ".join(clauses) if clauses else ""
    if strongest:
        left, was = robust(last, strongest), robust(first, strongest)
        start += "; " if start else f"On the {form} {subject}, "
        start += f"{attack_at(last, strongest)} leaves {percent(left.get('value'))}"
        start += f" ({before} {percent(was.get('value'))})" if was else ""
    sentences = [*robustness_words(first, last, strongest), *transfer_words(first, last)]
    sentences += speed_words(first, last)
    return f"{start}." if start else "", sentences, compression_tiles(first, last, strongest)


def compression_tiles(first: Record, last: Record, strongest: str) -> list[Tile]:
    """Return the large numbers: size, clean, attacked, transferred."""
    before = str(first["form"])
    tiles = []
    if known(last.get("ratio")):
        smaller = f"{size(last.get('bytes'))}, {before} {size(first.get('bytes'))}"
        tiles.append(Tile(times(last["ratio"]), "smaller on disk", smaller))
    for label, get in (
        ("clean accuracy", lambda row: dig(row, "clean")),
        (f"left by {attack_at(last, strongest)}", lambda row: robust(row, strongest)),
    ):
        if known(dig(get(last), "value")):
            was = dig(get(first), "value")
            note = f"{before} {percent(was)}" if known(was) else ""
            tiles.append(Tile(percent(get(last)["value"]), label, note))
    carried = dig(last, "transfer_from_dense", "value")
    if known(carried):
        kind = f"left by examples made against {before}"
        noise = robust(last, "noise").get("value")
        note = f"noise alone {percent(noise)}" if known(noise) else ""
        tiles.append(Tile(percent(carried), kind, note))
    return tiles


def robustness_words(first: Record, last: Record, name: str) -> list[str]:
    """Say whether compression changed robustness by more than these examples can tell."""
    was, now = robust(first, name), robust(last, name)
    before, form, attack = str(first["form"]), str(last["form"]), attack_name(name)
    if not (interval(was) and interval(now)):
        return []
    if not disjoint(was, now):
        return [
            f"Under {attack} the {form} and the {before} network differ by less than "
            f"{number_of(now)} can tell (their 95\u00a0% intervals overlap)."
        ]
    gap = points(now["value"] - was["value"])
    if now["value"] < was["value"]:
        return [
            f"The {form} network is easier to fool than the {before} one: {attack} leaves it {gap} "
            "less, beyond the 95\u00a0% intervals."
        ]
    return [
        f"The {form} network looks harder to fool than the {before} one: {attack} leaves it {gap} "
        "more, beyond the 95\u00a0% intervals. That can also mean that the attack got stuck on it: "
        f"see what examples made against the {before} network leave."
    ]


def transfer_words(first: Record, last: Record) -> list[str]:
    """Say what examples made against the first network do to the last."""
    carried, clean = dig(last, "transfer_from_dense", "value"), dig(last, "clean", "value")
    if not (known(carried) and known(clean)) or clean <= 0:
        return []
    lost = (clean - carried) / clean
    before, form = str(first["form"]), str(last["form"])
    if lost > 0.5:
        strength = f"fool the {form} one as well"
    elif lost > 0.1:
        strength = f"fool the {form} one in part"
    else:
        strength = f"hardly touch the {form} one"
    left = f"{percent(carried)} left, {percent(clean)} on clean ones"
    return [f"Examples made against the {before} network {strength}: {left}."]


def speed_words(first: Record, last: Record) -> list[str]:
    """Say whether it became faster: smaller is not faster."""
    was, now = dig(first, "latency") or {}, dig(last, "latency") or {}
    if not (known(was.get("median_ms")) and known(now.get("median_ms"))):
        return []
    figures = f"{milliseconds(now['median_ms'])} against {milliseconds(was['median_ms'])}"
    how = "no faster and no slower"
    if known(now.get("high_ms")) and known(was.get("low_ms")) and now["high_ms"] < was["low_ms"]:
        how = "faster"
    if known(now.get("low_ms")) and known(was.get("high_ms")) and now["low_ms"] > was["high_ms"]:
        how = "slower"
    return [f"It runs {how}: {figures} for a batch of {count(now.get('batch', 1))}."]


def transfer(entries: Sequence[Record]) -> tuple[str, list[str], list[Tile]]:
    """Return the verdict on a transfer table, told at its middle radius."""
    ordered = sorted(entries, key=lambda entry: entry.get("eps") or 0)
    entry = ordered[len(ordered) // 2]
    table, names = entry["accuracy"], [str(name) for name in entry["names"]]
    own = [row[i] for i, row in enumerate(table) if known(row[i])]
    pairs = [
        (value, names[i], names[j])
        for i, row in enumerate(table)
        for j, value in enumerate(row)
        if i != j and known(value)
    ]
    others = [value for value, _, _ in pairs]
    place = f"At ε\u00a0=\u00a0{radius(entry.get('eps'))}"
    parts, tiles = [], []
    for values, phrase, label in (
        (own, "examples leave the network they were made against", "on the network attacked"),
        (others, "the other networks", "on the other networks"),
        (entry.get("noise") or [], "noise of the same size leaves", "under noise of the same size"),
    ):
        kept = [value for value in values if known(value)]
        if kept:
            parts.append(f"{phrase} {spanned(kept)}")
            tiles.append(Tile(percent(sum(kept) / len(kept)), f"{label}, mean", place.lower()))
    sentences = []
    if len(pairs) > 1:
        low, high = min(pairs), max(pairs)
        sentences.append(
            f"Transfer is strongest from {low[1]} to {low[2]} ({percent(low[0])} left) and weakest "
            f"from {high[1]} to {high[2]} ({percent(high[0])} left)."
        )
    return f"{place}, {joined(parts)}." if parts else "", sentences, tiles


def spanned(values: Sequence[Number]) -> str:
    """Return the range of some proportions."""
    low, high = percent(min(values)), percent(max(values))
    return low if low == high else f"{low} to {high}"


def joined(parts: Sequence[str]) -> str:
    """Return clauses in a row, with a semicolon before the control."""
    head = " and ".join(parts[:2])
    return head + (f"; {parts[2]}" if len(parts) > 2 else "")


def attack(row: Record) -> tuple[str, list[str], list[Tile]]:
    """Return the verdict on one network under its attacks."""
    name, form = strongest_attack([row]), shortened(str(row["form"]), 40)
    left = robust(row, name)
    clean = dig(row, "clean", "value")
    if "median_norm" in row["attacks"][name]:
        return sought(row, name)
    told = f"{attack_at(row, name)} leaves {form} right on {percent(left.get('value'))}"
    told += f" of {number_of(left)}" if left.get("total") else ""
    told += f" (clean {percent(clean)})" if known(clean) else ""
    sentences, noise = [], robust(row, "noise").get("value")
    if known(noise) and name != "noise":
        sentences.append(f"Random noise of the same size leaves {percent(noise)}.")
    tiles = [Tile(percent(clean), "clean accuracy")] if known(clean) else []
    for key in row["attacks"]:
        mine = robust(row, key)
        tiles.append(Tile(percent(mine.get("value")), f"left by {attack_at(row, key)}"))
    return told[:1].upper() + told[1:] + ".", sentences, tiles


def sought(row: Record, name: str) -> tuple[str, list[str], list[Tile]]:
    """Return the verdict under an attack that seeks the smallest change."""
    found, form = row["attacks"][name], shortened(str(row["form"]), 40)
    fooled, norm = found.get("fooled_of_correct") or {}, norm_name(found.get("norm"))
    share, clean = percent(fooled.get("value")), percent(dig(row, "clean", "value"))
    told = f"{attack_name(name)} fools {form} on {share} of {number_of(fooled)} that were right"
    median = found.get("median_norm")
    length = f"{median:.4g}" if known(median) else MISSING
    told += f"; the median change that takes has {norm} {length}." if known(median) else "."
    tiles = [Tile(clean, "clean accuracy"), Tile(share, f"fooled by {attack_name(name)}")]
    tiles.append(Tile(length, f"median {norm} of the change"))
    return told[:1].upper() + told[1:], [], tiles


def training(
    history: Sequence[Record], rows: Sequence[Record]
) -> tuple[str, list[str], list[Tile]]:
    """Return the verdict on a training: its last and its best validation accuracy."""
    scored = [r for r in history if known(r.get("validation_accuracy"))]
    test = dig(rows[-1], "clean", "value") if rows else None
    parts, tiles = [f"After {plural(len(history), 'epoch')}"], []
    if known(test):
        parts.append(f"test accuracy is {percent(test)}")
        tiles.append(Tile(percent(test), "test accuracy", interval(rows[-1]["clean"])))
    if scored:
        last, best = scored[-1], max(scored, key=lambda r: r["validation_accuracy"])
        value = percent(last["validation_accuracy"])
        parts.append(f"{'and ' if known(test) else ''}validation accuracy is {value}")
        note = f"best {percent(best['validation_accuracy'])}, epoch {best.get('epoch', '?')}"
        tiles.append(Tile(value, "validation accuracy", note))
    headline = parts[0] + ", " + " ".join(parts[1:]) + "." if len(parts) > 1 else f"{parts[0]}."
    return headline, [], tiles


def alone(row: Record) -> tuple[str, list[str], list[Tile]]:
    """Return the verdict on a single network that nothing was done to."""
    clean = dig(row, "clean", "value")
    if not known(clean):
        return "", [], []
    name = shortened(str(row["form"]), 40)
    told = (
        f"{name[:1].upper()}{name[1:]} is right on {percent(clean)} of {number_of(row['clean'])}."
    )
    return told, [], [Tile(percent(clean), "clean accuracy", interval(row["clean"]))]
