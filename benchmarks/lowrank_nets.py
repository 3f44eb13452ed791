"""The trained networks that low rank is measured on, made once and kept under runs/bench-lowrank.

python benchmarks/lowrank_nets.py      # 8 minutes on one idle core of an AVX-512 machine
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from walnut import data
from walnut.data import Dataset
from walnut.evaluate import accuracy
from walnut.recipes.train import train

OUT = Path("runs/bench-lowrank")
EPOCHS, BATCH, RATE, WIDTHS = 8, 128, 0.1, (16, 16, 32, 32, 64, 64, 128, 128)


def vgg(widths: tuple[int, ...] = WIDTHS) -> nn.Sequential:
    """Return a VGG-like network for 32x32 images: pairs of 3x3 convolutions, batch norm, maxima."""
    layers: list[nn.Module] = []
    inputs = 3
    for k, width in enumerate(widths):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if k % 2 else []
        inputs = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * inputs, 10))


def folded(model: nn.Sequential) -> nn.Sequential:
    """Return the network with its batch norms in its convolutions: as it is used."""
    layers: list[nn.Module] = []
    for layer in model.eval():
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = torch.nn.utils.fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


def normalised(x: Tensor) -> Tensor:
    """Return pixels in [0, 1] as the VGG takes them."""
    return (x - 0.45) / 0.25


def augmented(x: Tensor, draw: torch.Generator) -> Tensor:
    """Return images moved by up to 4 pixels, half of them mirrored; one shift a batch of 16."""
    parts = []
    for part in x.split(16):
        down, right = torch.randint(0, 9, (2,), generator=draw).tolist()
        moved = F.pad(part, (4, 4, 4, 4))[:, :, down : down + 32, right : right + 32]
        mirror = torch.rand(len(part), generator=draw) < 0.5
        parts.append(torch.where(mirror[:, None, None, None], moved.flip(3), moved))
    return torch.cat(parts)


def cifar_vgg(dataset: Dataset, epochs: int = EPOCHS) -> tuple[nn.Sequential, dict[str, float]]:
    """Return the VGG-like network, batch norms folded, trained in bfloat16 where it is not on disk."""
    path, model = OUT / "vgg.safetensors", vgg()
    if path.exists():
        model.load_state_dict(load_file(path))
        return folded(model), {}
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    model = vgg().to(memory_format=torch.channels_last).train()
    x, y = dataset.train.x, dataset.train.y
    steps = epochs * (len(x) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), RATE, 0.9, weight_decay=5e-4, nesterov=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.25)
    began = time.perf_counter()
    for epoch in range(epochs):
        for rows in torch.randperm(len(x), generator=draw).split(BATCH)[: steps // epochs]:
            images = normalised(augmented(x[rows], draw)).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(images).float(), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        print(epoch, float(loss), round(time.perf_counter() - began, 1), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return folded(model), {"seconds of training": round(time.perf_counter() - began, 1)}


def mnist_lenet(dataset: Dataset) -> nn.Module:
    """Return LeNet-300-100 trained as ``walnut train`` does it, seed 0."""
    return train("lenet-300-100", dataset, seed=0, out=OUT / "lenet-300-100").model


if __name__ == "__main__":
    torch.set_num_threads(1)
    cifar = data.load("cifar10")
    trained, told = cifar_vgg(cifar)
    held = cifar.validation
    print(told, accuracy(nn.Sequential(trained), normalised(held.x), held.y).value)
    mnist_lenet(data.load("mnist"))
