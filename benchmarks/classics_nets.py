"""The networks of classics.py: small, trained in seconds, kept under runs/bench-classics/nets."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classics_models import Autoencoder, GaussianUnits, Maxout, bernoulli, perceptron, sparse
from walnut import data, nets
from walnut.attacks import fgsm
from walnut.core.files import write_json
from walnut.core.objectives import cross_entropy
from walnut.core.types import Attack
from walnut.data import Dataset
from walnut.evaluate import correct
from walnut.training import Batches, constant, cosine, fit, optimizers
from walnut.training.augment import flip

FOLDER = Path("runs/bench-classics")
SEED = 0
SPENT = {"trainings": 0.0}
"""Processor seconds of trainings in this process, which an experiment's own time leaves out."""


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
        layers = [
            m
            for m in model.modules()
            if isinstance(m, nn.Linear) and all(p.requires_grad for p in m.parameters())
        ]
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


@dataclass(frozen=True)
class Course:
    """How a network is trained: an epoch of each of ``before`` at one rate, then ``epochs`` of the goal."""

    goal: Any
    epochs: int
    lr: float = 2e-3
    batch_size: int = 128
    before: tuple[Any, ...] = ()
    augment: Any = None
    seed: int = SEED


def trained(name: str, model: nn.Module, x: Tensor, y: Tensor, course: Course) -> nn.Module:
    """Return the network after a course, trained now unless it is kept; its time is kept beside it.

    Convolutions run on channels last, which halves their time here.
    """
    model = model.to(memory_format=torch.channels_last)
    folder, began = FOLDER / "nets", time.process_time()
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{course!r} {tuple(x.shape)} {torch.__version__}".encode()).hexdigest()
    kept = f"{name}-{digest[:8]}".replace(" ", "-")
    known = (folder / f"{kept}.json").exists()
    stages = [(f"before-{at}", 1, goal) for at, goal in enumerate(course.before)]
    for part, count, goal in (*stages, ("last", course.epochs, course.goal)):
        fit(
            model, goal, Batches(x, y, course.batch_size, seed=course.seed, augment=course.augment),
            epochs=count, seed=course.seed, optimizer=optimizers.adam(course.lr),
            checkpoint=folder / f"{kept}-{part}.checkpoint",
            schedule=cosine(warmup=0.1) if part == "last" else constant(),
        )  # fmt: skip
    spent = time.process_time() - began
    SPENT["trainings"] += spent
    if not known:
        write_json(folder / f"{kept}.json", {"name": name, "cpu seconds": round(spent, 1)})
        print(f"trained {kept}: {spent:.1f} processor seconds", flush=True)
    TRAINED[name] = kept
    return model.eval()


TRAINED: dict[str, str] = {}
"""The networks that this process has asked for, and the files they are kept in."""


def trainings() -> dict[str, float]:
    """Return the processor seconds of every training that this process has asked for."""
    told = {}
    for name, kept in TRAINED.items():
        path = FOLDER / "nets" / f"{kept}.json"
        told[name] = json.loads(path.read_text(encoding="utf-8"))["cpu seconds"]
    return told


def fresh(build: Callable[[], nn.Module], seed: int = SEED) -> nn.Module:
    """Return a network with first weights drawn by a seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()


def mnist_part(part: str = "all") -> tuple[Tensor, Tensor]:
    """Return training examples of MNIST: all of them, or one of two disjoint halves."""
    split = loaded("mnist").train
    half = len(split) // 2
    rows = {"all": slice(None), "first half": slice(half), "second half": slice(half, None)}[part]
    return split.x[rows], split.y[rows]


@functools.cache
def fully(name: str, part: str = "all", seed: int = SEED) -> nn.Module:
    """Return one of Szegedy's: ``FC10(1)`` is softmax with that weight decay, ``FC100-100-10`` sigmoid."""
    if name == "AE400-10":
        return autoencoder()
    x, y = mnist_part(part)
    if name.startswith("FC10("):
        course, sizes = Course(decayed((float(name[5:-1]),)), 8, seed=seed), [10]
    else:
        course = Course(decayed((1e-5, 1e-5, 1e-6)), 25, lr=3e-3, seed=seed)
        sizes = [int(size) for size in name.removeprefix("FC").split("-")]
    model = fresh(lambda: perceptron(784, *sizes), seed)
    return trained(f"{name} {part} {seed}", model, x, y, course)


def autoencoder() -> nn.Module:
    """Return AE400-10: the first layer learnt without labels and kept, a softmax layer on it."""
    x, y = mnist_part()
    model = trained("AE400-10 features", fresh(Autoencoder), x, y, Course(sparse(), 12))
    for layer in (model.encoder, model.decoder):
        layer.requires_grad_(False)
    return trained("AE400-10", model, x, y, Course(decayed((1e-6,)), 20, lr=1e-2))


@functools.cache
def relu_net(*sizes: int, seed: int = SEED) -> nn.Module:
    """Return a fully connected network with ReLU on MNIST."""
    x, y = mnist_part()
    name = f"ReLU {'-'.join(map(str, (*sizes, 10)))} {seed}"
    model = fresh(lambda: perceptron(784, *sizes, 10, between=nn.ReLU), seed)
    return trained(name, model, x, y, Course(cross_entropy(), 6, lr=1e-3, seed=seed))


@functools.cache
def registered(
    net: str,
    dataset: str,
    seed: int = SEED,
    epochs: int = 3,
    count: int | None = None,
    width: int = 0,
) -> nn.Module:
    """Return a registered network trained on ``count`` examples, on all of them unless given."""
    found = loaded(dataset)
    x, y = found.train.x[:count], found.train.y[:count]
    wide = {"width": width} if width else {}
    model = fresh(lambda: nets.build(net, shape=found.shape, **wide), seed)
    augment = flip() if dataset == "cifar10" else None
    course = Course(cross_entropy(), epochs, augment=augment, seed=seed)
    return trained(f"{net} {dataset} {seed}", model, x, y, course)


@functools.cache
def maxout(share: float | None = None) -> nn.Module:
    """Return the maxout network; with ``share``, trained on α J(x) + (1 − α) J(FGSM at .25)."""
    x, y = mnist_part()
    goal: Any = cross_entropy() if share is None else mixed(fgsm(0.25, batch_size=1024), share)
    name = "maxout" if share is None else "maxout on FGSM"
    return trained(name, fresh(Maxout), x, y, Course(goal, 15 if share is None else 10))


@functools.cache
def rbf() -> nn.Module:
    """Return the shallow network of one Gaussian unit a class on MNIST."""
    x, y = mnist_part()
    middle = torch.stack([x[y == label].flatten(1).mean(0) for label in range(10)])
    return trained("RBF", fresh(lambda: GaussianUnits(middle)), x, y, Course(bernoulli(), 8))


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
    found = nets.resolve(net, path, dataset=loaded(dataset), **NORMALISED[name])
    return found.to(memory_format=torch.channels_last)


def right(model: nn.Module, x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first ``count`` examples that a network gets right."""
    some = min(len(x), math.ceil(2.5 * count))
    rows = correct(model, x[:some], y[:some]).nonzero()[:count, 0]
    return x[rows], y[rows]
