"""MobileNet, v1 (Howard et al. 2017) and v2 (Sandler et al. 2018): depthwise-separable convolutions.

A k×k convolution from I to O channels costs k·k·I·O multiply-adds a pixel; a depthwise k×k and a 1×1
convolution cost k·k·I + I·O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .blocks import conv_bn, he_init, strides
from .normalize import Normalize, Shape, Statistics, image_sides

# channels in widths, and whether the image is halved (Howard et al., table 1; width 32)
_V1 = (
    (2, False), (4, True), (4, False), (8, True), (8, False),
    (16, True), *[(16, False)] * 5, (32, True), (32, False),
)  # fmt: skip
# expansion, channels in 32nds of the width, repeats, halved first (Sandler et al., table 2)
_V2 = (
    (1, 16, 1, False), (6, 24, 2, True), (6, 32, 3, True), (6, 64, 4, True),
    (6, 96, 3, False), (6, 160, 3, True), (6, 320, 1, False),
)  # fmt: skip


class MobileNet(nn.Module):
    """MobileNet v1: 13 separable convolutions; 4,231,976 parameters at width 32 and 1000 classes."""

    def __init__(
        self,
        *,
        shape: Shape = (3, 224, 224),
        classes: int = 1000,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 32,
    ) -> None:
        super().__init__()
        channels, *_ = image_sides(shape, "mobilenet", smallest=4)
        steps = iter(strides(shape, 5))
        self.normalize = Normalize(shape, mean, std)
        layers: list[nn.Module] = [_conv(channels, width, 3, next(steps), nn.ReLU)]
        inputs = width
        for times, halved in _V1:
            stride = next(steps) if halved else 1
            layers.append(_conv(inputs, inputs, 3, stride, nn.ReLU, groups=inputs))
            layers.append(_conv(inputs, times * width, 1, 1, nn.ReLU))
            inputs = times * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        return self.classifier(self.features(self.normalize(x)).mean((2, 3)))


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    activation: type[nn.Module],
    groups: int = 1,
) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs, kernel, stride, groups), activation())


class Inverted(nn.Module):
    """Inverted residual: expand by 1x1, filter each channel by 3x3, project by 1x1, add the input."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv(inputs, hidden, 1, 1, nn.ReLU6)] if expansion > 1 else []
        depthwise = _conv(hidden, hidden, 3, stride, nn.ReLU6, groups=hidden)
        self.conv = nn.Sequential(*expand, depthwise, *conv_bn(hidden, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the filtered batch, plus x where the shape allows it."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """17 inverted residuals: 3,504,872 parameters at width 32 and 1000 classes.

    State-dict keys are torchvision's. Where we differ: channels are not rounded to multiples of 8,
    which changes nothing at width 32.
    """

    def __init__(
        self,
        *,
        shape: Shape = (3, 224, 224),
        classes: int = 1000,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 32,
    ) -> None:
        super().__init__()
        channels, *_ = image_sides(shape, "mobilenet-v2", smallest=4)
        steps = iter(strides(shape, 5))
        self.normalize = Normalize(shape, mean, std)
        layers: list[nn.Module] = [_conv(channels, width, 3, next(steps), nn.ReLU6)]
        inputs = width
        for expansion, share, repeats, halved in _V2:
            outputs = max(1, share * width // 32)
            for i in range(repeats):
                stride = next(steps) if halved and i == 0 else 1
                layers.append(Inverted(inputs, outputs, expansion, stride))
                inputs = outputs
        layers.append(_conv(inputs, 40 * width, 1, 1, nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(40 * width, classes))
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        return self.classifier(self.features(self.normalize(x)).mean((2, 3)))


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict of v1 show."""
    width, channels = shapes["features.0.0.weight"][:2]
    return {"channels": channels, "classes": shapes["classifier.weight"][0], "width": width}


def infer_v2(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict of v2 show."""
    width, channels = shapes["features.0.0.weight"][:2]
    return {"channels": channels, "classes": shapes["classifier.1.weight"][0], "width": width}
