"""A search's result as the page draws it: plausible figures, the same on every run."""

from __future__ import annotations

from typing import Any

import report_results as results


def candidate(number: int, stage: str, **more: Any) -> dict[str, Any]:
    """Return one candidate; larger ones are better, with a dent."""
    return {
        "name": f"{stage}-{number:010x}",
        "stage": stage,
        "file": f"candidates/{stage}-{number:010x}/packed.walnut",
        "choice": {"adversarial": number % 2 == 0, "density": 0.02 * 1.5**number, "bits": 2 + number % 5},
        "bytes": round(2800 * 1.6**number),
        "accuracy": min(0.99, 0.8 + 0.03 * number - 0.05 * (number == 3)),
        "robust": min(0.8, 0.2 + 0.07 * number),
        "latency_ms": 0.04,
        "latency_to_dense": 1.0,
        "front": number != 3,
        "chosen": False,
        "met": number > 4,
    } | more  # fmt: skip


def search(*, met: bool = True) -> dict[str, Any]:
    """Return a search with eight trials and three finalists, and a scan of eight layers."""
    found = [candidate(i, "trial") for i in range(8)]
    found += [candidate(i, "finished", robust=0.1 + 0.06 * i) for i in (4, 6)]
    found.append(candidate(5, "finished", robust=0.45, chosen=True, met=met))
    result = results.common("search") | {
        "goal": {"accuracy": 0.95, "robust": 0.4, "bytes": 60000, "latency_ms": None, "eps": 8 / 255},
        "met": met,
        "front": found,
        "sensitivity": [
            {"layer": f"stage.{i}.block.conv{i}.weight", "weights": 4608, "examples": 2000,
             "density": [1.0, 0.5, 0.2, 0.1, 0.01],
             "accuracy": [0.97, 0.96, 0.9 - 0.05 * i, 0.8 - 0.09 * i, 0.1]}
            for i in range(8)
        ],
    }  # fmt: skip
    result["rows"] = [
        {"form": form, "bytes": size, "ratio": 1_078_888 / size, "parameters": 269_722,
         "nonzeros": 269_722 // (1 + i), "multiply_adds": 40_813_184, "activation_bytes": 196_608,
         "latency": {"median_ms": 2.1, "low_ms": 2.0, "high_ms": 2.3, "batch": 1, "threads": 1},
         "energy": {"arithmetic": 187.7, "weights": 172.6, "activations": 7.4, "total": 367.7},
         "clean": results.share(917 - 9 * i)}
        for i, (form, size) in enumerate((("dense", 1_090_000), ("found", 41_234)))
    ]  # fmt: skip
    return result
