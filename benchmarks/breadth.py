"""The verdict beside the full AutoAttack protocol on networks of many kinds, at radii around their own.

    python benchmarks/breadth.py [NAME ...]     all networks, or some of them; one not named keeps its rows

benchmarks/strength.py has convolutions without pooling, each at the radius that it was trained for. Here are
perceptrons, tables of two and three classes, pooling, normalisation of three kinds, residuals, depthwise
convolutions and attention, trained here against PGD, and each is judged at 0.6, 1 and 1.6 times its radius,
as users will. No setting of the verdict was chosen on them (six more plans were tried on four of them, and
none was taken). Ours runs with three seeds, the protocol (our own
engine's, which strength.py checks against torchattacks' stage by stage) with one.

Networks and rows stay under runs/bench-breadth. About an hour on one core.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from sklearn import datasets
from torch import Tensor, nn

import record
from defended import adversarial, train
from strength import PLAN
from walnut import data
from walnut.attacks import pgd
from walnut.core.constraints import l2, linf
from walnut.evaluate import robustness
from walnut.recipes.record import Cells, digest

SEED, EXAMPLES, SEEDS = 0, 200, 3
TIMES = (0.6, 1.0, 1.6)
FOLDER = Path("runs/bench-breadth")
Split = tuple[Tensor, Tensor, Tensor, Tensor]


class Residual(nn.Module):
    """x + f(x), with f batch norm, ReLU and convolution, twice; the first of stride 2."""

    def __init__(self, enter: int, leave: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(enter, leave, 1, 2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(enter), nn.ReLU(), nn.Conv2d(enter, leave, 3, 2, 1),
            nn.BatchNorm2d(leave), nn.ReLU(), nn.Conv2d(leave, leave, 3, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class Transformer(nn.Module):
    """A vision transformer of 2 blocks on patches of 7 × 7, its tokens averaged."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(2)
        ))  # fmt: skip
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.blocks(tokens).mean(1))


def perceptron(
    *widths: int, act: type[nn.Module], norm: type[nn.Module] | None = None
) -> nn.Module:
    """Return layers of these widths with a normalisation and an activation between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for enter, leave in itertools.pairwise(widths):
        layers += [nn.Linear(enter, leave), *([norm(leave)] if norm else []), act()]
    return nn.Sequential(*layers[: -2 if norm else -1])


def pooled() -> nn.Module:
    """Return two convolutions with max-pooling after each."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def residual() -> nn.Module:
    """Return three residual blocks, averaged over the image."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1), Residual(16, 24), Residual(24, 32), Residual(32, 48),
        nn.BatchNorm2d(48), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


def depthwise() -> nn.Module:
    """Return depthwise and pointwise convolutions in turn, group norm and SiLU."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, 2, 1), nn.GroupNorm(4, 32), nn.SiLU()]
    for enter, leave in ((32, 48), (48, 64)):
        layers += [
            nn.Conv2d(enter, enter, 3, 2, 1, groups=enter), nn.SiLU(),
            nn.Conv2d(enter, leave, 1), nn.GroupNorm(4, leave), nn.SiLU(),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def table(x: Any, y: Any) -> Split:
    """Return half of a table's rows for training and half for the test, features scaled to [0, 1]."""
    x, y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64)
    x = (x - x.amin(0)) / (x.amax(0) - x.amin(0)).clamp_min(1e-12)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(SEED))
    x, y, half = x[order], y[order], len(y) // 2
    return x[:half], y[:half], x[half:], y[half:]


def cancer() -> Split:
    return table(*datasets.load_breast_cancer(return_X_y=True))


def digits() -> Split:
    return table(*datasets.load_digits(return_X_y=True))


def made() -> Split:
    return table(*datasets.make_classification(
        4000, 15, n_informative=8, n_classes=3, class_sep=1.5, random_state=SEED
    ))  # fmt: skip


def images(name: str, count: int) -> Callable[[], Split]:
    """Return the first training images, and the test images from 1000 on."""

    def load() -> Split:
        found = data.load(name)
        return (
            found.train.x[:count],
            found.train.y[:count],
            found.test.x[1000:],
            found.test.y[1000:],
        )

    return load


@dataclass(frozen=True)
class Kind:
    """A network, what it is trained on, and against what: epochs without an attack, then with one."""

    make: Callable[[], nn.Module]
    data: Callable[[], Split]
    norm: Any
    eps: float
    plain: int
    epochs: int


KINDS = {
    "two classes, table": Kind(
        lambda: perceptron(30, 48, 48, 2, act=nn.SELU), cancer, linf, 0.08, 20, 40
    ),
    "three classes, table": Kind(
        lambda: perceptron(15, 96, 64, 3, act=nn.LeakyReLU), made, l2, 0.15, 10, 20
    ),
    "digits, layer norm": Kind(
        lambda: perceptron(64, 96, 96, 10, act=nn.ReLU, norm=nn.LayerNorm), digits, linf, 0.12, 10, 60
    ),
    "MNIST perceptron": Kind(
        lambda: perceptron(784, 200, 200, 10, act=nn.Softplus, norm=nn.BatchNorm1d),
        images("mnist", 12_000), linf, 0.1, 2, 6,
    ),
    "MNIST max-pooling": Kind(pooled, images("mnist", 10_000), linf, 0.15, 2, 4),
    "Fashion-MNIST residual": Kind(residual, images("fashion_mnist", 6_000), l2, 0.8, 2, 4),
    "Fashion-MNIST attention": Kind(Transformer, images("fashion_mnist", 12_000), linf, 0.05, 4, 6),
    "CIFAR-10 depthwise": Kind(depthwise, images("cifar10", 10_000), linf, 3 / 255, 4, 6),
}  # fmt: skip


def trained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network and its test examples; trained now if it is not there."""
    kind, path = KINDS[name], FOLDER / f"{name}.safetensors"
    torch.manual_seed(100 + list(KINDS).index(name))
    model = kind.make()
    x, y, *test = kind.data()
    if path.exists():
        load_model(model, path)
    else:
        attack = pgd(
            1.05 * kind.eps, norm=kind.norm, steps=4, step_size=0.45 * kind.eps,
            early_stop=False, keep_best=False, batch_size=1024,
        )  # fmt: skip
        train(model, x, y, adversarial(attack), kind.plain, kind.epochs, SEED)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, str(path))
    return model.eval(), test[0][:EXAMPLES], test[1][:EXAMPLES]


def judged(
    model: nn.Module, x: Tensor, y: Tensor, kind: Kind, eps: float, effort: str, seed: int
) -> dict[str, Any]:
    """Judge a network one way."""
    began = time.process_time()
    found = robustness(
        model, (x, y), kind.norm, eps, effort=effort, with_curve=False, seed=seed
    )  # fmt: skip
    return {
        "standing": found.survey.standing.tolist(), "clean": found.clean.value,
        "forward": round(found.forward, 1), "backward": round(found.backward, 1),
        "cpu seconds": round(time.process_time() - began, 2),
        "flags": [flag.name for flag in found.flags],
    }  # fmt: skip


def compare(name: str) -> list[dict[str, Any]]:
    """Judge one network at every radius by the verdict and by the protocol."""
    kind = KINDS[name]
    model, x, y = trained(name)
    same = {"examples": EXAMPLES, "network": digest(model)}
    kept, protocol = Cells(FOLDER, same | {"plan": PLAN}), Cells(FOLDER, same)
    rows = []
    for times in TIMES:
        eps = times * kind.eps

        def ask(effort: str, seed: int, eps: float = eps) -> dict[str, Any]:
            return judged(model, x, y, kind, eps, effort, seed)

        theirs = protocol(f"{name} {times} autoattack", lambda: ask("autoattack", SEED))
        ours = [
            kept(f"{name} {times} seed {seed}", lambda: ask("standard", seed))  # noqa: B023
            for seed in range(SEEDS)
        ]
        seconds = sorted(one["cpu seconds"] for one in ours)[1]
        left, other = (set(one["standing"]) for one in (ours[0], theirs))
        rows.append({
            "network": name, "plan": PLAN, "norm": "linf" if kind.norm is linf else "l2",
            "eps": round(eps, 5), "times its own": times, "examples": len(y), "clean": ours[0]["clean"],
            "standing": len(left), "with each seed": [len(one["standing"]) for one in ours],
            "protocol": len(other), "only ours fell": len(other - left),
            "only theirs fell": len(left - other),
            "forward": ours[0]["forward"], "backward": ours[0]["backward"],
            "protocol's forward": theirs["forward"], "flags": ours[0]["flags"],
            "times less cpu": round(theirs["cpu seconds"] / max(seconds, 0.01), 1),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(KINDS)
    rows = [row for row in record.earlier("breadth").get("rows", []) if row["network"] not in names]
    rows += [row for name in names for row in compare(name)]
    means = [sum(row["with each seed"]) / SEEDS for row in rows]
    record.write("breadth", SEED, {
        "examples": EXAMPLES,
        "summary": {
            "networks": len({row["network"] for row in rows}), "cells": len(rows),
            "fewer standing": sum(row["standing"] < row["protocol"] for row in rows),
            "as many": sum(row["standing"] == row["protocol"] for row in rows),
            "more standing": sum(row["standing"] > row["protocol"] for row in rows),
            "all standing": sum(row["standing"] for row in rows),
            "all standing, mean of seeds": round(sum(means), 1),
            "all standing, protocol": sum(row["protocol"] for row in rows),
            "largest excess": max(row["standing"] - row["protocol"] for row in rows),
        },
        "rows": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
