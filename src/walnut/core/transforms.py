"""Transforms: random, differentiable changes of the input, drawn per example.

Those that move pixels take images (b, C, H, W) of any size and number of channels and keep the size;
what moves in from outside is 0 (black). Those that change colours are in :mod:`transforms_colour`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .draws import Draws
from .errors import WalnutError
from .types import Model, Transform


def between(draws: Draws, low: float, high: float, like: Tensor) -> Float[Tensor, " b"]:
    """Return one number per example, uniform in [low, high)."""
    return low + (high - low) * draws.uniform(1, dtype=like.dtype)[:, 0]


def check_image(x: Tensor) -> None:
    """Refuse what is no batch of images."""
    if x.ndim != 4:
        raise WalnutError(f"this transform needs images (b, C, H, W), not {tuple(x.shape)}")


def places(height: int, width: int, like: Tensor) -> Float[Tensor, " h w 2"]:
    """Return where each pixel's centre is: (right, down) of the image's centre, in pixels."""
    right, down = (
        torch.arange(n, dtype=like.dtype, device=like.device) - (n - 1) / 2 for n in (width, height)
    )
    return torch.stack([right.expand(height, -1), down[:, None].expand(-1, width)], -1)


def sample(x: Float[Tensor, " b c h w"], at: Float[Tensor, " b u v 2"]) -> Tensor:
    """Read images at ``at``: pixels (right, down) of their centre; bilinear, black outside."""
    size = torch.tensor([x.shape[-1], x.shape[-2]], dtype=x.dtype, device=x.device)
    return F.grid_sample(x, 2 * at / size, align_corners=False)


def warp(
    x: Tensor,
    matrix: Float[Tensor, " b 2 2"],
    shift: Float[Tensor, " b 2"],
    size: tuple[int, int] | None = None,
) -> Float[Tensor, " b c u v"]:
    """Return the images whose pixel at p is x at matrix · p + shift.

    Args:
        x: images (b, c, h, w).
        matrix: per image; p = (right, down) in pixels from the centre of the result.
        shift: per image, in pixels from the centre of ``x``.
        size: height and width of the result; those of ``x`` unless given.
    """
    check_image(x)
    p = places(*(size or (x.shape[-2], x.shape[-1])), like=x)
    return sample(x, torch.einsum("bij,uvj->buvi", matrix, p) + shift[:, None, None])


def turned(angle: Float[Tensor, " b"]) -> Float[Tensor, " b 2 2"]:
    """Return [[cos, −sin], [sin, cos]] of angles in radians."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def _eye(x: Tensor) -> Tensor:
    return torch.eye(2, dtype=x.dtype, device=x.device).expand(len(x), 2, 2)


def _shift(right: Tensor, down: Tensor) -> Float[Tensor, " b 2"]:
    return torch.stack([right, down], 1)


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
        check_image(x)
        share = between(draws, self.smallest, 1.0, x)
        room = 1.0 / share - 1.0
        right, down = (between(draws, -1.0, 1.0, x) * room for _ in range(2))
        acts = draws.uniform(1)[:, 0] < self.probability
        shift = _shift(right * x.shape[-1] / 2, down * x.shape[-2] / 2)
        moved = warp(x, _eye(x) / share[:, None, None], shift)
        return torch.where(acts.reshape(-1, 1, 1, 1), moved, x)


@dataclass(frozen=True)
class jitter:
    """Shift by up to ``pixels`` in each direction, also by parts of a pixel."""

    pixels: float = 2.0

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        right, down = (between(draws, -self.pixels, self.pixels, x) for _ in range(2))
        return warp(x, _eye(x), _shift(right, down))


@dataclass(frozen=True)
class rotate:
    """Rotate about the centre by up to ``degrees`` either way, counter-clockwise by positive ones."""

    degrees: float = 15.0

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        angle = torch.deg2rad(between(draws, -self.degrees, self.degrees, x))
        return warp(x, turned(angle), x.new_zeros(len(x), 2))


@dataclass(frozen=True)
class zoom:
    """Enlarge about the centre by a factor uniform in [smallest, largest); below 1 it shrinks."""

    smallest: float = 0.9
    largest: float = 1.4

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise WalnutError(
                f"zoom() needs 0 < smallest <= largest, not {self.smallest} and {self.largest}"
            )

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        factor = between(draws, self.smallest, self.largest, x)
        return warp(x, _eye(x) / factor[:, None, None], x.new_zeros(len(x), 2))


@dataclass(frozen=True)
class crop:
    """Cut a window out at a random place and enlarge it to the whole image.

    Args:
        smallest: smallest side of the window as a share of the image's, in (0, 1].
    """

    smallest: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise WalnutError(f"crop() needs a share in (0, 1], not {self.smallest}")

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        check_image(x)
        share = between(draws, self.smallest, 1.0, x)
        right, down = (between(draws, -0.5, 0.5, x) * (1 - share) for _ in range(2))
        shift = _shift(right * x.shape[-1], down * x.shape[-2])
        return warp(x, _eye(x) * share[:, None, None], shift)


@dataclass(frozen=True)
class perspective:
    """Tilt the picture's plane: the pixel at p shows what was at p / (1 + g · u).

    u is p in half sides, so that the image spans [−1, 1]²; a positive g brings that side nearer.

    Args:
        tilt: largest |g| in each direction, in [0, 0.5); at 0.2 a side is shown 1/0.8 times as far
            away as the middle at the most.
    """

    tilt: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.tilt < 0.5:
            raise WalnutError(f"perspective() needs a tilt in [0, 0.5), not {self.tilt}")

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        check_image(x)
        g = _shift(*(between(draws, -self.tilt, self.tilt, x) for _ in range(2)))
        p = places(x.shape[-2], x.shape[-1], like=x)
        u = p / torch.tensor([x.shape[-1] / 2, x.shape[-2] / 2], dtype=x.dtype, device=x.device)
        depth = 1 + torch.einsum("bi,uvi->buv", g, u)
        return sample(x, p / depth[..., None])


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


def readings(
    model: Model,
    x: Float[Tensor, " n *d"],
    transform: Transform,
    draws: Draws,
    count: int,
    batch_size: int = 256,
) -> Int[Tensor, " n count"]:
    """Return the class that a network reads in each example under ``count`` random transforms.

    Args:
        model: network to logits, held still by the caller (:func:`walnut.core.frozen.frozen`).
        x: examples.
        transform: the random change.
        draws: one stream per example; draw j uses its j-th fold.
        count: draws per example, each a forward pass.
    """
    if count < 1:
        raise WalnutError(f"a share of random transforms needs at least one draw, not {count}")
    found = []
    with torch.no_grad():
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            some = draws.rows(rows)
            read = [model(transform(x[rows], some.fold(j))).argmax(1) for j in range(count)]
            found.append(torch.stack(read, 1))
    return torch.cat(found)
