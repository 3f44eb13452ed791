"""The networks of classics.py: small, trained in seconds, kept under runs/bench-classics/nets."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from walnut import data, nets
from walnut.attacks import fgsm, pgd
from walnut.core.objectives import cross_entropy
from walnut.core.types import Attack
from walnut.data import Dataset
from walnut.nets.rbf import centred
from walnut.training import Batches, constant, fit, optimizers

FOLDER = Path("runs/bench-classics")
SEED = 0


@functools.cache
def loaded(name: str) -> Dataset:
    """Return a data set, read once."""
    return data.load(name)


@dataclass(frozen=True)
class decayed:
    """J + Σ_l λ_l ‖W_l‖² / k_l, k_l being the units of layer l (Szegedy et al. 2014, §4.2)."""

    weights: tuple[float, ...]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return one value per example."""
        layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        terms = zip(self.weights, layers, strict=True)
        penalty = sum(w * m.weight.square().sum() / m.out_features for w, m in terms)
        return cross_entropy()(model, x, y) + penalty


@dataclass(frozen=True)
class mixed:
    """share · J(x, y) + (1 − share) · J(x̂, y), x̂ from an attack (Goodfellow et al. 2015, §6)."""

    attack: Attack
    share: float

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return one value per example."""
        model.eval()
        found = self.attack(model, x, y).x
        model.train()
        hard = cross_entropy()(model, found, y)
        if self.share == 0:
            return hard
        return self.share * cross_entropy()(model, x, y) + (1 - self.share) * hard


class Maxout(nn.Module):
    """Two layers of max over ``pieces`` linear maps, dropout before each, then softmax.

    Goodfellow et al. 2013 ("Maxout networks").
    """

    def __init__(self, units: int = 120, pieces: int = 4, features: int = 784) -> None:
        super().__init__()
        self.pieces = pieces
        self.first = nn.Linear(features, units * pieces)
        self.second = nn.Linear(units, units * pieces)
        self.last = nn.Linear(units, 10)
        self.drops = nn.ModuleList(nn.Dropout(p) for p in (0.2, 0.5, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, 10) of x (b, ...)."""
        x = x.flatten(1)
        for drop, layer in zip(self.drops, (self.first, self.second), strict=False):
            x = layer(drop(x)).unflatten(1, (-1, self.pieces)).amax(2)
        return self.last(self.drops[2](x))


def perceptron(*sizes: int, between: Callable[[], nn.Module] = nn.Sigmoid) -> nn.Module:
    """Return a fully connected network: ``perceptron(784, 100, 100, 10)`` is FC100-100-10."""
    parts: list[nn.Module] = [nn.Flatten()]
    for at, (low, high) in enumerate(itertools.pairwise(sizes)):
        parts += [between()] if at else []
        parts += [nn.Linear(low, high)]
    return nn.Sequential(*parts)


def trained(
    name: str, build: Callable[[], nn.Module], x: Tensor, y: Tensor, *, objective: Any, epochs: int,
    lr: float = 2e-3, before: tuple[Any, ...] = (), seed: int = SEED,
) -> nn.Module:  # fmt: skip
    """Return the network ``name``, trained now unless it is kept; an epoch of each of ``before`` first."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = build()
    folder = FOLDER / "nets"
    folder.mkdir(parents=True, exist_ok=True)
    stages = [(f"before-{at}", 1, goal) for at, goal in enumerate(before)]
    for part, count, goal in (*stages, ("last", epochs, objective)):
        fit(
            model, goal, Batches(x, y, 100, seed=seed), epochs=count, seed=seed,
            optimizer=optimizers.adam(lr), checkpoint=folder / f"{name}-{part}-{count}.checkpoint",
            schedule=None if part == "last" else constant(),
        )  # fmt: skip
    return model.eval()


def mnist_part(part: str = "all") -> tuple[Tensor, Tensor]:
    """Return training examples of MNIST: all of them, or one of two disjoint halves."""
    split = loaded("mnist").train
    half = len(split) // 2
    rows = {"all": slice(None), "first half": slice(half), "second half": slice(half, None)}[part]
    return split.x[rows], split.y[rows]


@functools.cache
def fully(name: str, part: str = "all", seed: int = SEED) -> nn.Module:
    """Return one of Szegedy's: ``FC10(1)`` is softmax with that weight decay, ``FC100-100-10`` sigmoid."""
    x, y = mnist_part(part)
    kept = f"{name}-{part}-{seed}".replace(" ", "-")
    if name.startswith("FC10("):
        goal = decayed((float(name[5:-1]),))
        return trained(kept, lambda: perceptron(784, 10), x, y, objective=goal, epochs=4, seed=seed)
    sizes = [int(size) for size in name.removeprefix("FC").split("-")]
    goal = decayed((1e-5, 1e-5, 1e-6))
    return trained(kept, lambda: perceptron(784, *sizes), x, y, objective=goal, epochs=6, seed=seed)


@functools.cache
def relu_net(*sizes: int, seed: int = SEED) -> nn.Module:
    """Return a fully connected network with ReLU on MNIST."""
    x, y = mnist_part()
    name = f"relu-{'-'.join(map(str, sizes))}-{seed}"
    make = functools.partial(perceptron, 784, *sizes, 10, between=nn.ReLU)
    return trained(name, make, x, y, objective=cross_entropy(), epochs=2, seed=seed)


@functools.cache
def registered(net: str, dataset: str, seed: int = SEED, epochs: int = 3) -> nn.Module:
    """Return a registered network trained on 20,000 examples."""
    found = loaded(dataset)
    x, y = found.train.x[:20_000], found.train.y[:20_000]
    return trained(
        f"{net}-{dataset}-{seed}", lambda: nets.build(net, shape=found.shape), x, y,
        objective=cross_entropy(), epochs=epochs, seed=seed,
    )  # fmt: skip


@functools.cache
def maxout(share: float | None = None) -> nn.Module:
    """Return the maxout network; with ``share``, trained on α J(x) + (1 − α) J(FGSM at .25)."""
    x, y = mnist_part()
    goal: Any = cross_entropy() if share is None else mixed(fgsm(0.25, batch_size=1024), share)
    return trained(f"maxout-{share}", Maxout, x, y, objective=goal, epochs=6, lr=1e-3)


@functools.cache
def rbf() -> nn.Module:
    """Return the shallow network of Gaussian units on MNIST."""
    x, y = mnist_part()
    x, y = x[:20_000], y[:20_000]
    return trained(
        "rbf", lambda: centred(x, y, classes=10, examples=5000), x, y,
        objective=cross_entropy(), epochs=4,
    )  # fmt: skip


def pgd_step(eps: float) -> Any:
    """Return J at the end of seven steps of PGD (Madry et al. 2018, Eq. 2.1)."""
    attack = pgd(
        eps, steps=7, step_size=eps / 3, early_stop=False, keep_best=False, batch_size=1024
    )
    return mixed(attack, 0.0)


@functools.cache
def defended(dataset: str, attack: str) -> nn.Module:
    """Return the small network trained at eps .3 against ``fgsm`` or ``pgd``, after an easier start."""
    found = loaded(dataset)
    plain, count = cross_entropy(), {"fgsm": 20_000, "pgd": 10_000}[attack]
    against = {
        "fgsm": ((plain,), mixed(fgsm(0.3, batch_size=1024), 0.0)),
        "pgd": ((plain, plain, pgd_step(0.1), pgd_step(0.2)), pgd_step(0.3)),
    }
    before, goal = against[attack]
    return trained(
        f"{attack}-{dataset}-{count}", lambda: nets.build("small-cnn", shape=found.shape),
        found.train.x[:count], found.train.y[:count], objective=goal, epochs=5, before=before, lr=1e-3,
    )  # fmt: skip


NORMALISED: dict[str, dict[str, Any]] = {
    "resnet20_cifar10": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "mnist_cnn_a_adv": {},
    "mnist_cnn_provable_eps0.1": {},
}


@functools.cache
def pretrained(name: str, dataset: str) -> nn.Module:
    """Return one of the networks of the data folder."""
    path = Path(os.environ["WALNUT_DATA"]) / "models" / f"{name}.safetensors"
    net = "resnet-20" if name.startswith("resnet") else "small-cnn"
    return nets.resolve(net, path, dataset=loaded(dataset), **NORMALISED[name])


def right(model: nn.Module, x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first ``count`` examples that a network gets right."""
    from walnut.evaluate import correct

    some = min(len(x), math.ceil(2.5 * count))
    rows = correct(model, x[:some], y[:some]).nonzero()[:count, 0]
    return x[rows], y[rows]
