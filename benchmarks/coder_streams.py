"""The index streams that coders are compared on: pruned and shared weights of three networks.

LeNet-300-100 and LeNet-5 are trained on MNIST, pruned in rounds with retraining (LAMP densities)
and, at each density of interest, clustered (exact k-means a layer). The pretrained ResNet-20 is
pruned by magnitude and clustered to 4 bits without retraining: what a coder sees is the same.
Kept under runs/bench-coder, so that only the first call trains (about 5 minutes on one core).
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from walnut import data, nets
from walnut.core.objectives import cross_entropy
from walnut.evaluate import accuracy
from walnut.training import Batches, adam, fit, one_cycle, sgd
from walnut.weights import bake, matrices, prune
from walnut.weights.kmeans import assign, kmeans
from walnut.weights.represent import weights

SEED, OUT = 0, Path("runs/bench-coder")
LEVELS = {0.08: 15, 0.04: 7, 0.025: 7, 0.015: 3}
"""Distinct non-zero values a layer, by density: those of the research note."""
DENSITIES = (0.4, 0.2, 0.12, 0.08, 0.055, 0.04, 0.03, 0.025, 0.019, 0.015)


def shared(dense: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Return the weights with their non-zeros replaced by the nearest of ``levels`` centroids."""
    out = {}
    for name, w in dense.items():
        live = w != 0
        book = kmeans(w[live], levels).centroids
        out[name] = w.clone()
        out[name][live] = book[assign(w[live], book)]
    return out


def plain(model: nn.Module) -> dict[str, Tensor]:
    """Return the dense weights of two axes or more."""
    baked = bake(copy.deepcopy(model))
    return {name: weights(baked)[name].detach().clone() for name in matrices(baked)}


def lenet(net: str) -> dict[float, dict[str, Tensor]]:
    """Train, prune in rounds, and return the shared weights at each density of LEVELS."""
    dataset = data.load("mnist")
    torch.manual_seed(SEED)
    model = nets.build(net)
    held, found = dataset.validation, {}

    def train(epochs: int, optimizer: object, seed: int) -> None:
        fit(
            model,
            cross_entropy(),
            Batches(dataset.train.x, dataset.train.y, 128, seed),
            epochs=epochs,
            optimizer=optimizer,
            schedule=one_cycle(),
            seed=seed,
        )

    train(4, adam(2e-3), SEED)
    for i, density in enumerate(DENSITIES):
        prune(model, density)
        train(2, sgd(0.05, weight_decay=1e-4), SEED + i + 1)
        if density in LEVELS:
            found[density] = shared(plain(model), LEVELS[density])
            print(net, density, accuracy(model, held.x, held.y).value, flush=True)
    return found


def resnet20() -> dict[float, dict[str, Tensor]]:
    """Return the pretrained ResNet-20 clustered to 16 values a layer, at three densities."""
    root = Path(os.environ.get("WALNUT_DATA", "../shared/data"))
    model = nets.resolve(
        "resnet-20", root / "models" / "resnet20_cifar10.safetensors", shape=[3, 32, 32], classes=10
    )
    found = {}
    for density in (1.0, 0.4, 0.15):
        pruned = prune(copy.deepcopy(model), density) if density < 1 else model
        found[density] = shared(plain(pruned), 16)
    return found


def streams() -> dict[str, dict[float, dict[str, Tensor]]]:
    """Return ``{network: {density: {name: weight}}}``, made now or kept from an earlier call."""
    OUT.mkdir(parents=True, exist_ok=True)
    out = {}
    for name in ("lenet-300-100", "lenet-5", "resnet-20"):
        path = OUT / f"{name}.pt"
        if not path.exists():
            made = resnet20() if name == "resnet-20" else lenet(name)
            torch.save(made, path)
        out[name] = torch.load(path, weights_only=True)
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    streams()
