"""Pruning, sharing and coding at the size of AlexNet (61 M weights) and VGG-16 (138 M).

    python benchmarks/scale.py [size ...]        4 minutes on one idle core, 3 GB; all sizes by default

Sizes measured before (runs/bench-scale) are kept; delete the folder to measure them again.

Weights are generated with the statistics of trained layers: Laplacian within a filter, scales of the
filters log-normal (σ = 0.35), each layer's scale √(2 / inputs). Densities and bits are those of Han
et al. 2016, tables 4 and 5. Every size runs in a process of its own and is timed stage by stage:
masks (the largest magnitudes), exact k-means, assignment of the indices, coding into a .walnut file,
and reading it back, which must give the same bits. Peak memory is the process's high-water mark during
a stage (Linux), the weights themselves included, less what the interpreter with its libraries had
before they were made; while reading there are two networks, the one written and the one read. Growth
is measured on AlexNet's layers with both sides scaled down, and scikit-learn's KMeans (k-means++, 10
starts and 1) is measured beside ours on a million values. Prints, and writes results/scale.json and
results/scale.svg.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import record
from walnut import codec
from walnut.core.types import Packed
from walnut.weights.kmeans import assign, kmeans
from walnut.weights.mask import largest

SEED, KEPT = 0, Path("runs/bench-scale")
Layer = tuple[str, tuple[int, ...], float, int]

ALEXNET: list[Layer] = [
    ("conv1", (96, 3, 11, 11), 0.84, 8),
    ("conv2", (256, 48, 5, 5), 0.38, 8),
    ("conv3", (384, 256, 3, 3), 0.35, 8),
    ("conv4", (384, 192, 3, 3), 0.37, 8),
    ("conv5", (256, 192, 3, 3), 0.37, 8),
    ("fc6", (4096, 9216), 0.09, 5),
    ("fc7", (4096, 4096), 0.09, 5),
    ("fc8", (1000, 4096), 0.25, 5),
]
_WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_DENSITIES = (0.58, 0.22, 0.34, 0.36, 0.53, 0.24, 0.42, 0.32, 0.27, 0.34, 0.35, 0.29, 0.36)
VGG16: list[Layer] = [
    *[
        (f"conv{i + 1}", (_WIDTHS[i + 1], _WIDTHS[i], 3, 3), density, 8)
        for i, density in enumerate(_DENSITIES)
    ],
    ("fc6", (4096, 25088), 0.04, 5),
    ("fc7", (4096, 4096), 0.04, 5),
    ("fc8", (1000, 4096), 0.23, 5),
]


def shrunk(layers: list[Layer], share: float) -> list[Layer]:
    """Return layers of about this share of the weights: both sides of each scaled by its root."""
    out = []
    for name, shape, density, bits in layers:
        sides = [max(1, round(side * share**0.5)) for side in shape[:2]]
        if shape[1] == 3:
            sides[1] = 3
        out.append((name, (*sides, *shape[2:]), density, bits))
    return out


SIZES: dict[str, list[Layer]] = {
    "1 M": shrunk(ALEXNET, 1 / 61),
    "4 M": shrunk(ALEXNET, 4 / 61),
    "15 M": shrunk(ALEXNET, 15 / 61),
    "AlexNet": ALEXNET,
    "VGG-16": VGG16,
}


def weight(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return a weight with heavy tails and a scale for each filter."""
    uniform = torch.rand(shape, generator=generator).sub_(0.5)
    sign = uniform.sign()
    w = uniform.abs_().mul_(-2).add_(1).clamp_min_(1e-7).log_().mul_(sign).neg_()
    scale = (0.35 * torch.randn(shape[0], generator=generator)).exp_()
    inputs = w[0].numel()
    return w.mul_((scale * (1 / inputs) ** 0.5).reshape(-1, *[1] * (len(shape) - 1)))


def memory(line: str) -> float:
    """Return the process's memory in bytes: ``VmRSS``, what it has now, or ``VmHWM``, its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024.0 * int(next(row for row in status.splitlines() if row.startswith(line)).split()[1])


def forget_peak() -> None:
    """Begin the high-water mark of memory anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def stages(name: str) -> dict[str, Any]:
    """Run all stages on one size; return seconds (wall and CPU) and peak memory after each."""
    torch.set_num_threads(1)
    small = torch.randn(64, 64)
    with tempfile.TemporaryDirectory() as folder:  # what is compiled, or loaded late, comes first
        codec.write(
            Path(folder) / "a.walnut", {}, {"a": Packed("tensor", {"w": largest_of(small)})}
        )
        codec.read(Path(folder) / "a.walnut")
        kmeans(small, 4)
        before = memory("VmRSS")
        generator = torch.Generator().manual_seed(SEED)
        weights = {n: weight(shape, generator) for n, shape, _, _ in SIZES[name]}
        count = sum(w.numel() for w in weights.values())
        out: dict[str, Any] = {"weights": count, "stages": {}}
        books: dict[str, Tensor] = {}

        def prune() -> None:
            for n, _, density, _ in SIZES[name]:
                weights[n].mul_(largest(weights[n], density)).add_(0.0)

        def cluster() -> None:
            for n, _, _, bits in SIZES[name]:
                books[n] = kmeans(weights[n][weights[n] != 0], (1 << bits) - 1).centroids

        def share() -> None:
            for n, book in books.items():
                live = weights[n] != 0
                weights[n][live] = book[assign(weights[n][live], book)]

        path = Path(folder) / "net.walnut"

        def write() -> None:
            records = {n: Packed("tensor", {"w": w}) for n, w in weights.items()}
            out["bytes"] = codec.write(path, {"net": name}, records)

        def read() -> None:
            _, records = codec.read(path, limit=8 * count)
            out["exact"] = all(torch.equal(records[n].tensors["w"], w) for n, w in weights.items())

        for work in (prune, cluster, share, write, read):
            forget_peak()
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            out["stages"][work.__name__] = {
                "wall_s": round(time.perf_counter() - wall, 3),
                "cpu_s": round(time.process_time() - cpu, 3),
                "peak_times_weights": round((memory("VmHWM") - before) / (4 * count), 3),
            }
    every = out["stages"].values()
    out["wall_s"] = round(sum(stage["wall_s"] for stage in every), 2)
    out["cpu_s"] = round(sum(stage["cpu_s"] for stage in every), 2)
    out["decode_million_per_s"] = round(count / out["stages"]["read"]["cpu_s"] / 1e6, 2)
    out["ratio"] = round(4 * count / out["bytes"], 2)
    return out


def largest_of(w: Tensor) -> Tensor:
    return torch.where(largest(w, 0.1), w.sign(), 0.0)


def beside_sklearn(n: int = 1_000_000, k: int = 16, rounds: int = 3) -> dict[str, Any]:
    """Return CPU seconds and objectives of our k-means and of scikit-learn's, on the same values.

    Ours and one start of theirs take turns, and the median counts; ten starts are run once.
    """
    from sklearn.cluster import KMeans

    values = weight((n // 1000, 1000), torch.Generator().manual_seed(SEED)).reshape(-1)
    column = values.numpy().reshape(-1, 1)

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = work()
        return time.process_time() - start, found

    mine, theirs = [], {1: [], 10: []}
    for i in range(rounds):
        seconds, ours = timed(lambda: kmeans(values, k))
        mine.append(seconds)
        for starts in (1, 10) if i == 0 else (1,):
            model = KMeans(k, n_init=starts, random_state=SEED)
            theirs[starts].append(timed(lambda model=model: model.fit(column)))
    row: dict[str, Any] = {"values": n, "k": k, "cpu_s": statistics.median(mine)}
    for starts, found in theirs.items():
        row[f"sklearn_{starts}_cpu_s"] = statistics.median(seconds for seconds, _ in found)
        row[f"sklearn_{starts}_times"] = row[f"sklearn_{starts}_cpu_s"] / row["cpu_s"]
        row[f"sklearn_{starts}_objective_over_ours"] = found[0][1].inertia_ / ours.cost - 1
    return {key: round(v, 5) if isinstance(v, float) else v for key, v in row.items()}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw CPU time by weights, both on logarithmic scales, beside a line of slope one."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    n = np.array([row["weights"] for row in rows])
    for stage in rows[0]["stages"]:
        axes.loglog(n, [row["stages"][stage]["cpu_s"] for row in rows], "o-", label=stage)
    whole = [row["cpu_s"] for row in rows]
    axes.loglog(n, whole, "ko-", label="all")
    axes.loglog(n, whole[0] * n / n[0], "k:", label="linear")
    axes.set(xlabel="weights", ylabel="CPU seconds, one core")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure each size in a process of its own, print and write."""
    if sys.argv[1:2] == ["stages"]:
        print(json.dumps(stages(sys.argv[2])))
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or SIZES:
        path = KEPT / f"{name}.json"
        if not path.exists():
            command = [sys.executable, __file__, "stages", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            path.write_text(done.stdout.splitlines()[-1], encoding="utf-8")
        print(name, path.read_text(encoding="utf-8"), flush=True)
    path = KEPT / "kmeans.json"
    if not path.exists():
        path.write_text(json.dumps(beside_sklearn()), encoding="utf-8")
    rows = [
        {"net": name, **json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))}
        for name in SIZES
        if (KEPT / f"{name}.json").exists()
    ]
    figures = {"rows": rows, "kmeans": json.loads(path.read_text(encoding="utf-8"))}
    if len(rows) > 1:
        logs = np.log([[row["weights"], row["cpu_s"]] for row in rows])
        figures["growth_exponent"] = round(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]), 3)
        plot(rows, record.RESULTS / "scale.svg")
    record.write("scale", SEED, figures)


if __name__ == "__main__":
    main()
