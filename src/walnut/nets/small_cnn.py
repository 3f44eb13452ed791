"""A small convolutional network: the one of the certified-robustness literature."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from .normalize import Normalize, Shape, Statistics, image_sides


class SmallCnn(nn.Sequential):
    """Two 4x4 convolutions of stride 2 with ``width`` and 2·``width`` channels, then two layers.

    166,406 parameters at 1x28x28 with the defaults. State-dict keys are 0, 2, 5 and 7, positions in
    a Sequential, as in the checkpoints of Wong & Kolter 2018 and of the ERAN benchmarks (which use
    ``padding=0``).

    Args:
        width: channels of the first convolution.
        padding: pixels of zero padding round both convolutions, in {0, 1}.
        hidden: units of the hidden layer.
    """

    def __init__(
        self,
        *,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 16,
        padding: int = 1,
        hidden: int = 100,
    ) -> None:
        smallest = 10 if padding == 0 else 4
        channels, height, columns = image_sides(shape, "small-cnn", smallest)
        rows, columns = (_twice_halved(side, padding) for side in (height, columns))
        parts = OrderedDict[str, nn.Module]()
        parts["normalize"] = Normalize(shape, mean, std)
        parts["0"] = nn.Conv2d(channels, width, 4, stride=2, padding=padding)
        parts["1"] = nn.ReLU()
        parts["2"] = nn.Conv2d(width, 2 * width, 4, stride=2, padding=padding)
        parts["3"] = nn.ReLU()
        parts["4"] = nn.Flatten()
        parts["5"] = nn.Linear(2 * width * rows * columns, hidden)
        parts["6"] = nn.ReLU()
        parts["7"] = nn.Linear(hidden, classes)
        super().__init__(parts)


class SmallCnnWide(SmallCnn):
    """The small network at twice the width: 32 and 64 channels, 200 hidden units by default."""

    def __init__(
        self,
        *,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        width: int = 32,
        padding: int = 1,
        hidden: int = 200,
    ) -> None:
        super().__init__(
            shape=shape, classes=classes, mean=mean, std=std,
            width=width, padding=padding, hidden=hidden,
        )  # fmt: skip


def _twice_halved(side: int, padding: int) -> int:
    """Return the side of an image after both convolutions."""
    for _ in range(2):
        side = (side + 2 * padding - 4) // 2 + 1
    return side


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show."""
    width, channels = shapes["0.weight"][:2]
    hidden, features = shapes["5.weight"]
    return {
        "channels": channels,
        "classes": shapes["7.weight"][0],
        "width": width,
        "hidden": hidden,
        "area": features // max(1, 2 * width),
    }


def padding_of(shape: Shape, area: int) -> int | None:
    """Return the padding under which ``shape`` leaves ``area`` places after both convolutions."""
    for padding in (1, 0):
        if _twice_halved(shape[1], padding) * _twice_halved(shape[2], padding) == area:
            return padding
    return None
