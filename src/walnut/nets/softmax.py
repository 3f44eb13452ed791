"""Softmax regression: one linear layer from pixels to logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .normalize import Normalize, Shape, Statistics


class Softmax(nn.Module):
    """z = W·x + b: the linear classifier, on which fast gradient sign is the optimal attack."""

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
        self.linear = nn.Linear(math.prod(shape), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, classes) of x (b, *shape)."""
        return self.linear(self.normalize(x).flatten(1))


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show."""
    return {"classes": shapes["linear.weight"][0], "features": shapes["linear.weight"][1]}
