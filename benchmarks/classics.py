"""The published figures, again: what the literature reports of small networks, and what we measure.

    python benchmarks/classics.py            measure what is not measured yet, write the JSON and the page
    python benchmarks/classics.py NAME ...   measure some of the experiments only
    python benchmarks/classics.py --table    write docs/classics.md from benchmarks/results/classics.json

Same experiments, our networks and data. Each experiment is one file under runs/bench-classics, so that an
interrupted run goes on. What was changed after a first look is in CHANGED, and on the page.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import classics_black_box as black_box
import classics_linear as linear
import classics_minimal as minimal
import classics_nets
import classics_whole as whole
import classics_xor
import record
from classics_changed import CHANGED
from classics_rows import ORDERS, ROWS
from walnut.recipes.record import Cells

Json = dict[str, Any]
PAGE = Path(__file__).parent.parent / "docs" / "classics.md"
HEAD = "| figure | experiment | source | published | ours | noise | ratio | why they differ |"
TIMES = ("cpu seconds", "trainings")
FIGURE = re.compile(r"\{([^}]+)\}")
EXPERIMENTS: dict[str, Callable[[], Json]] = {
    "szegedy": linear.szegedy,
    "halves": linear.halves,
    "goodfellow": linear.goodfellow,
    "adversarial-training": linear.adversarial_training,
    "tramer": linear.tramer,
    "xor": classics_xor.xor,
    "deepfool": minimal.robustness_of_three,
    "carlini-wagner": minimal.strongest,
    "challenge": minimal.challenge,
    "overfitting": minimal.overfitting,
    "pgd-training": minimal.trained_on_pgd,
    "nguyen": whole.nguyen,
    "papernot": black_box.papernot,
    "neighbours": black_box.neighbours,
    "ordering": black_box.ordering,
    "athalye": whole.athalye,
    "brown": whole.brown,
    "moosavi": whole.moosavi,
    "linear": whole.linear,
}
CODE = {name: inspect.getsource(work) for name, work in EXPERIMENTS.items()}


def measured(name: str) -> Json:
    """Return an experiment's figures, its processor time, and that of the trainings so far.

    Kept unless its code changes. The time of a training is that of when it was made, and no part of the
    experiment's own.
    """
    work = EXPERIMENTS[name]
    cells = Cells(
        classics_nets.FOLDER,
        {"code": CODE[name], "seed": classics_nets.SEED, "torch": torch.__version__},
    )

    def compute() -> Json:
        began, before = time.process_time(), classics_nets.SPENT["trainings"]
        figures = work()
        spent = time.process_time() - began - classics_nets.SPENT["trainings"] + before
        trainings = classics_nets.trainings()
        return {"figures": figures, "cpu seconds": round(spent, 1), "trainings": trainings}

    found = cells(name, compute)
    print(name, json.dumps(found), flush=True)
    return found


def near(row: Json, factor: float = 1.5) -> bool:
    """Say whether ours is within a factor of the published figure (1 point where that is below 1 %)."""
    ours, published = row["ours"], row["published"]
    if row["unit"] == "%" and published < 1:
        return bool(abs(ours - published) <= 1)
    return bool(published / factor <= ours <= published * factor)


def rises(values: list[float]) -> bool:
    """Say whether each figure is above the one before."""
    return all(low < high for low, high in itertools.pairwise(values))


def gathered(found: dict[str, Json]) -> Json:
    """Return rows, orders and all figures of the experiments that are measured."""
    figures = {
        f"{e}: {key}": value for e, told in found.items() for key, value in told["figures"].items()
    }
    rows = [
        {
            **asdict(row),
            "ours": figures[row.ours],
            "noise": figures.get(row.noise),
            "why": FIGURE.sub(lambda found: f"{figures[found[1]]:.3g}", row.why),
        }
        for row in ROWS
        if row.ours in figures
    ]
    orders = []
    for order in ORDERS:
        if all(key in figures for key in order.rising):
            values = [figures[key] for key in order.rising]
            orders.append({**asdict(order), "values": values, "holds": rises(values)})
    return {
        "rows": rows,
        "orders": orders,
        "missing": [row.id for row in ROWS if row.ours not in figures],
        "cpu seconds": {name: told["cpu seconds"] for name, told in found.items()},
        "trainings": {
            name: spent
            for told in found.values()
            for name, spent in told.get("trainings", {}).items()
        },
        "figures": figures,
    }


def ratio(row: Json) -> str:
    """Return ours over the published figure, bold where it is far."""
    if row["published"] == 0:
        return ""
    text = f"{row['ours'] / row['published']:.2f}"
    return text if near(row) else f"**{text}**"


def shown(value: float | None, unit: str) -> str:
    """Return a figure as the page writes it."""
    if value is None:
        return ""
    return f"{value:.4g} %" if unit == "%" else f"{value:.3g}"


def paragraph(text: str) -> list[str]:
    """Return a paragraph as lines of the page."""
    return [*textwrap.wrap(text, 104, break_long_words=False, break_on_hyphens=False), ""]


def opening(result: Json) -> list[str]:
    """Return the first lines of the page."""
    rows, orders = result["rows"], result["orders"]
    close, tight = (sum(near(row, factor) for row in rows) for factor in (1.5, 1.1))
    hold = sum(order["holds"] for order in orders)
    attacks, trainings = (sum(result[part].values()) for part in TIMES)
    return [
        "# The published figures, again",
        "",
        *paragraph(
            "What the literature reports of small networks, and what the same experiment gives with walnut's "
            "attacks on our networks and data. Figures and numbers of tables that the source files do not "
            "hold were quoted from memory."
        ),
        *paragraph(
            f"{close} of {len(rows)} figures are within a factor of 1.5 of the published one, {tight} within "
            "1.1 (within 1 point where that is below 1 %); the ratios of the others are bold. "
            f"{hold} of {len(orders)} published orders hold. *Noise* is the same figure under noise of the "
            "same size, where there is one (beside Szegedy's transfer it is σ = .1)."
        ),
        *paragraph(
            f"Written by `python benchmarks/classics.py` ({result['date']}, "
            f"{result['machine']['processor']}, one thread) from `benchmarks/results/classics.json`, which "
            f"has more. In all {(attacks + trainings) / 60:.0f} processor minutes: {attacks / 60:.1f} of "
            f"attacks and {trainings / 60:.1f} of training {len(result['trainings'])} networks."
        ),
        "## Changed after a first look",
        "",
        *(f"- {change}" for change in CHANGED),
        "",
    ]


def line(row: Json) -> str:
    """Return a figure's line of its table."""
    unit = row["unit"]
    cells = (
        row["id"], row["experiment"], row["source"], shown(row["published"], unit),
        shown(row["ours"], unit), shown(row["noise"], unit), ratio(row), row["why"],
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def page(result: Json) -> str:
    """Return docs/classics.md: everything on it comes from the JSON."""
    lines, groups = opening(result), dict[str, list[str]]()
    for row in result["rows"]:
        groups.setdefault(row["source"].split(",")[0], []).append(line(row))
    for source, group in groups.items():
        lines += [f"## {source}", "", HEAD, "|---|---|---|---:|---:|---:|---:|---|", *group, ""]
    lines += [
        "## Orders",
        "",
        "| published | source | ours, in that order | holds |",
        "|---|---|---|---|",
    ]
    for order in result["orders"]:
        values = ", ".join(f"{value:.4g}" for value in order["values"])
        holds = "yes" if order["holds"] else "no"
        lines.append(f"| {order['claim']} | {order['source']} | {values} | {holds} |")
    lines += ["", "## Trainings", "", "| network | processor seconds |", "|---|---:|"]
    lines += [f"| {name} | {spent:.0f} |" for name, spent in sorted(result["trainings"].items())]
    if result["missing"]:
        lines += ["", f"Not measured: {'; '.join(result['missing'])}."]
    return "\n".join(lines) + "\n"


def table() -> None:
    """Write the page from the JSON."""
    result = json.loads((record.RESULTS / "classics.json").read_text(encoding="utf-8"))
    PAGE.write_text(page(result), encoding="utf-8")
    print(f"written to {PAGE}")


def main(arguments: list[str]) -> None:
    """Measure and write, or write only."""
    if arguments != ["--table"]:
        for name in arguments:
            measured(name)
        if arguments:
            return
        found = {name: measured(name) for name in EXPERIMENTS}
        record.write("classics", classics_nets.SEED, gathered(found))
    table()


if __name__ == "__main__":
    main(sys.argv[1:])
