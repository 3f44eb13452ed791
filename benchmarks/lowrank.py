"""Low rank on trained networks: fitted to responses or to weights, at equal multiply-adds.

    python benchmarks/lowrank_nets.py   # the networks, once: some minutes on one idle core
    python benchmarks/lowrank.py        # 8 minutes; rows are kept and it goes on from them
    python benchmarks/lowrank.py lenet  # only one part: vgg, resnet or lenet

Convolutions: accuracy is that of the first 5,000 test images, without any training after the
factorisation; nothing is chosen by it. The data that responses are fitted to are training images,
without labels. Time is alternating. A part listed as unfinished in the result lacks rows.

LeNet-300-100 is held to a quarter of its parameters, biases included. Its two ranks lie on the line
that spends all of that, and are those with which the network's answers on the validation images are
the nearest to the dense network's; the test set is read once a row, before and after two epochs in which
the factors follow the dense network's answers.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import record
from lowrank_nets import OUT, cifar_vgg, mnist_lenet, normalised
from walnut import data, nets
from walnut.data import Dataset
from walnut.evaluate import accuracy, cost, latency, predict
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

SEED, SEEDS, IMAGES, TESTED = 0, 3, 1000, 5000
BUDGETS = (0.5, 0.3)
SHAPE = (3, 32, 32)
FITS = ("weights", "responses")
TEMPERATURE = 2.0
SECOND = (9, 12, 16, 20, 26, 34, 44)  # ranks tried for LeNet-300-100's second layer


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


def divergence(small: nn.Module, model: nn.Module, x: Tensor) -> float:
    """Return the mean of KL(dense network ‖ small one) over images."""
    told, said = (F.log_softmax(predict(m, x), 1) for m in (model, small))
    return float(F.kl_div(said, told, log_target=True, reduction="batchmean"))


def quarter(model: nn.Module, fit_: str, x: Tensor, watched: Tensor) -> tuple[nn.Module, dict]:
    """Return LeNet-300-100 at a quarter of its parameters, its ranks chosen by its own answers."""
    whole = sum(p.numel() for p in model.parameters())
    first, second = model.get_submodule("fc1").weight, model.get_submodule("fc2").weight
    rest = whole - first.numel() - second.numel()
    how = by_weights() if fit_ == "weights" else by_responses(x)
    found = []
    for rank in SECOND:
        left = whole // 4 - rest - rank * sum(second.shape)
        small = copy.deepcopy(model)
        ranks = {"fc1": left // sum(first.shape), "fc2": rank}
        factorise(small, {name: svd(r) for name, r in ranks.items()}, fit=how)
        found.append((divergence(small, model, watched), ranks, small))
    _, ranks, small = min(found, key=lambda f: f[0])
    tried = [{"ranks": r, "divergence": round(d, 6)} for d, r, _ in found]
    return small, {"ranks": ranks, "tried": tried}


def followed(small: nn.Module, model: nn.Module, dataset: Dataset, seed: int) -> nn.Module:
    """Train the factors, in place, for two epochs towards the dense network's answers."""

    def distance(small: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            told = F.log_softmax(model(x) / TEMPERATURE, 1)
        said = F.log_softmax(small(x) / TEMPERATURE, 1)
        return TEMPERATURE**2 * F.kl_div(said, told, log_target=True, reduction="none").sum(1)

    batches = Batches(dataset.train.x, dataset.train.y, 128, seed)
    fit(small, distance, batches, epochs=2, optimizer=adam(5e-4), schedule=one_cycle(), seed=seed)
    return small.eval()


def lenet(dataset: Dataset) -> dict[str, Any]:
    """Return LeNet-300-100 at a quarter of its parameters, before and after two epochs."""
    model = mnist_lenet(dataset).eval()
    test = (dataset.test.x, dataset.test.y)
    dense, whole = correct(model, *test), sum(p.numel() for p in model.parameters())
    found: dict[str, Any] = {"dense": dense, "parameters": whole, "runs": []}
    for fit_ in FITS:
        for seed in range(SEEDS):
            order = torch.randperm(
                len(dataset.train), generator=torch.Generator().manual_seed(seed)
            )
            x = dataset.train.x[order[:10000]]
            small, how = quarter(model, fit_, x, dataset.validation.x)
            count = sum(p.numel() for p in small.parameters())
            run = {"fit": fit_, "seed": seed, "parameters": count, "share": count / whole} | how
            run["untrained"] = correct(small, *test)
            run["followed"] = correct(followed(small, model, dataset, seed), *test)
            for which in ("untrained", "followed"):
                run[f"points lost, {which}"] = round(100 * (dense - run[which]), 2)
            print(run, flush=True)
            found["runs"].append(run)
    return found


def resnet(dataset: Dataset) -> nn.Module:
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data"))
    return nets.resolve(
        "resnet-20", root / "models" / "resnet20_cifar10.safetensors", dataset=dataset,
        mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225],
    )  # fmt: skip


def on_vgg(dataset: Dataset) -> dict[str, Any]:
    vgg, x, test = cifar_vgg(dataset)[0], dataset.train.x[:IMAGES], dataset.test.first(TESTED)
    images = normalised(x)
    return {
        "vgg": on_network("vgg", vgg, images, (normalised(test.x), test.y), BUDGETS),
        "vgg milliseconds": {
            f"batch {b}": kept(f"speed {b}", lambda b=b: speed(vgg, images, b)) for b in (1, 64)
        },
    }


def on_resnet(dataset: Dataset) -> dict[str, Any]:
    x, test = dataset.train.x[: IMAGES // 2], dataset.test.first(TESTED)
    return {"resnet-20": on_network("resnet", resnet(dataset), x, (test.x, test.y), (0.6,))}


def on_lenet(_: Dataset) -> dict[str, Any]:
    return {"lenet-300-100": kept("lenet", lambda: lenet(data.load("mnist")))}


PARTS = {"vgg": on_vgg, "resnet": on_resnet, "lenet": on_lenet}
HOLDS = {"vgg": ("vgg", "vgg milliseconds"), "resnet": ("resnet-20",), "lenet": ("lenet-300-100",)}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    cifar = data.load("cifar10")
    path = record.RESULTS / "lowrank.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    figures = {name: before[name] for of in HOLDS.values() for name in of if name in before}
    unfinished = set(before.get("unfinished", PARTS))
    for part in sys.argv[1:] or PARTS:
        figures |= PARTS[part](cifar)
        unfinished.discard(part)
        figures["responses beat weights"] = beaten(figures)
        record.write("lowrank", SEED, {"unfinished": sorted(unfinished), **figures})


def beaten(figures: dict[str, Any]) -> dict[str, str]:
    """Return in how many pairs of rows, of those that are there, the responses are the more accurate."""
    found = {}
    for net in ("vgg", "resnet-20"):
        rows = figures.get(net, {})
        names = [n.removesuffix(" weights") for n in rows if n.endswith(" weights")]
        pairs = [
            (rows[f"{n} responses"], rows[f"{n} weights"])
            for n in names
            if f"{n} responses" in rows
        ]
        won = sum(a["accuracy"] > b["accuracy"] for a, b in pairs)
        found[net] = f"{won} of {len(pairs)}"
    return found


if __name__ == "__main__":
    main()
