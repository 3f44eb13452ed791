"""How fast the one-dimensional k-means is, how near to the optimum, and what Lloyd's starts miss.

    python benchmarks/kmeans_speed.py [values ...]       1e6 and 1e7 by default; 1e8 takes 2.5 GB

Prints, and writes benchmarks/results/kmeans_speed.json.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from walnut.weights.kmeans import assign, density, kmeans, linear, lloyd, random

SEED = 0


def measure(n: int, k: int) -> dict[str, Any]:
    """Cluster n normal values into k, and compare with Lloyd's algorithm from three starts."""
    values = torch.randn(n, generator=torch.Generator().manual_seed(SEED)) * 0.03
    start = time.perf_counter()
    found = kmeans(values, k)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    assign(values, found.centroids)
    row = {
        "values": n,
        "k": k,
        "seconds": seconds,
        "assign_seconds": time.perf_counter() - start,
        "gap": found.gap,
    }
    if n <= 10**6:
        for name, way in (("linear", linear), ("density", density), ("random", random(SEED))):
            row[f"lloyd_{name}_over"] = lloyd(way)(values, k).cost / found.cost - 1
    return row


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    sizes = [int(float(text)) for text in sys.argv[1:]] or [10**6, 10**7]
    rows = [measure(n, k) for n in sizes for k in (16, 32, 256)]
    for row in rows:
        print({key: round(v, 5) if isinstance(v, float) else v for key, v in row.items()})
    result = {
        "date": datetime.date.today().isoformat(),
        "seed": SEED,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / "kmeans_speed.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
