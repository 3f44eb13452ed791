"""The tables people read, from the plain results that the recipes return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .screen import Screen
from .values import shown

_MISSING = "–"


def percent(share: Any) -> str:
    """Return a share as a percentage; an interval, where there is one, as ± half its width.

    >>> percent(0.985), percent({"value": 0.5, "low": 0.46, "high": 0.54})
    ('98.50 %', '50.0 ±4.0 %')
    """
    if share is None:
        return _MISSING
    if isinstance(share, Mapping):
        if "low" not in share:
            return percent(share["value"])
        return f"{100 * share['value']:.1f} ±{50 * (share['high'] - share['low']):.1f} %"
    return f"{100 * share:.2f} %"


def size(count: int | None) -> str:
    """Return a number of bytes with thin groups of three.

    >>> size(1066440), size(None)
    ('1 066 440', '–')
    """
    return _MISSING if count is None else f"{count:,}".replace(",", " ")


def _latency(latency: Mapping[str, Any] | None) -> str:
    if not latency:
        return _MISSING
    return f"{latency['median_ms']:.2f} ms (×{latency.get('ratio_to_dense', 1.0):.2f})"


def forms_table(screen: Screen, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Print one row per form of a network: its size, its cost, and how easily it is fooled."""
    attacks = list(dict.fromkeys(name for row in rows for name in row.get("attacks", {})))
    columns: list[tuple[str, Any]] = [
        ("bytes", lambda r: size(r["bytes"]) if "bytes" in r else None),
        ("ratio", lambda r: f"{r['ratio']:.1f}×" if r.get("ratio") else None),
        ("parameters", lambda r: size(r["parameters"]) if "parameters" in r else None),
        ("non-zeros", lambda r: size(r["nonzeros"]) if "nonzeros" in r else None),
        ("latency", lambda r: _latency(r["latency"]) if r.get("latency") else None),
        ("clean", lambda r: percent(r["clean"]) if r.get("clean") else None),
        *((_under(name, rows), _robust(name)) for name in attacks),
        ("from dense", lambda r: percent(r["transfer_from_dense"]) if r.get("transfer_from_dense") else None),
    ]  # fmt: skip
    used = [(name, cell) for name, cell in columns if any(cell(row) is not None for row in rows)]
    screen.table(
        title,
        ["", *(name for name, _ in used)],
        ([row["form"], *(cell(row) or _MISSING for _, cell in used)] for row in rows),
    )


def _under(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    radii = {row["attacks"][name]["eps"] for row in rows if name in row.get("attacks", {})}
    return f"{name} {shown(radii.pop())}" if len(radii) == 1 else name


def _robust(name: str) -> Any:
    def cell(row: Mapping[str, Any]) -> str | None:
        found = row.get("attacks", {}).get(name)
        return percent(found["robust"]) if found else None

    return cell


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
        title = f"accuracy in % on examples made against … (eps {shown(table['eps'])})"
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
