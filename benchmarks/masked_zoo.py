"""The masked zoo under ``walnut.evaluate.robustness``: is any network's robustness overstated in silence?

    python benchmarks/masked_zoo.py                        every network; writes results/masked_zoo.json
    python benchmarks/masked_zoo.py "int8, static"         some of them; the table is not written
    python benchmarks/masked_zoo.py --no-verdict           without the verdict: the zoo itself

A network passes where the verdict is at most 2 points above the best figure known, or a check says
``wrong``. Data comes from WALNUT_DATA; trained networks are kept in --cache. Each network's row is kept
under runs/bench-zoo until the stages of the verdict change, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import torch

import record
from walnut import data
from walnut.evaluate import accuracy
from walnut.evaluate.stage import Setting
from walnut.evaluate.stages import STANDARD
from walnut.evaluate.verdict import VERSION
from walnut.recipes.record import Cells
from zoo import NORM, ZOO, Entry, naive
from zoo_workshop import CACHE, Workshop

SEED, WITHIN = 0, 0.02
PLAN = [(stage.name, repr(stage.make(Setting(NORM, 0.1)))) for stage in STANDARD]
KEPT = Cells(Path("runs/bench-zoo"), {"seed": SEED, "ledger": VERSION, "plan": PLAN})


def verdict(model: Any, x: torch.Tensor, y: torch.Tensor, eps: float) -> dict[str, Any]:
    """Return walnut's own figure and its red flags, or the error if it raises."""
    from walnut.evaluate import robustness

    began = time.perf_counter()
    try:
        found = robustness(model, (x, y), NORM, eps, with_curve=False)
    except Exception as error:  # a crash is a result of this benchmark
        return {"error": f"{type(error).__name__}: {error}", "robust": None, "flags": []}
    return {
        "robust": round(found.robust.value, 4),
        "flags": [check.name for check in found.checks if check.level == "wrong"],
        "odd": [check.name for check in found.checks if check.level == "odd"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def passes(best: float, judged: dict[str, Any]) -> bool:
    """Say whether a verdict is near the best figure or flagged: never wrong in silence."""
    near = judged["robust"] is not None and judged["robust"] <= best + WITHIN
    return near or bool(judged["flags"])


def judge(entry: Entry, shop: Workshop, with_verdict: bool) -> dict[str, Any]:
    """Return one row of the table."""
    model, base, eps = entry.make(shop), shop.base(), shop.eps
    x, y = shop.dataset.test.x[: entry.examples], shop.dataset.test.y[: entry.examples]
    began = time.perf_counter()
    best = entry.best_known(base, model, x, y, NORM, eps)
    spent = time.perf_counter() - began
    plain, says = naive(entry, model, x, y, eps)
    row: dict[str, Any] = {
        "network": entry.name, "trick": entry.trick, "data": entry.on, "eps": eps,
        "examples": len(y), "clean": round(accuracy(model, x, y).value, 4),
        "naive": None if plain is None else round(plain.value, 4), "naive_attack": repr(entry.naive(eps)),
        "naive_says": says, "best_known": round(best.value, 4), "best_known_seconds": round(spent, 1),
    }  # fmt: skip
    row["masked"] = plain is None or plain.value > best.value + 0.1
    if with_verdict:
        judged = verdict(model, x, y, eps)
        row |= {"verdict": judged, "passes": passes(best.value, judged)}
    return row


def line(row: dict[str, Any]) -> str:
    """Return a row of the table as text."""
    left = "cannot run" if row["naive"] is None else f"{100 * row['naive']:6.1f} %"
    text = (
        f"{row['network']:30s} clean {100 * row['clean']:5.1f} %  naive {left:10s}  "
        f"best known {100 * row['best_known']:5.1f} %"
    )
    if "verdict" in row:
        judged = row["verdict"]
        figure = "raised" if judged["robust"] is None else f"{100 * judged['robust']:5.1f} %"
        text += f"  verdict {figure}  {'passes' if row['passes'] else 'SILENT'}"
        text += f"  {', '.join(judged['flags'])}{judged.get('error', '')}"
    return text


def main() -> int:
    """Judge the networks named, or all; return 0 where none is silent."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks of the zoo; all unless given")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where trained networks are kept")
    parser.add_argument("--no-verdict", action="store_true", help="leave out walnut's own verdict")
    given = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    entries = [entry for entry in ZOO if not given.names or entry.name in given.names]
    shops: dict[str, Workshop] = {}
    rows = []
    for entry in entries:
        if entry.on not in shops:
            shops[entry.on] = Workshop(data.load(entry.on), given.cache)
        torch.manual_seed(SEED)
        made = functools.partial(judge, entry, shops[entry.on], not given.no_verdict)
        name = f"{entry.on} {entry.name}".replace("/", "_")
        rows.append(made() if given.no_verdict else KEPT(name, made))
        print(line(rows[-1]), flush=True)
    silent = [row["network"] for row in rows if not row.get("passes", True)]
    if not given.names and not given.no_verdict:
        record.write("masked_zoo", SEED, {"networks": len(rows), "silent": silent, "rows": rows})
    return 1 if silent or not rows else 0


if __name__ == "__main__":
    raise SystemExit(main())
