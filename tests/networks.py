"""Small networks made on the spot, with known answers or none."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def small_net(classes: int = 5, channels: int = 1, size: int = 8, seed: int = 0) -> nn.Module:
    """Return a random convolutional network with batch norm and dropout, in eval mode."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(6 * size * size, 16),
        nn.ReLU(),
        nn.Linear(16, classes),
    )
    with torch.no_grad():
        net[1].running_mean.normal_(0, 0.1)
        net[1].running_var.uniform_(0.5, 1.5)
    return net.eval()


def images(n: int = 12, channels: int = 1, size: int = 8, seed: int = 0) -> Tensor:
    """Return random images in [0, 1]."""
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def labelled(net: nn.Module, n: int = 12, **shape: int) -> tuple[Tensor, Tensor]:
    """Return images and the labels the network gives them."""
    x = images(n, **shape)
    with torch.no_grad():
        return x, net(x).argmax(1)


def linear_net(d: int = 6, classes: int = 3, seed: int = 1) -> nn.Module:
    """Return a linear network in float64."""
    torch.manual_seed(seed)
    return nn.Linear(d, classes).double().eval()
