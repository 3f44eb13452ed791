"""The bracket round a verdict: what is proven, and what nothing has broken.

    python benchmarks/certified.py

On rows 500-999 of the MNIST test set, radius 0.1: the network of Wong & Kolter 2018 that was trained to be
provable (they publish 94.2 % proven on all 10,000), and the undefended small one. About a minute on an idle
core. The ledgers in runs/ let a killed run go on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

import record
from strength import EXAMPLES, ROWS, SEED, pretrained
from walnut.core.constraints import linf
from walnut.evaluate import robustness

EPS = 0.1
NETWORKS = ("mnist_cnn_provable_eps0.1", "mnist_conv_small_nat")


def bracket(name: str) -> dict[str, Any]:
    """Return both ends for one network, and what they cost."""
    case = pretrained(name, "mnist", linf, EPS)
    data = case.dataset.test.x[ROWS], case.dataset.test.y[ROWS]
    began = time.process_time()
    found = robustness(
        case.model, data, linf, EPS, with_curve=False, certify=True, seed=SEED,
        folder=Path("runs/bench-certified") / name,
    )  # fmt: skip
    check = next(c for c in found.checks if c.name == "provable lower bound")
    return {
        "certified": None if found.certified is None else found.certified.value,
        "robust": found.robust.value, "clean": found.clean.value,
        "forward": round(found.forward, 1), "backward": round(found.backward, 1),
        "sentence": check.sentence, "cpu seconds": round(time.process_time() - began, 1),
        "flags": [flag.name for flag in found.flags],
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"eps": EPS, "examples": EXAMPLES, "networks": {}}
    for name in NETWORKS:
        figures["networks"][name] = bracket(name)
        print(name, figures["networks"][name], flush=True)
    record.write("certified", SEED, figures)


if __name__ == "__main__":
    main()
