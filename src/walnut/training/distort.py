"""A random change of a training image's geometry, as handwriting varies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from walnut.core.draws import Draws
from walnut.core.transforms import between, check_image, places, sample, turned


@dataclass(frozen=True)
class distort:
    """Turn, scale, shear, shift and bend every image at random: x(A·p + t + u(p)), bilinear.

    A = R(θ)·[[s₁, h], [0, s₂]] about the centre, t a shift, and u a smooth field: normal numbers on
    a 5x5 lattice, read between its points by bicubic interpolation (the elastic distortion of
    Simard et al. 2003; where we differ: a lattice in place of Gaussian smoothing). What moves in
    from outside is black.

    Args:
        degrees: θ is uniform in ±degrees.
        scale: s₁ and s₂, each by itself, are uniform in 1 ± scale.
        shear: h is uniform in ±shear.
        shift: t is uniform in ±shift pixels along each axis.
        bend: the deviation of u at the lattice's points, in pixels.

    >>> from walnut.core.draws import Draws
    >>> x = torch.rand(3, 1, 8, 8)
    >>> still = distort(degrees=0, scale=0, shear=0, shift=0, bend=0)
    >>> torch.allclose(still(x, Draws.of(x, seed=0)), x, atol=1e-5)
    True
    """

    degrees: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 1.5
    bend: float = 0.7

    def __call__(self, x: Float[Tensor, "b c h w"], draws: Draws) -> Float[Tensor, "b c h w"]:
        check_image(x)
        angle = torch.deg2rad(between(draws, -self.degrees, self.degrees, x))
        first, second = (between(draws, 1 - self.scale, 1 + self.scale, x) for _ in range(2))
        shear = between(draws, -self.shear, self.shear, x)
        zero = torch.zeros_like(shear)
        frame = torch.stack([torch.stack([first, shear], 1), torch.stack([zero, second], 1)], 1)
        moved = torch.stack([between(draws, -self.shift, self.shift, x) for _ in range(2)], 1)
        matrix = turned(angle) @ frame
        at = torch.einsum("bij,uvj->buvi", matrix, places(x.shape[-2], x.shape[-1], x))
        at = at + moved[:, None, None]
        if self.bend > 0:
            lattice = self.bend * draws.normal(2, 5, 5, dtype=x.dtype)
            field = F.interpolate(lattice, x.shape[-2:], mode="bicubic", align_corners=True)
            at = at + field.permute(0, 2, 3, 1)
        return sample(x, at)
