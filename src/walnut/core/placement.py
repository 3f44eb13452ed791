"""Placement: where, how large and at which angle something is stuck onto a picture; and its shapes.

A mask (h, w) says how much of the patch covers what is below: 1 all, 0 nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from .draws import Draws
from .errors import WalnutError
from .transforms import between, check_image, turned, warp


@runtime_checkable
class Location(Protocol):
    """Where the middle of a patch goes."""

    def __call__(self, room: Tensor, side: Tensor, draws: Draws) -> Float[Tensor, " b 2"]:
        """Return (right, down) of the picture's centre in pixels.

        ``room`` (b, 2) is how far the patch can move with its unturned frame inside; ``side`` (2,) is the
        picture's width and height.
        """
        ...


@dataclass(frozen=True)
class anywhere:
    """Uniform over the places where the patch's unturned frame lies inside the picture."""

    def __call__(self, room: Tensor, side: Tensor, draws: Draws) -> Float[Tensor, " b 2"]:
        return room * (2 * draws.uniform(2, dtype=room.dtype) - 1)


@dataclass(frozen=True)
class at:
    """Always here, as shares of the picture's width and height: (0.5, 0.5) is the middle."""

    right: float = 0.5
    down: float = 0.5

    def __call__(self, room: Tensor, side: Tensor, draws: Draws) -> Float[Tensor, " b 2"]:
        place = torch.tensor([self.right - 0.5, self.down - 0.5], dtype=room.dtype)
        return (place.to(room.device) * side).expand_as(room)


@dataclass(frozen=True)
class Placement:
    """A random, differentiable way to stick a patch onto a picture, drawn per picture.

        x ← (1 − A mask) · x + A (mask · patch),   A: enlarge, turn, move; bilinear

    (the operator A(p, x, l, t) of Brown et al. 2017, §2). The frame of a turned patch may stick out of
    the picture at its corners; the inscribed circle does not.

    Args:
        scale: the patch's longer side as a share of the picture's shorter side, uniform in
            [low, high), both in (0, 1].
        degrees: turned by up to so much either way; 180 is any angle.
        location: where its middle goes.
    """

    scale: tuple[float, float] = (0.3, 0.6)
    degrees: float = 22.5
    location: Location = anywhere()

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise WalnutError(f"scale must be 0 < low <= high <= 1, not {low} and {high}")

    def __call__(
        self,
        x: Float[Tensor, " b *d"],
        patch: Float[Tensor, " *e"],
        mask: Float[Tensor, " h w"],
        draws: Draws,
    ) -> tuple[Tensor, Tensor]:
        """Return the pictures with the patch on them (b, c, H, W), and how it covers them (b, 1, H, W).

        Args:
            x: pictures (b, c, H, W).
            patch: (c, h, w), one for all; or (b, c, h, w), one each.
            mask: in [0, 1].
            draws: one stream per picture.
        """
        check_image(x)
        if patch.shape[-3:] != (x.shape[1], *mask.shape):
            raise WalnutError(
                f"a patch {tuple(patch.shape)} with mask {tuple(mask.shape)} does not go on pictures "
                f"{tuple(x.shape[1:])}: it needs {x.shape[1]} channels and the mask's size"
            )
        height, width = mask.shape
        side = x.new_tensor([x.shape[-1], x.shape[-2]])
        share = between(draws, *self.scale, x)
        unit = (share * side.min() / max(height, width))[:, None]  # pixels a texel
        angle = torch.deg2rad(between(draws, -self.degrees, self.degrees, x))
        room = ((side - unit * side.new_tensor([width, height])) / 2).clamp_min(0)
        centre = self.location(room, side, draws)
        matrix = turned(angle) / unit[:, :, None]
        shift = -torch.einsum("bij,bj->bi", matrix, centre)
        layers = torch.cat([patch * mask, mask.expand(*patch.shape[:-3], 1, -1, -1)], -3)
        layers = layers.expand(len(x), -1, -1, -1)
        placed = warp(layers, matrix, shift, (x.shape[-2], x.shape[-1]))
        cover = placed[:, -1:]
        return x * (1 - cover) + placed[:, :-1], cover

    def covering(self, area: float, mask: Tensor, shape: tuple[int, ...]) -> Placement:
        """Return this placement with the one scale at which a patch covers a share of the picture.

        Args:
            area: share of the picture's area, in (0, 1).
            mask: (h, w).
            shape: (c, H, W) of a picture.

        >>> Placement().covering(0.25, torch.ones(8, 8), (1, 28, 28)).scale
        (0.5, 0.5)
        """
        height, width = shape[-2:]
        filled = float(mask.double().sum()) / max(mask.shape) ** 2
        scale = math.sqrt(area * height * width / filled) / min(height, width)
        if not 0 < scale <= 1:
            largest = filled * min(height, width) / max(height, width)
            raise WalnutError(
                f"a patch of this shape covers at most {largest:.3g} of a picture, not {area:g}"
            )
        return replace(self, scale=(scale, scale))


@runtime_checkable
class Shape(Protocol):
    """The outline of a patch."""

    def __call__(self, size: int) -> Float[Tensor, " h w"]:
        """Return the mask, its longer side ``size`` texels, in [0, 1]."""
        ...


@dataclass(frozen=True)
class square:
    """All of the frame."""

    def __call__(self, size: int) -> Float[Tensor, " h w"]:
        return torch.ones(size, size)


@dataclass(frozen=True)
class circle:
    """The texels whose centres lie in the inscribed circle."""

    def __call__(self, size: int) -> Float[Tensor, " h w"]:
        place = torch.arange(size) - (size - 1) / 2
        return ((place[:, None] ** 2 + place**2).sqrt() <= size / 2).float()


@dataclass(frozen=True, eq=False)
class sticker:
    """Any outline: the alpha channel of a PNG, say.

    Args:
        mask: (h, w), bool or in [0, 1]; made smaller or larger to the patch's size.
    """

    mask: Shaped[Tensor, " h w"] = field(repr=False)

    def __post_init__(self) -> None:
        m = self.mask.float()
        if m.ndim != 2 or not bool(((m >= 0) & (m <= 1)).all()) or not bool((m > 0).any()):
            raise WalnutError(
                "a sticker's mask is (h, w), true or in [0, 1], and covers something: "
                "divide an 8-bit alpha channel by 255"
            )

    def __call__(self, size: int) -> Float[Tensor, " h w"]:
        mask = self.mask.float()
        ratio = size / max(mask.shape)
        if ratio == 1:
            return mask
        shape = [max(1, round(n * ratio)) for n in mask.shape]
        grown = F.interpolate(
            mask[None, None], shape, mode="bilinear", align_corners=False, antialias=True
        )
        return grown[0, 0].clamp(0, 1)
