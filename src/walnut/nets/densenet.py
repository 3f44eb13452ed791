"""DenseNet (Huang et al. 2017) for 32x32 images: every layer sees all before it, concatenated."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import he_init
from .normalize import Normalize, Shape, Statistics, image_sides


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3x3 convolution to ``growth`` channels, laid after the input's."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, inputs + growth, H, W)."""
        return torch.cat([x, self.conv1(F.relu(self.norm1(x)))], 1)


class Transition(nn.Module):
    """Batch norm, ReLU, 1x1 convolution, 2x2 average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, channels, H/2, W/2)."""
        return self.pool(self.conv(F.relu(self.norm(x))))


class DenseNet(nn.Module):
    """3 dense blocks of ``blocks`` layers that add ``width`` channels each.

    With ``blocks=12, width=12`` it is DenseNet-40 (k = 12): 1,019,722 parameters.
    """

    def __init__(
        self,
        *,
        shape: Shape = (3, 32, 32),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 12,
        blocks: int = 12,
    ) -> None:
        super().__init__()
        inputs, *_ = image_sides(shape, "densenet-40", smallest=4)
        self.normalize = Normalize(shape, mean, std)
        channels = 16
        parts = OrderedDict[str, nn.Module](
            conv0=nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        )
        for i in range(3):
            layers = [DenseLayer(channels + j * width, width) for j in range(blocks)]
            parts[f"denseblock{i + 1}"] = nn.Sequential(*layers)
            channels += blocks * width
            if i < 2:
                parts[f"transition{i + 1}"] = Transition(channels)
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        return self.classifier(F.relu(self.features(self.normalize(x))).mean((2, 3)))


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show."""
    head = "features.denseblock1."
    layers = [n for n in shapes if n.startswith(head) and n.endswith("conv1.weight")]
    return {
        "channels": shapes["features.conv0.weight"][1],
        "classes": shapes["classifier.weight"][0],
        "width": shapes[f"{head}0.conv1.weight"][0],
        "blocks": len(layers),
    }
