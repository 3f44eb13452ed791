"""Train a reference network by its documented recipe."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from walnut import nets
from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.core.transforms import compose
from walnut.core.types import Progress, Transform
from walnut.data import Dataset
from walnut.evaluate import accuracy
from walnut.training import (
    Batches,
    History,
    adam,
    adamw,
    cosine,
    crop,
    fit,
    flip,
    one_cycle,
    sgd,
    steps,
)
from walnut.training.optimizers import Optimizer
from walnut.training.schedules import Schedule

from .record import Json, digest, finish, header


@dataclass(frozen=True)
class TrainRecipe:
    """How a network is trained.

    Args:
        epochs: passes over the training split.
        batch_size: examples a step.
        optimizer, schedule: as in ``fit``.
        shift: share of an image's side by which it is moved at random (at least one pixel), with
            black moving in; 0 for none.
        mirror: whether colour images are mirrored at random (grey ones, mostly signs, never are).
        least_steps: a small data set gets more epochs, until there are this many steps.
    """

    epochs: int
    batch_size: int = 128
    optimizer: Optimizer = sgd(0.1, weight_decay=1e-4)
    schedule: Schedule = one_cycle()
    shift: float = 0.08
    mirror: bool = True
    least_steps: int = 1000


# MNIST test accuracy, seed 0, on two shared cores: lenet-300-100 99.1 % in one to two minutes,
# lenet-5 99.4 % in two and a half.
RECIPES = {
    "softmax": TrainRecipe(10, 64, sgd(0.05, weight_decay=1e-4), shift=0.0),
    "lenet-300-100": TrainRecipe(20, 128, sgd(0.1, weight_decay=1e-4)),
    "lenet-5": TrainRecipe(12, 128, sgd(0.05, weight_decay=5e-4)),
    "small-cnn": TrainRecipe(10, 64, sgd(0.05, weight_decay=5e-4)),
    "small-cnn-wide": TrainRecipe(10, 64, sgd(0.05, weight_decay=5e-4)),
    # He et al. 2016, section 4.2: 64,000 steps of 128, tenfold down at a half and three quarters
    "resnet-20": TrainRecipe(
        160, 128, sgd(0.1, nesterov=False, weight_decay=1e-4), steps((0.5, 0.75)), shift=0.125
    ),
    "lstm": TrainRecipe(20, 128, adam(2e-3), mirror=False),
    "vit": TrainRecipe(100, 128, adamw(1e-3, weight_decay=0.05), shift=0.125),
    "rbf": TrainRecipe(20, 64, adam(1e-2), shift=0.0),
}
# Common practice for 32x32 images; not tuned, as the three above are.
RECIPES |= {
    name: TrainRecipe(100, 128, sgd(0.1, weight_decay=5e-4), cosine(), shift=0.125)
    for name in (
        "resnet-20-b", "resnet-18", "vgg-11", "vgg-16", "densenet-40",
        "squeezenet", "mobilenet", "mobilenet-v2", "shufflenet", "shufflenet-v2",
    )
}  # fmt: skip


@dataclass(frozen=True)
class TrainResult:
    """A trained network, in eval mode, and how it got there.

    ``history`` has a row an epoch: epoch, train_loss, validation_accuracy, lr, seconds.
    """

    model: nn.Module
    path: Path
    history: list[Json]
    validation: float
    test: float
    seconds: float


def augmentation(recipe: TrainRecipe, shape: tuple[int, ...]) -> Transform | None:
    """Return what a recipe does to the images of a data set, or None for a table."""
    if len(shape) != 3:
        return None
    parts: list[Transform] = []
    if recipe.shift > 0:
        parts.append(crop(max(1, round(recipe.shift * min(shape[1:])))))
    if recipe.mirror and shape[0] == 3:
        parts.append(flip())
    return compose(tuple(parts)) if parts else None


def chosen(
    net: str,
    examples: int,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: Optimizer | None = None,
) -> TrainRecipe:
    """Return the recipe of ``net`` for a number of examples, with what was asked for instead."""
    known = RECIPES[nets.canonical(net)]
    size = known.batch_size if batch_size is None else batch_size
    if size < 1 or (epochs is not None and epochs < 1) or (lr is not None and not 0 < lr < 1e3):
        raise WalnutError("epochs, batch_size and lr must be positive numbers")
    if epochs is None:
        epochs = max(known.epochs, math.ceil(known.least_steps / math.ceil(examples / size)))
    optimizer = known.optimizer if optimizer is None else optimizer
    if lr is not None:
        optimizer = dataclasses.replace(optimizer, lr=lr)  # type: ignore[type-var]
    return dataclasses.replace(known, epochs=epochs, batch_size=size, optimizer=optimizer)


def train(
    net: str,
    dataset: Dataset,
    *,
    arguments: dict[str, Any] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: Optimizer | None = None,
    seed: int = 0,
    out: str | Path,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a registered network and write ``out``/model.safetensors, result.json, report.html.

    What is None is as in :data:`RECIPES`. The checkpoint is ``out``/checkpoint.safetensors: the
    same call goes on from it, and ends with the same weights as a run that was never interrupted.

    Args:
        net: a registered name.
        dataset: trained on ``train``, watched on ``validation``, reported on ``test``.
        arguments: the network's own; shape and classes come from the data, mean and std (the
            network's first layer) from its training split, unless they are given.
        epochs, batch_size, lr, optimizer: instead of the recipe's.
        seed: of the first weights, the order of the examples and their augmentation.
        out: the folder; it is made where it is not there.
        progress: called as ``progress(what, done, total)``.

    Raises:
        WalnutError: no such network, or one that does not fit the data; a loss that is not finite.
    """
    began, out = time.perf_counter(), Path(out)
    recipe = chosen(
        net, len(dataset.train), epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer
    )  # fmt: skip
    model = _fresh(net, dataset, arguments or {}, seed)
    augment = augmentation(recipe, dataset.shape)
    split = dataset.train
    history = fit(
        model,
        cross_entropy(),
        Batches(split.x, split.y, recipe.batch_size, seed, augment),
        epochs=recipe.epochs,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        validate=lambda m: accuracy(m, dataset.validation.x, dataset.validation.y).value,
        checkpoint=out / "checkpoint.safetensors",
        seed=seed,
        progress=progress,
    )
    path = out / "model.safetensors"
    nets.save(model, path)
    rows = _rows(history)
    test = accuracy(model, dataset.test.x, dataset.test.y)
    seconds = round(time.perf_counter() - began, 3)
    result = header("train", seed, dataset, len(dataset.test)) | {
        **_about(model, dataset, recipe, augment),
        "rows": [{"form": "dense", "parameters": _count(model), "clean": test.json()}],
        "history": rows,
        "seconds": seconds,
    }
    finish(result, None, out)
    return TrainResult(model, path, rows, rows[-1]["validation_accuracy"], test.value, seconds)


def _about(
    model: nn.Module, dataset: Dataset, recipe: TrainRecipe, augment: Transform | None
) -> Json:
    """Return what was trained, on what and how."""
    description: Any = model.description
    return {
        "network": {"name": description["net"], "parameters": _count(model)},
        "config": {
            "description": description,
            "recipe": repr(recipe),
            "augment": repr(augment),
            "data": dataset.digest(),
        },
        "model": digest(model),
    }


def _fresh(net: str, dataset: Dataset, arguments: dict[str, Any], seed: int) -> nn.Module:
    """Build the network for the data, its weights drawn by ``seed``."""
    mean, std = dataset.statistics()
    fitting = {"shape": dataset.shape, "classes": len(dataset.classes), "mean": mean, "std": std}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = nets.build(net, **{**fitting, **arguments})
    nets.check_data(model, dataset)
    return model


def _rows(history: History) -> list[Json]:
    """Return the history under the names of the result."""
    renamed = {"validation": "validation_accuracy"}
    return [{renamed.get(k, k): v for k, v in row.items()} for row in history.rows]


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
