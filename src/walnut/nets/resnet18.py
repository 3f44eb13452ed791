"""ResNet-18 (He et al. 2016, table 1): the ImageNet shape, and the same at smaller images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv_bn, he_init, strides
from .normalize import Normalize, Shape, Statistics, image_sides


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a 1x1 convolution as shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2, self.bn2 = conv_bn(outputs, outputs, 3)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(f(x) + shortcut(x))."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """4 stages of 2 blocks with 1, 2, 4 and 8 times ``width`` channels: 11,689,512 parameters.

    The image is halved five times at 224x224 (a 7x7 stem and a 3x3 maximum among them); at 32x32 the
    stem is 3x3 and nothing is halved before the second stage. State-dict keys are torchvision's.
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
        channels, *_ = image_sides(shape, "resnet-18", smallest=4)
        first, second, *rest = strides(shape, 5)
        self.normalize = Normalize(shape, mean, std)
        self.conv1, self.bn1 = conv_bn(channels, width, 7 if first == 2 else 3, first)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if second == 2 else nn.Identity()
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, rest[0])
        self.layer3 = _stage(2 * width, 4 * width, rest[1])
        self.layer4 = _stage(4 * width, 8 * width, rest[2])
        self.fc = nn.Linear(8 * width, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(self.normalize(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show; a 7x7 stem is that for 224x224."""
    width, channels, side, _ = shapes["conv1.weight"]
    seen: dict[str, Any] = {"classes": shapes["fc.weight"][0], "width": width}
    return seen | ({"shape": (channels, 224, 224)} if side == 7 else {"channels": channels})
