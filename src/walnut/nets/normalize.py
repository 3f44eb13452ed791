"""Normalisation as the first layer, so that every network's input domain is [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

Shape = Sequence[int]
"""(C, H, W) of an image, or (d,) of a row of a table."""

Statistics = Sequence[float] | float | None
"""One number per channel (or column), one number for all, or None for no normalisation."""


def _column(values: Sequence[float] | float, shape: Shape, what: str) -> Tensor:
    """Return ``values`` as a tensor that broadcasts over (b, *shape)."""
    numbers = [values] if isinstance(values, int | float) else list(values)
    if len(numbers) not in (1, shape[0]):
        raise WalnutError(
            f"{what} has {len(numbers)} numbers, but the input has {shape[0]} channels: "
            "give one number, or one per channel"
        )
    # an explicit device: these few numbers are real even while a network is built on "meta"
    column = torch.tensor([float(v) for v in numbers], device="cpu")
    return column.reshape(-1, *[1] * (len(shape) - 1))


class Normalize(nn.Module):
    """Map x in [0, 1] to (x − mean) / std, per channel; nothing is stored in the state dict.

    >>> import torch
    >>> Normalize((1, 2, 2), mean=[0.5], std=[0.25])(torch.ones(1, 1, 2, 2)).unique().item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Shape, mean: Statistics = None, std: Statistics = None) -> None:
        super().__init__()
        self.active = mean is not None or std is not None
        mean_column = _column(0.0 if mean is None else mean, shape, "mean")
        std_column = _column(1.0 if std is None else std, shape, "std")
        good = math.isfinite(float(mean_column.sum())) and bool((std_column > 0).all())
        if not (good and math.isfinite(float(std_column.sum()))):
            raise WalnutError("mean must be finite and std positive")
        self.register_buffer("mean", mean_column, persistent=False)
        self.register_buffer("std", std_column, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised batch, shaped like ``x``."""
        return (x - self.mean) / self.std if self.active else x


def image_sides(shape: Shape, net: str, smallest: int) -> tuple[int, int, int]:
    """Return (C, H, W), or say that ``net`` cannot look at data of this shape."""
    if len(shape) != 3:
        raise WalnutError(
            f"{net} looks at images (C, H, W), but this data has shape {tuple(shape)}: "
            "use softmax or lenet-300-100"
        )
    channels, height, width = shape
    if min(height, width) < smallest:
        raise WalnutError(
            f"{net} needs images of at least {smallest}x{smallest} pixels, but this data is "
            f"{height}x{width}: use small-cnn or lenet-300-100"
        )
    return channels, height, width
