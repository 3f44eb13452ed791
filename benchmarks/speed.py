"""Speed by the clock: structured removal, integers, zeros that buy nothing, sparse rows that do.

    WALNUT_DATA=... python benchmarks/speed.py             (about 4 minutes on an idle machine)
    WALNUT_DATA=... python benchmarks/speed.py resnet-20   (one part; the others' figures stay)

One run, batch 1 and one thread unless said, all forms in turn in every round, each called twice. A ratio
is the median over rounds of (baseline's time / this form's time), with its quartiles, by the wall clock
and by the processor time of the process. Where the machine is busy the two differ: a long call is
interrupted more often than a short one, and the wall clock flatters the short one. Targets are held
against the smaller of the two. They are of the second call, a network in use; ``cold`` is the processor's
time of the first, when other networks have just had the cache. For a millisecond's work that matters.

ResNet-18 has random weights and batch statistics of random images: time does not depend on values.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import record
from walnut import data, nets
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.evaluate import accuracy
from walnut.export import (
    dynamic,
    eager,
    gap,
    onnx_runtime,
    openvino,
    qdq,
    simulated,
    to_csr,
    to_onnx,
)
from walnut.weights import bake, prune

SEED, THREADS = 0, 1
Form = Callable[[Tensor], Tensor]
STATISTICS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
ISA = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(f(x) + shortcut(x))."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    """He et al. 2016, table 1; 11,689,512 parameters at width 64."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1, self.pool = nn.BatchNorm2d(width), nn.MaxPool2d(3, 2, 1)
        sides = [width, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(
            *(Block(sides[i], sides[i + 1], 2 if i else 1) if first else Block(sides[i + 1], sides[i + 1], 1)
              for i in range(4) for first in (True, False))
        )  # fmt: skip
        self.fc = nn.Linear(8 * width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, 1000)."""
        x = self.blocks(self.pool(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def settled(model: nn.Module) -> nn.Module:
    """Give batch norm the statistics of random images, and return the network in eval mode."""
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(4, 3, 224, 224))
    return model.eval()


def parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def halved(dense: nn.Module) -> tuple[nn.Module, str]:
    """Return the network with half of each layer's channels, and how it was made."""
    try:
        from walnut.weights.shrink import shrink
    except ImportError:
        return settled(ResNet18(32)), "built with half the width"
    small = copy.deepcopy(dense)
    shrink(small, torch.rand(2, 3, 224, 224), 0.5)
    return small, "walnut.weights.shrink, ratio 0.5"


def timed(forms: Mapping[str, Form], x: Tensor, rounds: int) -> dict[str, Any]:
    """Time all forms in turn; return wall and processor seconds of each round, warm-up dropped.

    ``cold`` is the processor's time of a form's first call of a round, when the forms before it have the
    cache; ``wall`` and ``cpu`` are of the second, as in a process that uses one network.
    """
    found: dict[str, Any] = {name: {"wall": [], "cpu": [], "cold": []} for name in forms}
    with torch.no_grad():
        for i in range(rounds + 3):
            for name, form in forms.items():
                began = time.process_time()
                form(x)
                cold = time.process_time() - began
                wall, cpu = time.perf_counter(), time.process_time()
                form(x)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                if i >= 3:
                    for clock, seconds in (("wall", wall), ("cpu", cpu), ("cold", cold)):
                        found[name][clock].append(seconds)
    return found


def times_faster(times: dict[str, Any], name: str, than: str) -> dict[str, Any]:
    """Return how many times faster one form is, by every clock."""
    return {
        clock: record.spread(
            [a / b for a, b in zip(times[than][clock], times[name][clock], strict=True)]
        )
        for clock in ("wall", "cpu", "cold")
    }


def milliseconds(times: dict[str, Any]) -> dict[str, Any]:
    """Return the median and quartiles of each form, wall clock, in ms."""
    return {name: record.spread([1e3 * t for t in of["wall"]]) for name, of in times.items()}


def held(ratio: dict[str, Any], target: float) -> bool:
    """Say whether a target is reached by both clocks."""
    return bool(min(ratio["wall"]["median"], ratio["cpu"]["median"]) >= target)


def runtimes(files: Mapping[str, Path], refused: dict[str, str]) -> dict[str, Form]:
    """Return each file in ONNX Runtime and in OpenVINO; note in ``refused`` what does not open."""
    forms: dict[str, Form] = {}
    for name, path in files.items():
        for runtime, open_ in (("ONNX Runtime", onnx_runtime), ("OpenVINO", openvino)):
            try:
                forms[f"{runtime}, {name}"] = open_(path, THREADS)
            except WalnutError as error:
                refused[f"{runtime}, {name}"] = str(error)
    return forms


def resnet18(folder: Path) -> dict[str, Any]:
    """Structured ratio 0.5 and int8 against dense; 90 % zeros against none; kinds of integers."""
    dense = settled(ResNet18())
    half, how = halved(dense)
    zeros = bake(prune(copy.deepcopy(dense), 0.1))
    x = torch.rand(16, 3, 224, 224)
    files = {
        "dense": to_onnx(dense, folder / "dense.onnx", x[:2]),
        "half": to_onnx(half, folder / "half.onnx", x[:2]),
        "90 % zeros": to_onnx(zeros, folder / "zeros.onnx", x[:2]),
        "dense int8": qdq(dense, folder / "dense8.onnx", x, batch_size=4),
        "half int8": qdq(half, folder / "half8.onnx", x, batch_size=4),
        "dense int8, int8 activations": qdq(
            dense, folder / "s8.onnx", x, activations=torch.int8, batch_size=4
        ),
    }
    refused: dict[str, str] = {}
    forms: dict[str, Form] = {
        "PyTorch, dense": eager(dense), "PyTorch, half": eager(half),
        "PyTorch, 90 % zeros": eager(zeros),
        **runtimes({name: made.path for name, made in files.items()}, refused),
        "OpenVINO, dense bfloat16": openvino(files["dense"].path, THREADS, precision=torch.bfloat16),
        "ONNX Runtime, dense dynamic int8": onnx_runtime(
            dynamic(dense, folder / "dynamic.onnx", x[:4]).path, THREADS
        ),
    }  # fmt: skip
    times = timed(forms, x[:1], 20)
    ratios = {}
    for runtime in ("ONNX Runtime", "OpenVINO"):
        best = f"{runtime}, half int8"
        torch_, same = (
            times_faster(times, best, "PyTorch, dense"),
            times_faster(times, best, f"{runtime}, dense"),
        )
        ratios[runtime] = {
            "over PyTorch dense": torch_, "at least 9": held(torch_, 9.0),
            "over the same runtime dense": same, "at least 4.5": held(same, 4.5),
        }  # fmt: skip
    empty = {
        runtime: times_faster(times, f"{runtime}, 90 % zeros", f"{runtime}, dense")
        for runtime in ("PyTorch", "ONNX Runtime", "OpenVINO")
    }
    kinds = {
        name: times_faster(times, f"{name}", "ONNX Runtime, dense")
        for name in forms
        if "dense" in name and "int8" in name
    }
    return {
        "input": [1, 3, 224, 224], "how half was made": how,
        "parameters": {"dense": parameters(dense), "half": parameters(half)},
        "bytes": {name: made.bytes for name, made in files.items()},
        "gap of the deployed to the simulated": {n: files[n].gap.json() for n in files if "int8" in n},
        "milliseconds": milliseconds(times), "half int8": ratios, "refused": refused,
        "OpenVINO half int8 over OpenVINO dense bfloat16": times_faster(
            times, "OpenVINO, half int8", "OpenVINO, dense bfloat16"),
        "90 % zeros over dense": empty, "kinds of integers over ONNX Runtime dense": kinds,
    }  # fmt: skip


def resnet20(folder: Path) -> dict[str, Any]:
    """The pretrained CIFAR-10 network in integers: accuracy on the whole test set, and time."""
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data"))
    dataset = data.load("cifar10")
    path = root / "models" / "resnet20_cifar10.safetensors"
    model = nets.resolve("resnet-20", path, dataset=dataset, **STATISTICS)
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(SEED))
    seen = dataset.train.x[order[:500]]
    plain, made = (
        to_onnx(model, folder / "20.onnx", seen[:100]),
        qdq(model, folder / "20q.onnx", seen),
    )
    signed = qdq(model, folder / "20s.onnx", seen, activations=torch.int8)
    x, y = dataset.test.x, dataset.test.y
    refused: dict[str, str] = {}
    forms: dict[str, Form] = {
        "PyTorch, dense": eager(model),
        **runtimes({"dense": plain.path, "int8": made.path, "int8, int8 activations": signed.path}, refused),
        "ONNX Runtime, dynamic int8": onnx_runtime(
            dynamic(model, folder / "20d.onnx", seen[:20]).path, THREADS),
    }  # fmt: skip
    clean = {
        name: accuracy(forms[name], x, y, 100).json()
        for name in ("PyTorch, dense", "ONNX Runtime, int8", "OpenVINO, int8")
    }
    lost = {
        n: round(100 * (clean["PyTorch, dense"]["value"] - c["value"]), 2) for n, c in clean.items()
    }
    return {
        "input": [3, 32, 32], "calibration": 500, "test accuracy": clean, "points lost": lost,
        "at most 1 point lost": max(lost.values()) <= 1.0,
        "bytes": {"float32 ONNX": plain.bytes, "int8 ONNX": made.bytes}, "refused": refused,
        "gap to the simulated": {
            n: gap(forms[n], simulated(made.path, THREADS), x[:500]).json()
            for n in ("ONNX Runtime, int8", "OpenVINO, int8")
        },
        "by batch": {str(batch): compared(forms, x[:batch]) for batch in (1, 8, 32)},
    }  # fmt: skip


def compared(forms: dict[str, Form], x: Tensor) -> dict[str, Any]:
    """Return the times of ResNet-20's forms on one batch, and the ratios of the integers."""
    times = timed(forms, x, 100 if len(x) == 1 else 30)
    found: dict[str, Any] = {}
    for runtime in ("ONNX Runtime", "OpenVINO"):
        torch_ = times_faster(times, f"{runtime}, int8", "PyTorch, dense")
        same = times_faster(times, f"{runtime}, int8", f"{runtime}, dense")
        found[runtime] = {
            "over PyTorch dense": torch_, "at least 3": held(torch_, 3.0),
            "over the same runtime dense": same, "at least 1.8": held(same, 1.8),
        }  # fmt: skip
    kinds = {
        name: times_faster(times, name, "ONNX Runtime, dense") for name in forms if "int8" in name
    }
    return {
        "milliseconds": milliseconds(times), "int8": found,
        "kinds of integers over ONNX Runtime dense": kinds,
    }  # fmt: skip


def csr() -> list[dict[str, Any]]:
    """Sparse rows against the dense layer: where they pay and where they do not."""
    rows = []
    for outputs, inputs in ((300, 784), (1024, 1024), (4096, 4096)):
        for density in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01):
            dense = nn.Linear(inputs, outputs)
            with torch.no_grad():
                dense.weight.mul_(torch.rand_like(dense.weight) < density)
            sparse = to_csr(dense, 1.0)
            for batch in (1, 8, 64):
                x = torch.rand(batch, inputs)
                with frozen(dense):
                    off = float((sparse(x) - dense(x)).abs().max())
                    times = timed({"dense": dense, "csr": sparse}, x, 9 if inputs > 2000 else 30)
                ratio = times_faster(times, "csr", "dense")
                rows.append(
                    {"outputs": outputs, "inputs": inputs, "density": density, "batch": batch,
                     "dense_ms": milliseconds(times)["dense"]["median"],
                     "csr_ms": milliseconds(times)["csr"]["median"],
                     "times_faster": ratio, "pays": held(ratio, 1.0), "largest_difference": off}
                )  # fmt: skip
    return rows


def flags() -> list[str]:
    """Return what the processor has for integers and short floats."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return [flag for flag in ISA if flag in line.split()]


PARTS: dict[str, Callable[[Path], Any]] = {
    "resnet-18 shape": resnet18,
    "resnet-20": resnet20,
    "sparse rows": lambda _: csr(),
}


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    wanted = sys.argv[1:] or list(PARTS)
    path = record.RESULTS / "speed.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    when = "date, and load of the machine before and after"
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "threads": THREADS, "batch": "1 unless said", "processor has": flags(),
            "versions": {f.name: f.version for f in _named(Path(folder))},
        } | {name: kept[name] for name in (*PARTS, when) if name in kept}  # fmt: skip
        for name in wanted:
            before = os.getloadavg()[0]
            figures[name] = PARTS[name](Path(folder))
            loads = [round(load, 2) for load in (before, os.getloadavg()[0])]
            stamp = [datetime.date.today().isoformat(), *loads]
            figures[when] = figures.get(when, {}) | {name: stamp}
    record.write("speed", SEED, figures)


def _named(folder: Path) -> list[Any]:
    net, x = nn.Linear(4, 2).eval(), torch.rand(2, 4)
    path = to_onnx(net, folder / "small.onnx", x).path
    return [eager(net), onnx_runtime(path), openvino(path)]


if __name__ == "__main__":
    main()
