"""The tables people read, from the plain results that the recipes return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .screen import Screen
from .values import shown

_MISSING = "–"


def percent(share: Any) -> str:
    """Return a share, or a record of one, as a percentage.

    >>> percent(0.985), percent({"value": 0.5, "low": 0.46, "high": 0.54}), percent(None)
    ('98.5', '50.0', '–')
    """
    value = share.get("value") if isinstance(share, Mapping) else share
    return _MISSING if value is None else f"{100 * value:.1f}"


def size(count: int | None) -> str:
    """Return a number of bytes in groups of three.

    >>> size(1066440), size(None)
    ('1 066 440', '–')
    """
    return _MISSING if count is None else f"{count:,}".replace(",", " ")


def forms_table(screen: Screen, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Print one row per form of a network: its size, its cost, and how easily it is fooled."""
    attacks = list(dict.fromkeys(name for row in rows for name in row.get("attacks", {})))
    seeking = {n for row in rows for n, a in row.get("attacks", {}).items() if a["eps"] is None}
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("bytes", lambda row: size(row.get("bytes"))),
        ("ratio", lambda row: f"{row['ratio']:.1f}×" if "ratio" in row else _MISSING),
        ("parameters", lambda row: _MISSING if "bytes" in row else size(row.get("parameters"))),
        ("non-zeros", lambda row: size(row.get("nonzeros"))),
        (
            "MACs",
            lambda row: (
                size(row.get("multiply_adds")) if "energy" in row and not attacks else _MISSING
            ),
        ),
        (
            "µJ",
            lambda row: (
                f"{row['energy']['total']:.3g}" if "energy" in row and not attacks else _MISSING
            ),
        ),
        ("ms", lambda row: f"{row['latency']['median_ms']:.2f}" if "latency" in row else _MISSING),
        ("clean", lambda row: percent(row.get("clean"))),
        *((name, _robust(name)) for name in attacks if name not in seeking),
        *(column for name in attacks if name in seeking for column in _sought(name, rows)),
        ("dense's", lambda row: percent(row.get("transfer_from_dense"))),
    ]
    used = [(name, cell) for name, cell in columns if any(cell(row) != _MISSING for row in rows)]
    screen.table(
        title,
        ["", *(name for name, _ in used)],
        ([row["form"], *(cell(row) for _, cell in used)] for row in rows),
    )
    for line in _legend(rows, [name for name, _ in used]):
        screen.say(line)


def _robust(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: percent(row.get("attacks", {}).get(name, {}).get("robust"))


def _sought(
    name: str, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    """Return the columns of an attack without a radius: how many it fooled, and how far it went."""
    norm = next(row["attacks"][name]["norm"] for row in rows if name in row.get("attacks", {}))

    def found(row: Mapping[str, Any], key: str) -> Any:
        return row.get("attacks", {}).get(name, {}).get(key)

    def median(row: Mapping[str, Any]) -> str:
        value = found(row, "median_norm")
        return _MISSING if value is None else f"{value:.4g}"

    fooled = (f"fooled by {name}", lambda row: percent(found(row, "fooled_of_correct")))
    return [fooled, (f"median {norm}", median)]


def _legend(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Return what the columns mean, as far as their names do not say it."""
    tried = [attack for row in rows for attack in row.get("attacks", {}).values()]
    shares = [row.get("clean") for row in rows] + [attack["robust"] for attack in tried]
    widths = [50 * (s["high"] - s["low"]) for s in shares if s and "low" in s]
    radii = sorted({attack["eps"] for attack in tried if attack["eps"] is not None})
    sought = [attack for attack in tried if attack["eps"] is None]
    lines = []
    if "ms" in columns:
        lines.append("ms: one example, median of many passes")
    if "µJ" in columns:
        lines.append("µJ: energy of one inference as it runs, by a table for 45 nm (Horowitz 2014)")
    if widths:
        lines.append(f"accuracies in %, at most ±{max(widths):.1f} (95 %)")
    if radii:
        lines[-1] += f"; attacked at eps {', '.join(shown(radius) for radius in radii)}"
    if sought:
        lines.append("fooled, and the median norm of the change that took: of those right before")
    if "dense's" in columns:
        lines.append("dense's: accuracy on the examples that PGD made against the dense network")
    return lines


def front_table(screen: Screen, result: Mapping[str, Any], most: int = 12) -> None:
    """Print the candidates of a search that no other beats, the answer marked."""
    goal = result["goal"]
    found = [c for c in result["front"] if c["front"] or c["chosen"]]
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("bytes", lambda c: size(c["bytes"])),
        ("accuracy", lambda c: percent(c["accuracy"])),
        ("robust", lambda c: percent(c.get("robust"))),
        ("ms", lambda c: f"{c['latency_ms']:.3g}"),
        ("goal", lambda c: "met" if c["met"] else "missed"),
        ("", lambda c: "<- the answer" if c["chosen"] else ""),
    ]
    used = [pair for pair in columns if goal["eps"] is not None or pair[0] != "robust"]
    rows = [[c["name"], *(cell(c) for _, cell in used)] for c in found]
    cut = rows if len(rows) <= most else [*rows[:most], ["…", *("" for _ in used)]]
    screen.table("the front, on validation data", ["", *(name for name, _ in used)], cut)
    if goal["eps"] is not None:
        screen.say(
            f"robust at eps {shown(goal['eps'])}: trials by a short PGD, which flatters; "
            "finished ones by the cascade"
        )


def transfer_tables(screen: Screen, tables: Iterable[Mapping[str, Any]]) -> None:
    """Print, per radius, the accuracy of each network (column) on each one's examples (row)."""
    for table in tables:
        names = table["names"]
        cells = [
            [f"against {name}", *(f"{100 * value:.1f}" for value in row)]
            for name, row in zip(names, table["accuracy"], strict=True)
        ]
        for extra in ("clean", "noise"):
            if table.get(extra):
                cells.append([extra, *(f"{100 * _value(v):.1f}" for v in table[extra])])
        how = f"{table['method']}, " if "method" in table else ""
        title = f"accuracy in % on examples made against … ({how}eps {shown(table['eps'])})"
        screen.table(title, ["", *names], cells)


def _value(share: Any) -> float:
    return float(share["value"] if isinstance(share, Mapping) else share)


def history_table(screen: Screen, history: Sequence[Mapping[str, Any]], last: int = 5) -> None:
    """Print the last epochs of a training."""
    if not history:
        return
    columns = [name for name, value in history[-1].items() if isinstance(value, int | float)]
    rows = [[_cell(name, epoch.get(name)) for name in columns] for epoch in history[-last:]]
    screen.table("the last epochs", [name.replace("_", " ") for name in columns], rows, left=0)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return _MISSING
    if name.endswith("accuracy"):
        return percent(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
