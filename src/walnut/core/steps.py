"""Step sizes over a run: constant, or falling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class constant:
    """The same step throughout."""

    def __call__(self, progress: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return 1 for every row; ``progress`` is step / steps in [0, 1)."""
        return torch.ones_like(progress)


@dataclass(frozen=True)
class cosine:
    """(1 + cos(π · progress)) / 2: from the full step down to nothing."""

    def __call__(self, progress: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the factor of each row."""
        return (1 + torch.cos(math.pi * progress)) / 2
