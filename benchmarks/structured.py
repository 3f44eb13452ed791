"""Structured removal: half of every layer of twelve architectures, and ResNet-20 at half the work.

    python benchmarks/structured.py            # both: a minute, then an hour of training
    python benchmarks/structured_resnet.py     # the ResNet-20 alone

Part one needs no data: random weights, lively batch norms. Each network loses half of the units of
every group that can be found; parameters, multiply-adds, whether it runs, loads from its own file bit
for bit, and how far it is from the old network with these units at zero. Torch-Pruning (Fang et al.
2023) does the same beside it, the last layer told to it by hand, as its documentation asks.
Part two is ``structured_resnet.py``.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import record
import structured_resnet
from walnut import nets
from walnut.core.errors import WalnutError
from walnut.weights import couple, pack, shrink

SEED, RATIO = 0, 0.5
NETS: dict[str, dict[str, Any]] = {
    "vgg-16": {},
    "resnet-20": {},
    "resnet-20-b": {},
    "resnet-18": {"width": 32},
    "densenet-40": {},
    "squeezenet": {},
    "mobilenet": {},
    "mobilenet-v2": {},
    "shufflenet": {},
    "shufflenet-v2": {},
    "lstm": {},
    "vit": {},
}
SHAPE = (3, 32, 32)


def made(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network with random weights, and an example."""
    torch.manual_seed(SEED)
    model = nets.build(name, shape=SHAPE, classes=10, **NETS[name]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, nn.Linear | nn.Conv2d):  # logits of order one
            nn.init.kaiming_normal_(module.weight)
    return model, torch.rand(2, *SHAPE)


def ours(name: str) -> dict[str, Any]:
    """Return what ``shrink`` makes of a network."""
    model, x = made(name)
    began = time.process_time()
    done = shrink(model, x, RATIO)
    seconds = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        pack(model, Path(folder) / "m.walnut")
        again = nets.load(Path(folder) / "m.walnut")
        exact = torch.equal(again(x), model(x))
    return {
        "parameters": done.parameters,
        "multiply_adds": [n // len(x) for n in done.multiply_adds],
        "groups": len(done.units),
        "left": {k: v for k, v in done.left.items() if v != "it is an output of the network"},
        "difference_from_masked": done.difference,
        "loads_bit_exact": exact,
        "cpu_seconds": round(seconds, 2),
    }


def theirs(name: str) -> dict[str, Any]:
    """Return what Torch-Pruning makes of it, counted as ours is."""
    import torch_pruning

    model, x = made(name)
    before = sum(p.numel() for p in model.parameters())
    work = couple(model, x).multiply_adds() // len(x)
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = torch_pruning.pruner.MetaPruner(
                model, x, importance=torch_pruning.importance.MagnitudeImportance(p=2),
                pruning_ratio=RATIO, ignored_layers=[last],
            )  # fmt: skip
            pruner.step()
        with torch.no_grad():
            shape = list(model(x).shape)
        after = couple(model, x).multiply_adds() // len(x)
    except (Exception, SystemExit) as error:
        return {"fails": f"{type(error).__name__}: {error!s:.160}"}
    return {
        "parameters": [before, sum(p.numel() for p in model.parameters())],
        "multiply_adds": [work, after],
        "output": shape,
    }


def table() -> dict[str, Any]:
    """Return part one, a row a network."""
    rows = {}
    for name in NETS:
        try:
            row: dict[str, Any] = {"walnut": ours(name)}
        except WalnutError as error:
            row = {"walnut": {"fails": str(error)}}
        row["torch_pruning"] = theirs(name)
        rows[name] = copy.deepcopy(row)
        print(name, row, flush=True)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"ratio": RATIO, "architectures": table()}
    if "--table" not in sys.argv:
        figures["resnet20"] = structured_resnet.measure()
    record.write("structured", SEED, figures)


if __name__ == "__main__":
    main()
