"""LeNet-300-100 and LeNet-5 (LeCun et al. 1998), as Deep Compression uses them (Han et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .normalize import Normalize, Shape, Statistics, image_sides


class LeNet300(nn.Module):
    """LeNet-300-100: two hidden layers of 300 and 100 units; 266,610 parameters at 1x28x28.

    Where we differ: ReLU for the hyperbolic tangent of 1998, as in Han et al. 2016.
    """

    def __init__(
        self,
        *,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(shape, mean, std)
        self.fc1 = nn.Linear(math.prod(shape), 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, *shape)."""
        hidden = F.relu(self.fc1(self.normalize(x).flatten(1)))
        return self.fc3(F.relu(self.fc2(hidden)))


class LeNet5(nn.Module):
    """LeNet-5 of Caffe: 20 and 50 convolutions of 5x5, 500 units; 431,080 parameters at 1x28x28.

    As in Caffe there is no activation between a convolution and its 2x2 maximum.
    Images must be at least 16x16.
    """

    def __init__(
        self,
        *,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_sides(shape, "lenet-5", smallest=16)
        left = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.normalize = Normalize(shape, mean, std)
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * math.prod(left), 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        x = F.max_pool2d(self.conv1(self.normalize(x)), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def infer_300(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a LeNet-300-100 state dict show."""
    return {"classes": shapes["fc3.weight"][0], "features": shapes["fc1.weight"][1]}


def infer_5(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a LeNet-5 state dict show."""
    return {"classes": shapes["fc2.weight"][0], "channels": shapes["conv1.weight"][1]}
