"""Networks for the robustness benchmarks: trained here, plainly or against an attack, and kept.

    python benchmarks/defended.py        train all of them (about half an hour on two cores)

Files stay under runs/bench-nets. Those named ``tune-`` chose the cascade's settings and are in no table;
the others, and the pretrained ones of the data folder, are reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from walnut import data, nets
from walnut.attacks import pgd
from walnut.core.constraints import l2, linf
from walnut.core.objectives import cross_entropy
from walnut.core.types import Attack
from walnut.data import Dataset
from walnut.evaluate import accuracy
from walnut.training import Batches, fit, optimizers

FOLDER = Path("runs/bench-nets")


@dataclass(frozen=True)
class Recipe:
    """One network: what it is, on what, against what, and the radius it is judged at."""

    net: str
    data: str
    norm: Any
    eps: float
    defended: bool
    seed: int = 0
    examples: int = 20_000
    epochs: int = 4
    plain: int = (
        0  # epochs without an attack at first: at large radii training gets stuck otherwise
    )


RECIPES = {
    "tune-fashion-linf": Recipe("small-cnn", "fashion_mnist", linf, 0.1, True, seed=1),
    "tune-fashion-l2": Recipe("small-cnn", "fashion_mnist", l2, 1.0, True, seed=2),
    "tune-fashion-plain": Recipe("small-cnn", "fashion_mnist", linf, 0.1, False, seed=3),
    "tune-mnist-linf": Recipe("small-cnn", "mnist", linf, 0.2, True, seed=4, plain=1),
    "tune-mnist-far": Recipe(
        "small-cnn", "mnist", linf, 0.3, True, seed=5, examples=40_000, epochs=10, plain=3
    ),
    "tune-mnist-wide": Recipe(
        "small-cnn-wide", "mnist", linf, 0.3, True, seed=6, examples=40_000, epochs=6, plain=2
    ),
    "tune-mnist-l2": Recipe("small-cnn", "mnist", l2, 2.0, True, seed=7, examples=12_000, epochs=3),
    "fashion-plain": Recipe("lenet-5", "fashion_mnist", linf, 0.1, False),
    "fashion-linf": Recipe("small-cnn-wide", "fashion_mnist", linf, 0.1, True),
    "mnist-l2": Recipe("small-cnn-wide", "mnist", l2, 2.0, True),
    "cifar-l2": Recipe("small-cnn-wide", "cifar10", l2, 0.25, True, epochs=8),
}


def adversarial(attack: Attack) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Return the objective J(x̂, y) with x̂ from ``attack`` (Madry et al. 2018, Eq. 2.1)."""

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        training = model.training
        model.eval()
        found = attack(model, x, y).x
        model.train(training)
        return cross_entropy()(model, found, y)

    return objective


def train(
    model: nn.Module, x: Tensor, y: Tensor, objective: Any, plain: int, epochs: int, seed: int
) -> None:
    """Train for so many epochs without an attack, then for so many on ``objective``."""
    batches = Batches(x, y, 100, seed=seed)
    for count, goal in ((plain, cross_entropy()), (epochs, objective)):
        fit(model, goal, batches, epochs=count, optimizer=optimizers.adam(2e-3), seed=seed)


def network(name: str, folder: Path = FOLDER) -> tuple[nn.Module, Dataset]:
    """Return a network of :data:`RECIPES` and its data; trained now if it is not there."""
    recipe = RECIPES[name]
    dataset = data.load(recipe.data)
    path = folder / f"{name}.safetensors"
    if path.exists():
        return nets.load(str(path)), dataset
    torch.manual_seed(recipe.seed)
    model = nets.build(recipe.net, shape=dataset.shape, classes=len(dataset.classes))
    # a tenth larger than the radius that it is judged at, which costs little and holds better
    attack = pgd(
        1.1 * recipe.eps, norm=recipe.norm, steps=5, step_size=0.4 * recipe.eps,
        early_stop=False, keep_best=False, batch_size=1024,
    )  # fmt: skip
    objective = adversarial(attack) if recipe.defended else cross_entropy()
    x, y = dataset.train.x[: recipe.examples], dataset.train.y[: recipe.examples]
    train(model, x, y, objective, recipe.plain, recipe.epochs, recipe.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    nets.save(model, path)
    return model, dataset


if __name__ == "__main__":
    for each in RECIPES:
        trained, dataset = network(each)
        x, y = dataset.test.x[:500], dataset.test.y[:500]
        recipe = RECIPES[each]
        left = pgd(recipe.eps, norm=recipe.norm, steps=20)(trained, x, y)
        print(
            each, "clean", accuracy(trained, x, y).value,
            "PGD-20", 1 - float(left.success.double().mean()), flush=True,
        )  # fmt: skip
