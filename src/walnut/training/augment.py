"""Changes of training images, drawn per example; they compose with ``core.transforms``.

Each is called with (b, C, H, W) and draws, and keeps the shape. Whole pixels only: values stay what
they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from walnut.core.draws import Draws


@dataclass(frozen=True)
class crop:
    """Pad with black by ``padding`` pixels and cut out the old size at a random place."""

    padding: int = 4

    def __call__(self, x: Float[Tensor, "b c h w"], draws: Draws) -> Float[Tensor, "b c h w"]:
        batch, channels, height, width = x.shape
        padded = F.pad(x, [self.padding] * 4)
        corner = draws.integers(2 * self.padding + 1, 2)
        rows = corner[:, :1] + torch.arange(height, device=x.device)
        columns = corner[:, 1:] + torch.arange(width, device=x.device)
        wide = width + 2 * self.padding
        places = (rows[:, :, None] * wide + columns[:, None, :]).reshape(batch, 1, -1)
        flat = padded.reshape(batch, channels, -1)
        return flat.gather(2, places.expand(-1, channels, -1)).reshape(x.shape)


@dataclass(frozen=True)
class flip:
    """Mirror left and right, with probability a half."""

    def __call__(self, x: Float[Tensor, "b c h w"], draws: Draws) -> Float[Tensor, "b c h w"]:
        acts = draws.uniform(1).reshape(-1, 1, 1, 1) < 0.5
        return torch.where(acts, x.flip(3), x)
