"""Transforms: random, differentiable changes of the input, drawn per example.

Image transforms take (b, C, H, W) and keep the size; what moves in from outside is 0 (black).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .draws import Draws
from .errors import WalnutError
from .types import Transform


def _between(draws: Draws, low: float, high: float, like: Tensor) -> Float[Tensor, " b"]:
    """Return one number per example, uniform in [low, high)."""
    return low + (high - low) * draws.uniform(1, dtype=like.dtype)[:, 0]


def _warp(x: Tensor, a: Tensor, b: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Sample x at [[a, -b], [b, a]]·p + shift, p in [−1, 1]² (bilinear, black outside)."""
    if x.ndim != 4:
        raise WalnutError(f"this transform needs images (b, C, H, W), not {tuple(x.shape)}")
    theta = torch.stack([torch.stack([a, -b, shift_x], 1), torch.stack([b, a, shift_y], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


@dataclass(frozen=True)
class resize_pad:
    """Shrink to a random size, put it at a random place, fill with black (DI-FGSM, Xie et al. 2019).

    Where we differ: the paper grows 299 to 330 pixels (networks there take any size); here the
    image shrinks by the inverse ratio and the size is kept, with bilinear interpolation.

    Args:
        smallest: smallest side as a share of the original, in (0, 1].
        probability: share of draws in which the transform acts.
    """

    smallest: float = 0.9
    probability: float = 0.5

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        share = _between(draws, self.smallest, 1.0, x)
        room = 1.0 / share - 1.0
        right, down = (_between(draws, -1.0, 1.0, x) * room for _ in range(2))
        acts = draws.uniform(1)[:, 0] < self.probability
        moved = _warp(x, 1.0 / share, torch.zeros_like(share), right, down)
        return torch.where(acts.reshape(-1, 1, 1, 1), moved, x)


@dataclass(frozen=True)
class jitter:
    """Shift by up to ``pixels`` in each direction, also by parts of a pixel."""

    pixels: float = 2.0

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        right, down = (_between(draws, -self.pixels, self.pixels, x) for _ in range(2))
        one = torch.ones_like(right)
        return _warp(x, one, 0 * one, 2 * right / x.shape[-1], 2 * down / x.shape[-2])


@dataclass(frozen=True)
class rotate:
    """Rotate about the centre by up to ``degrees`` either way."""

    degrees: float = 15.0

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        angle = torch.deg2rad(_between(draws, -self.degrees, self.degrees, x))
        zero = torch.zeros_like(angle)
        return _warp(x, angle.cos(), angle.sin(), zero, zero)


@dataclass(frozen=True)
class scale:
    """Multiply intensities by 1/2^i, i drawn from {0, ..., copies − 1} (SI-FGSM, Lin et al. 2020, Eq. 9).

    Where we differ: the paper sums over all copies each step; average over draws instead.
    """

    copies: int = 5

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        power = draws.integers(self.copies, 1)[:, 0].to(x.dtype)
        return x * (0.5**power).reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True)
class noise:
    """Add normal noise of standard deviation ``sigma``."""

    sigma: float = 0.05

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        return x + self.sigma * draws.normal(*x.shape[1:], dtype=x.dtype)


@dataclass(frozen=True)
class compose:
    """Transforms one after the other."""

    parts: tuple[Transform, ...]

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        for i, part in enumerate(self.parts):
            x = part(x, draws.fold(i))
        return x
