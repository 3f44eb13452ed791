"""The page's tables, out of a result's records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .palette import series
from .parts import Cell, Column, Table
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
    radius,
    size,
    times,
)

Record = dict[str, Any]
CellOf = Callable[[Record], Cell]


def results(rows: Sequence[Record]) -> Table:
    """Return the main table: a row a form, a column for everything any row has."""
    columns = [*cost_columns(rows), *accuracy_columns(rows)]
    roles = series([str(row["form"]) for row in rows])
    lines = []
    for row in rows:
        form = str(row["form"])
        head = Cell(form, role=f"series-{roles[form]}", head=True)
        lines.append((head, *(cell(row) for _, cell in columns)))
    heads = (Column("Network", numeric=False), *(column for column, _ in columns))
    caption = "Size, speed and accuracy"
    if any(dig(row, "clean", "low") is not None for row in rows):
        caption += "; beneath an accuracy stands its 95 % interval"
    return Table(caption, heads, tuple(lines))


def cost_columns(rows: Sequence[Record]) -> list[tuple[Column, CellOf]]:
    """Return the columns of size and speed that any row has."""
    timed: Record = next((row["latency"] for row in rows if row.get("latency")), {})
    batch = [f"batch {timed['batch']}"] if "batch" in timed else []
    threads = [plural(timed["threads"], "thread")] if known(timed.get("threads")) else []
    columns: list[tuple[str, Column, CellOf]] = [
        ("bytes", Column("Bytes", "on disk"), lambda row: Cell(count(row.get("bytes")))),
        ("ratio", Column("Smaller", "by"), lambda row: Cell(times(row.get("ratio")))),
        ("parameters", Column("Parameters"), lambda row: Cell(count(row.get("parameters")))),
        ("nonzeros", Column("Non-zeros"), nonzeros),
        ("multiply_adds", Column("Multiply-adds"), lambda r: Cell(count(r.get("multiply_adds")))),
        ("activation_bytes", Column("Activations", "peak"), activations),
        ("latency", Column("Latency", ", ".join(batch + threads)), latency),
        ("energy", Column("Energy", "45 nm model"), energy),
    ]
    shown = [(key, c, cell) for key, c, cell in columns if any(known_or_dict(r, key) for r in rows)]
    if any(key == "nonzeros" for key, _, _ in shown):  # which tells the parameters as its share
        shown = [line for line in shown if line[0] != "parameters"]
    return [(column, cell) for _, column, cell in shown]


def known_or_dict(row: Record, key: str) -> bool:
    """Say whether a row has anything to show under ``key``."""
    value = row.get(key)
    return known(value) or (isinstance(value, dict) and bool(value))


def nonzeros(row: Record) -> Cell:
    """Return the non-zero parameters and their share."""
    total, some = row.get("parameters"), row.get("nonzeros")
    share = percent(some / total) if known(total) and known(some) and total else ""
    return Cell(count(some), share)


def activations(row: Record) -> Cell:
    """Return the peak memory of activations."""
    return Cell(size(row.get("activation_bytes")))


def energy(row: Record) -> Cell:
    """Return the energy of one inference by the table, and its largest part."""
    record = row.get("energy") or {}
    parts = {k: v for k in ("arithmetic", "weights", "activations") if known(v := record.get(k))}
    total = record.get("total")
    if not known(total) or not total:
        return Cell(MISSING)
    largest = max(parts, key=lambda k: parts[k], default="")
    told = f"{percent(parts[largest] / total)} {largest}" if largest else ""
    return Cell(f"{total:.3g}\u00a0µJ", told)


def latency(row: Record) -> Cell:
    """Return the median latency and its spread."""
    record = row.get("latency") or {}
    low, high = record.get("low_ms"), record.get("high_ms")
    spread = f"{low:.3g}–{high:.3g}" if known(low) and known(high) else ""
    return Cell(milliseconds(record.get("median_ms")), spread)


def accuracy_columns(rows: Sequence[Record]) -> list[tuple[Column, CellOf]]:
    """Return the columns of clean, robust and transferred accuracy that any row has."""
    columns: list[tuple[Column, CellOf]] = []
    if any(row.get("clean") for row in rows):
        columns.append((Column("Clean", "accuracy"), lambda row: proportion(row.get("clean"))))
    for key in dict.fromkeys(key for row in rows for key in row.get("attacks") or {}):
        eps = [dig(row, "attacks", key, "eps") for row in rows]
        radii = " / ".join(dict.fromkeys(radius(value) for value in eps if known(value)))
        name = attack_name(key)
        title = name[:1].upper() + name[1:]
        sought = next((a for row in rows if "median_norm" in (a := seeking(row, key))), None)
        if sought is not None:
            head = Column(title, f"median {norm_name(sought.get('norm'))}")
            columns.append((head, sought_cell(key)))
            continue
        head = Column(title, f"ε\u00a0=\u00a0{radii}" if radii else "")
        columns.append((head, robust_cell(key)))
    if any(row.get("transfer_from_dense") for row in rows):
        head = Column("Transfer", "from dense")
        columns.append((head, lambda row: proportion(row.get("transfer_from_dense"))))
    return columns


def robust_cell(key: str) -> CellOf:
    """Return what draws a row's robust accuracy under one attack."""
    return lambda row: proportion(dig(row, "attacks", key, "robust"))


def seeking(row: Record, key: str) -> Record:
    """Return what an attack found on a row; one without a radius has ``median_norm``."""
    return dig(row, "attacks", key) or {}


def sought_cell(key: str) -> CellOf:
    """Return what draws how far an attack without a radius went, and how many it fooled."""
    return lambda row: Cell(
        figures4(seeking(row, key).get("median_norm")),
        f"fooled {percent(dig(seeking(row, key), 'fooled_of_correct', 'value'))}",
    )


def figures4(value: Any) -> str:
    """Return a length with four figures."""
    return f"{value:.4g}" if known(value) else MISSING


def proportion(record: Record | None) -> Cell:
    """Return a proportion with its interval beneath and a bar as long as it."""
    value = dig(record, "value")
    if not known(value):
        return Cell(MISSING)
    return Cell(percent(value), interval(record), bar=min(max(value, 0), 1))


def counts(rows: Sequence[Record]) -> Table | None:
    """Return every attack's counts, and the share fooled of what was right before it."""
    lines = []
    roles = series([str(row["form"]) for row in rows])
    for row in rows:
        form = str(row["form"])
        for key, record in (row.get("attacks") or {}).items():
            left, fooled = record.get("robust") or {}, record.get("fooled_of_correct") or {}
            head = Cell(form, role=f"series-{roles[form]}", head=True)
            name = Cell(attack_name(key))
            radii = Cell(radius(record.get("eps")))
            cells = (of(left), proportion(fooled), of(fooled))
            lines.append((head, name, radii, *cells))
    if not lines:
        return None
    heads = (
        Column("Network", numeric=False),
        Column("Attack", numeric=False),
        Column("ε"),
        Column("Still right", "of all"),
        Column("Fooled", "of those right before"),
        Column("Fooled", "counts"),
    )
    return Table("Counts, and the other denominator", heads, tuple(lines))


def of(record: Record) -> Cell:
    """Return ``31 of 1,000``."""
    correct, total = record.get("correct"), record.get("total")
    told = f"{count(correct)} of {count(total)}" if known(correct) and known(total) else MISSING
    return Cell(told)


def layers(records: Sequence[Record]) -> Table:
    """Return the packed file, tensor by tensor, with its sum."""
    largest = max((r["bytes"] for r in records if known(r.get("bytes"))), default=0) or 1
    lines = []
    for record in records:
        weights, some = record.get("weights"), record.get("nonzeros")
        share = percent(some / weights) if known(weights) and known(some) and weights else ""
        stored = record.get("bytes")
        bar = min(stored / largest, 1) if known(stored) else None
        lines.append(
            (
                Cell(str(record["name"]), head=True),
                Cell("×".join(map(str, record.get("shape") or [])) or MISSING),
                Cell(count(weights)),
                Cell(count(some), share),
                Cell(bits(record.get("bits"))),
                Cell(count(stored), bar=bar),
                Cell(times(record.get("ratio"))),
                Cell(str(record.get("coder") or MISSING)),
            )
        )
    heads = (
        Column("Tensor", numeric=False),
        Column("Shape"),
        Column("Weights"),
        Column("Non-zeros"),
        Column("Bits", "a weight"),
        Column("Bytes", "in the file"),
        Column("Smaller", "by"),
        Column("Coder", numeric=False),
    )
    return Table("The packed file, tensor by tensor", heads, (*lines, total(records)), totals=True)


def bits(value: Any) -> str:
    """Return bits, whole or with two decimals."""
    if not known(value):
        return MISSING
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.2f}"


def total(records: Sequence[Record]) -> tuple[Cell, ...]:
    """Return the sums under the tensor table."""
    sums = {
        key: sum(r[key] for r in records if known(r.get(key)))
        for key in ("weights", "nonzeros", "bytes")
    }
    weights, stored = sums["weights"], sums["bytes"]
    share = percent(sums["nonzeros"] / weights) if weights else ""
    return (
        Cell("all", head=True),
        Cell(""),
        Cell(count(weights)),
        Cell(count(sums["nonzeros"]), share),
        Cell(f"{8 * stored / weights:.2f}" if weights else MISSING),
        Cell(count(stored), size(stored)),
        Cell(times(4 * weights / stored) if stored else MISSING),
        Cell(""),
    )


def grid(caption: str, corner: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Return a plain table of numbers; each line begins with its head."""
    columns = (Column(corner, numeric=False), *(Column(head) for head in heads))
    rows = tuple((Cell(line[0], head=True), *(Cell(text) for text in line[1:])) for line in lines)
    return Table(caption, columns, rows)
