"""Low rank on trained networks: fitted to responses or to weights, at equal multiply-adds.

    python benchmarks/lowrank_nets.py   # the networks, once: 10 minutes on one idle core
    python benchmarks/lowrank.py        # 10 minutes; rows are kept and it goes on from them

Accuracy is that of the first 5,000 test images (MNIST: all), without any training after the
factorisation; nothing is chosen by it. The data that responses are fitted to are training images,
without labels. Time is alternating.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import record
from lowrank_nets import OUT, cifar_vgg, mnist_lenet, normalised
from walnut import data, nets
from walnut.core.objectives import cross_entropy
from walnut.data import Dataset
from walnut.evaluate import accuracy, cost, latency
from walnut.training import Batches, adam, fit, one_cycle
from walnut.weights import (
    by_responses,
    by_weights,
    channel,
    cp,
    factorise,
    separable,
    spatial,
    svd,
    tucker2,
)
from walnut.weights.lowrank_budget import budget

SEED, IMAGES, TESTED = 0, 1000, 5000
BUDGETS = (0.5, 0.3)
SHAPE = (3, 32, 32)
FITS = ("weights", "responses")


def kept(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a row, from disk where it was made before."""
    path = OUT / "rows" / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        path.write_text(json.dumps(made))
        print(name, made, flush=True)
    return json.loads(path.read_text())


def correct(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return accuracy(model, x, y).value


def shrink(model: nn.Module, form: Any, share: float | None, fit_: str, x: Tensor) -> tuple:
    """Return a small copy of a network and what was done: convolutions by a form and a budget."""
    small = copy.deepcopy(model)
    names = [n for n, m in small.named_modules() if type(m) is nn.Conv2d]
    aim = None if share is None else budget(multiply_adds=share, shape=SHAPE)
    how = by_weights() if fit_ == "weights" else by_responses(x)
    forms = form if isinstance(form, dict) else dict.fromkeys(names[1:], form)
    return small, factorise(small, forms, fit=how, ranks=aim)


def row(model: nn.Module, form: Any, share: float | None, fit_: str, x: Tensor, test: tuple) -> Any:
    small, done = shrink(model, form, share, fit_, x)
    return {
        "multiply_adds": cost(small, SHAPE).multiply_adds / cost(model, SHAPE).multiply_adds,
        "accuracy": correct(small, *test),
        "ranks": {n: list(r) for n, (_, r) in done.layers.items()},
    }


def cp_ranks(model: nn.Module, share: float) -> dict[str, Any]:
    """Return CP forms that keep a share of each layer's weights: CP has no spectrum to choose by."""
    found = {}
    for name, m in list(model.named_modules()):
        if type(m) is nn.Conv2d and m.in_channels > 3:
            per = m.in_channels + m.out_channels + sum(m.kernel_size)
            found[name] = cp(max(1, int(share * m.weight.numel() / per)))
    return found


def on_network(tag: str, model: nn.Module, x: Tensor, test: tuple, budgets: tuple) -> dict:
    """Return the rows of one network: form × budget × fit."""
    rows: dict[str, Any] = {
        "dense": kept(f"{tag} dense", lambda: {"accuracy": correct(model, *test)})
    }
    for share in budgets:
        for form in (channel(), spatial(), tucker2()):
            for fit_ in FITS:
                name = f"{form.name} {share} {fit_}"
                rows[name] = kept(
                    f"{tag} {name}", lambda f=form, s=share, g=fit_: row(model, f, s, g, x, test)
                )
            # what of it is the choice of ranks, and what the fit: weights again, with those ranks
            same = {
                n: type(form)(*r)
                for n, r in rows[f"{form.name} {share} responses"]["ranks"].items()
            }
            name = f"{form.name} {share} weights at the responses' ranks"
            rows[name] = kept(
                f"{tag} {name}", lambda f=same: row(model, f, None, "weights", x, test)
            )
    for fit_ in FITS:
        for name, forms in (("cp 0.4", cp_ranks(model, 0.4)), ("separable 3", separable(3))):
            rows[f"{name} {fit_}"] = kept(
                f"{tag} {name} {fit_}", lambda f=forms, g=fit_: row(model, f, None, g, x, test)
            )
    return rows


def speed(model: nn.Module, x: Tensor, batch: int) -> dict[str, Any]:
    """Return times of the forms at 0.4 of the multiply-adds, alternating with the dense network."""
    models = {"dense": model}
    for form in (channel(), spatial(), tucker2()):
        models[form.name] = shrink(model, form, 0.4, "weights", x)[0]
    return {n: found.json() for n, found in latency(models, x[:batch], rounds=20).items()}


def lenet(dataset: Dataset) -> dict[str, Any]:
    """Return LeNet-300-100 at a quarter of its weights, before and after two epochs, three seeds."""
    model = mnist_lenet(dataset)
    x, y = dataset.train.x, dataset.train.y
    test = (dataset.test.x, dataset.test.y)
    dense = correct(model, *test)
    whole = sum(p.numel() for p in model.parameters())
    found: dict[str, Any] = {"dense": dense, "parameters": whole, "runs": []}
    for fit_, how in (("weights", by_weights()), ("responses", by_responses(x[:5000]))):
        for seed in range(3):
            small = copy.deepcopy(model)
            done = factorise(small, {"fc*": svd()}, fit=how, ranks=budget(parameters=0.24))
            before = correct(small, *test) if seed == 0 else None
            batches = Batches(x, y, 128, seed)
            fit(
                small, cross_entropy(), batches, epochs=2, optimizer=adam(5e-4),
                schedule=one_cycle(), seed=seed,
            )  # fmt: skip
            count = sum(p.numel() for p in small.parameters())
            run = {"fit": fit_, "seed": seed, "parameters": count, "share": count / whole}
            run |= {"before": before, "accuracy": correct(small, *test)}
            run["points_lost"] = 100 * (dense - run["accuracy"])
            run["ranks"] = {n: list(r) for n, (_, r) in done.layers.items()}
            found["runs"].append(run)
    return found


def resnet(dataset: Dataset) -> nn.Module:
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data"))
    return nets.resolve(
        "resnet-20", root / "models" / "resnet20_cifar10.safetensors", dataset=dataset,
        mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225],
    )  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    figures: dict[str, Any] = {}
    dataset = data.load("cifar10")
    x = dataset.train.x[:IMAGES]
    test = (dataset.test.x[:TESTED], dataset.test.y[:TESTED])
    vgg = cifar_vgg(dataset)[0]
    images, held = normalised(x), (normalised(test[0]), test[1])
    figures["vgg"] = on_network("vgg", vgg, images, held, BUDGETS)
    figures["vgg milliseconds"] = {
        f"batch {b}": kept(f"speed {b}", lambda b=b: speed(vgg, images, b)) for b in (1, 64)
    }
    figures["resnet-20"] = on_network("resnet", resnet(dataset), x, test, (0.6,))
    figures["lenet-300-100"] = kept("lenet", lambda: lenet(data.load("mnist")))
    figures["responses beat weights"] = beaten(figures)
    record.write("lowrank", SEED, figures)


def beaten(figures: dict[str, Any]) -> dict[str, str]:
    """Return in how many pairs of rows the responses are the more accurate."""
    found = {}
    for net in ("vgg", "resnet-20"):
        rows = figures[net]
        pairs = [n.removesuffix(" weights") for n in rows if n.endswith(" weights")]
        won = [rows[f"{n} responses"]["accuracy"] > rows[f"{n} weights"]["accuracy"] for n in pairs]
        found[net] = f"{sum(won)} of {len(won)}"
    return found


if __name__ == "__main__":
    main()
