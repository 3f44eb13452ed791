"""SqueezeNet 1.1 (Iandola et al. 2016): fire modules, which squeeze to few channels and expand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import he_init, strides
from .normalize import Normalize, Shape, Statistics, image_sides

_FIRES = ((1, 4), (1, 4), (2, 8), (2, 8), (3, 12), (3, 12), (4, 16), (4, 16))  # in quarter widths
_POOLED = (0, 2, 4)  # the image is halved before these


class Fire(nn.Module):
    """1x1 to ``squeezed`` channels, then 1x1 and 3x3 side by side, ``expanded`` channels each."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, 2·expanded, H, W)."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(nn.Module):
    """A stem, eight fire modules, a 1x1 convolution to the classes, averaged: 1,235,496 parameters.

    State-dict keys are torchvision's (squeezenet1_1). ``width`` is the stem's channels.
    """

    def __init__(
        self,
        *,
        shape: Shape = (3, 224, 224),
        classes: int = 1000,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        channels, *_ = image_sides(shape, "squeezenet", smallest=4)
        first, *pools = strides(shape, 4)
        self.normalize = Normalize(shape, mean, std)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, stride=first, padding=1),
            nn.ReLU(),
        ]
        inputs = width
        for i, (squeezed, expanded) in enumerate(_FIRES):
            if i in _POOLED:
                halve = pools[_POOLED.index(i)] == 2
                layers.append(nn.MaxPool2d(3, 2, padding=1) if halve else nn.Identity())
            outputs = max(1, expanded * width // 4)
            layers.append(Fire(inputs, max(1, squeezed * width // 4), outputs))
            inputs = 2 * outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(inputs, classes, 1), nn.ReLU())
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        return self.classifier(self.features(self.normalize(x))).mean((2, 3))


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show."""
    width, channels = shapes["features.0.weight"][:2]
    return {"channels": channels, "classes": shapes["classifier.1.weight"][0], "width": width}
