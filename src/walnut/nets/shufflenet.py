"""ShuffleNet, v1 (Zhang et al. 2018) and v2 (Ma et al. 2018): channels shuffled between groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Select, conv_bn, he_init, shuffle, strides
from .normalize import Normalize, Shape, Statistics, image_sides

_REPEATS = (4, 8, 4)  # blocks a stage, in both


class GroupedUnit(nn.Module):
    """v1's unit: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to or laid beside the input."""

    def __init__(self, inputs: int, outputs: int, groups: int, stride: int) -> None:
        super().__init__()
        middle = max(groups, outputs // 4 // groups * groups)
        self.beside = stride == 2 or inputs != outputs
        last = outputs - inputs if self.beside else outputs
        first = (
            1 if inputs % groups or inputs < 4 * groups else groups
        )  # not on the stem's channels
        self.conv1, self.bn1 = conv_bn(inputs, middle, 1, groups=first)
        self.shuffle = shuffle(middle, groups)
        self.conv2, self.bn2 = conv_bn(middle, middle, 3, stride, groups=middle)
        self.conv3, self.bn3 = conv_bn(middle, last, 1, groups=groups)
        self.pool = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        y = self.shuffle(F.relu(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return F.relu(torch.cat([self.pool(x), y], 1) if self.beside else x + y)


class ShuffleNet(nn.Module):
    """ShuffleNet v1 with 4 groups: stages of 1, 2 and 4 times ``width`` channels (272 in the paper).

    Where we differ: the width here is a multiple of 16·groups, so that a shuffle of every group's
    channels deals equal hands, which removing channels from groups needs.
    """

    def __init__(
        self,
        *,
        shape: Shape = (3, 224, 224),
        classes: int = 1000,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 256,
        groups: int = 4,
    ) -> None:
        super().__init__()
        channels, *_ = image_sides(shape, "shufflenet", smallest=4)
        step = 16 * groups
        width, stem = max(step, width // step * step), max(4, width // 256 * 24 or 12)
        first, second, *rest = strides(shape, 5)
        self.normalize = Normalize(shape, mean, std)
        self.conv1, self.bn1 = conv_bn(channels, stem, 3, first)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if second == 2 else nn.Identity()
        stages, inputs = [], stem
        for i, (repeats, stride) in enumerate(zip(_REPEATS, rest, strict=True)):
            outputs = width * 2**i
            units = [GroupedUnit(inputs, outputs, groups, stride)]
            units += [GroupedUnit(outputs, outputs, groups, 1) for _ in range(repeats - 1)]
            stages.append(nn.Sequential(*units))
            inputs = outputs
        self.stage2, self.stage3, self.stage4 = stages
        self.fc = nn.Linear(inputs, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(self.normalize(x)))))
        x = self.stage4(self.stage3(self.stage2(x)))
        return self.fc(x.mean((2, 3)))


class SplitUnit(nn.Module):
    """v2's unit: one half of the channels passes, the other is filtered; both are shuffled together."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, split = outputs // 2, stride == 1 and inputs == outputs
        self.left = Select(range(half)) if split else nn.Identity()
        self.right = Select(range(half, outputs)) if split else nn.Identity()
        taken = half if split else inputs
        branch1 = [*conv_bn(inputs, inputs, 3, stride, inputs), *conv_bn(inputs, half), nn.ReLU()]
        self.branch1 = nn.Sequential(*([] if split else branch1))
        self.branch2 = nn.Sequential(
            *conv_bn(taken, half), nn.ReLU(),
            *conv_bn(half, half, 3, stride, half), *conv_bn(half, half), nn.ReLU(),
        )  # fmt: skip
        self.shuffle = shuffle(outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shuffled halves."""
        both = [self.branch1(self.left(x)), self.branch2(self.right(x))]
        return self.shuffle(torch.cat(both, 1))


class ShuffleNetV2(nn.Module):
    """ShuffleNet v2: stages of 1, 2 and 4 times ``width`` channels; 2,278,604 parameters at 116.

    State-dict keys are torchvision's (shufflenet_v2_x1_0).
    """

    def __init__(
        self,
        *,
        shape: Shape = (3, 224, 224),
        classes: int = 1000,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 116,
    ) -> None:
        super().__init__()
        channels, *_ = image_sides(shape, "shufflenet-v2", smallest=4)
        width, stem = max(2, width // 2 * 2), min(24, max(2, width // 4))
        last = 1024 if width >= 58 else 8 * width
        first, second, *rest = strides(shape, 5)
        self.normalize = Normalize(shape, mean, std)
        self.conv1 = nn.Sequential(*conv_bn(channels, stem, 3, first), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if second == 2 else nn.Identity()
        self.stage2 = _stage(stem, width, _REPEATS[0], rest[0])
        self.stage3 = _stage(width, 2 * width, _REPEATS[1], rest[1])
        self.stage4 = _stage(2 * width, 4 * width, _REPEATS[2], rest[2])
        self.conv5 = nn.Sequential(*conv_bn(4 * width, last), nn.ReLU())
        self.fc = nn.Linear(last, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        x = self.maxpool(self.conv1(self.normalize(x)))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return self.fc(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, repeats: int, stride: int) -> nn.Sequential:
    rest = [SplitUnit(outputs, outputs, 1) for _ in range(repeats - 1)]
    return nn.Sequential(SplitUnit(inputs, outputs, stride), *rest)


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict of v1 show."""
    outputs, inputs = shapes["fc.weight"]
    groups = shapes["stage2.1.conv3.weight"]
    middle = shapes["stage2.1.conv2.weight"][0]
    return {
        "channels": shapes["conv1.weight"][1],
        "classes": outputs,
        "width": inputs // 4,
        "groups": middle // max(1, groups[1]),
    }


def infer_v2(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict of v2 show."""
    return {
        "channels": shapes["conv1.0.weight"][1],
        "classes": shapes["fc.weight"][0],
        "width": 2 * shapes["stage2.0.branch2.0.weight"][0],
    }
