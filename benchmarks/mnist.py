"""The main job on MNIST: two architectures, two seeds each; trained, shrunk, attacked, transferred.

Runs are kept under runs/bench-mnist and go on from there when interrupted. The command-line forms:

    walnut train --net lenet-5 --data mnist --out runs/bench-mnist/lenet-5-0
    walnut compress --model runs/bench-mnist/lenet-5-0/model.safetensors --data mnist
    walnut transfer --models A=... A2=... B=... B2=... --data mnist --eps 0.05 0.1 0.2
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

import record
from walnut import data
from walnut.recipes.compress import compress
from walnut.recipes.train import train
from walnut.recipes.transfer import transfer

SEED, EPS = 0, (0.05, 0.1, 0.2)
OUT = Path("runs/bench-mnist")


def main() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    dataset = data.load("mnist")
    figures: dict[str, Any] = {"data": dataset.name}
    models = {}
    for net in ("lenet-300-100", "lenet-5"):
        for seed in (0, 1):
            made = train(net, dataset, seed=seed, out=OUT / f"{net}-{seed}")
            models[f"{net} seed {seed}"] = made.model
            figures[f"train {net} seed {seed}"] = {
                "test_accuracy": made.test,
                "seconds": sum(row["seconds"] for row in made.history),
            }
            print(net, seed, figures[f"train {net} seed {seed}"], flush=True)
    for net in ("lenet-300-100", "lenet-5"):
        began = time.perf_counter()
        packed = compress(models[f"{net} seed 0"], dataset, seed=SEED, out=OUT / f"{net}-packed")
        figures[f"compress {net}"] = {
            "bytes": packed.path.stat().st_size,
            "fp32_bytes": packed.sizes.parameter_bytes,
            "ratio": packed.sizes.ratio,
            "errors": errors(packed.path.parent),
            "seconds": round(time.perf_counter() - began, 1),
        }
        print(net, figures[f"compress {net}"], flush=True)
    found = transfer(models, dataset, eps=EPS, examples=1000, seed=SEED, out=OUT / "transfer")
    figures["transfer"] = found["transfer"]
    record.write("mnist", SEED, figures)


def errors(folder: Path) -> dict[str, float]:
    """Return the test error of each form, in percent."""
    rows = json.loads((folder / "result.json").read_text(encoding="utf-8"))["rows"]
    return {row["form"]: round(100 * (1 - row["clean"]["value"]), 3) for row in rows}


if __name__ == "__main__":
    main()
