"""Where a benchmark's result goes: one JSON file with date, machine and seed."""

from __future__ import annotations

import datetime
import json
import statistics
from pathlib import Path
from typing import Any

from walnut.recipes.record import machine

RESULTS = Path(__file__).parent / "results"


def write(name: str, seed: int, figures: dict[str, Any]) -> Path:
    """Write ``results/NAME.json`` and print it."""
    RESULTS.mkdir(exist_ok=True)
    whole = {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "seed": seed,
        **figures,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(whole, indent=1, ensure_ascii=False))
    print(f"written to {path}")
    return path


def earlier(name: str) -> dict[str, Any]:
    """Return what ``results/NAME.json`` holds, or nothing."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def spread(ratios: list[float]) -> dict[str, float]:
    """Return median and quartiles of ratios."""
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)}
