"""VGG with batch norm (Simonyan & Zisserman 2015), one linear layer at the end as for CIFAR-10."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .blocks import conv_bn, he_init
from .normalize import Normalize, Shape, Statistics, image_sides

_PLAN_11 = ((1,), (2,), (4, 4), (8, 8), (8, 8))  # channels in widths; a 2x2 maximum after each
_PLAN_16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


class Vgg11(nn.Module):
    """Eight 3x3 convolutions with batch norm, then one linear layer: 9,228,362 parameters.

    The 2x2 maxima stop where the image is one pixel, and what is left is averaged. State-dict keys
    of ``features`` are torchvision's (vgg11_bn). Where we differ: no biases before a batch norm.
    """

    plan: tuple[tuple[int, ...], ...] = _PLAN_11

    def __init__(
        self,
        *,
        shape: Shape = (3, 32, 32),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        inputs, *sides = image_sides(shape, "vgg", smallest=2)
        side = min(sides)
        layers: list[nn.Module] = []
        for stage in self.plan:
            for times in stage:
                layers += [*conv_bn(inputs, times * width, 3), nn.ReLU()]
                inputs = times * width
            layers.append(nn.MaxPool2d(2) if side >= 2 else nn.Identity())
            side //= 2
        self.normalize = Normalize(shape, mean, std)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, C, H, W)."""
        return self.classifier(self.features(self.normalize(x)).mean((2, 3)))


class Vgg16(Vgg11):
    """Thirteen 3x3 convolutions with batch norm, then one linear layer: 14,724,042 parameters."""

    plan = _PLAN_16


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show."""
    width, channels = shapes["features.0.weight"][:2]
    return {"channels": channels, "classes": shapes["classifier.weight"][0], "width": width}
