"""ResNet for 32x32 images (He et al. 2016, section 4.2), with shortcuts of option A or B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import PadChannels, conv_bn
from .normalize import Normalize, Shape, Statistics, image_sides


class Block(nn.Module):
    """Two 3x3 convolutions round an option-A shortcut: take every second pixel, pad with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2, self.bn2 = conv_bn(outputs, outputs, 3)
        self.shortcut = self.bridge(inputs, outputs, stride)

    def bridge(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        """Return what takes the input to the output's shape; it has no parameters."""
        extra = outputs - inputs
        if stride == 1 and not extra:
            return nn.Identity()
        return PadChannels(extra // 2, extra - extra // 2, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(f(x) + shortcut(x))."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class BlockB(Block):
    """The block with an option-B shortcut: a 1x1 convolution where the shape changes."""

    def bridge(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        """Return what takes the input to the output's shape."""
        if stride == 1 and inputs == outputs:
            return nn.Identity()
        return nn.Sequential(*conv_bn(inputs, outputs, 1, stride))


class ResNet(nn.Module):
    """3 stages of ``blocks`` blocks with 1, 2 and 4 times ``width`` channels, average, linear.

    With ``blocks=3, width=16`` it is ResNet-20: 269,722 parameters for CIFAR-10. State-dict keys
    are those of akamaster/pytorch_resnet_cifar10. ``blocks=9`` is ResNet-56.
    """

    block: type[Block] = Block

    def __init__(
        self,
        *,
        shape: Shape = (3, 32, 32),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 16,
        blocks: int = 3,
    ) -> None:
        super().__init__()
        channels, *_ = image_sides(shape, "resnet-20", smallest=4)
        self.normalize = Normalize(shape, mean, std)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(self.block, width, width, blocks, stride=1)
        self.layer2 = _stage(self.block, width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(self.block, 2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        x = F.relu(self.bn1(self.conv1(self.normalize(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class ResNetB(ResNet):
    """The same with option-B shortcuts, 1x1 convolutions where the shape changes: 272,474 parameters."""

    block = BlockB


def _stage(
    block: type[Block], inputs: int, outputs: int, blocks: int, stride: int
) -> nn.Sequential:
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show."""
    width, channels = shapes["conv1.weight"][:2]
    blocks = sum(name.startswith("layer1.") and name.endswith("conv1.weight") for name in shapes)
    return {
        "channels": channels,
        "classes": shapes["linear.weight"][0],
        "width": width,
        "blocks": blocks,
    }
