"""Transforms of colour and sharpness: light, contrast, print, focus. Drawn per example.

They take any number of channels. Nothing is clipped, so that gradients pass; put :class:`clip` last
where the network only ever sees values in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .draws import Draws
from .errors import WalnutError
from .transforms import between, check_image


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Reshape (b,) or (b, c) so that it broadcasts over an example."""
    return values.reshape(*values.shape, *[1] * (x.ndim - values.ndim))


def _check(name: str, amount: float, below: float = math.inf) -> None:
    if not 0 <= amount < below:
        limit = "" if math.isinf(below) else f" and below {below:g}"
        raise WalnutError(f"{name}() needs an amount of 0 or more{limit}, not {amount}")


@dataclass(frozen=True)
class brightness:
    """x + u, u uniform in ±amount: lighten or darken (0.05 in Athalye et al. 2018)."""

    amount: float = 0.05

    def __post_init__(self) -> None:
        _check("brightness", self.amount)

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        return x + _wide(between(draws, -self.amount, self.amount, x), x)


@dataclass(frozen=True)
class contrast:
    """m + (1 + u) · (x − m), u uniform in ±amount, m the example's mean."""

    amount: float = 0.2

    def __post_init__(self) -> None:
        _check("contrast", self.amount, 1.0)

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        u = between(draws, -self.amount, self.amount, x)
        mean = _wide(x.flatten(1).mean(1), x)
        return x + _wide(u, x) * (x - mean)


@dataclass(frozen=True)
class gamma:
    """((x + t)^γ − t^γ) / ((1 + t)^γ − t^γ), log γ uniform in ±log most, t = ``toe``.

    Black stays black and white white; γ = 1 changes nothing. With toe → 0 it is x^γ, whose slope at
    black is 0 or infinite. Values below 0 count as 0.

    Args:
        most: largest γ, 1 or more; the smallest is its inverse.
        toe: how far the curve is kept from its kink at black, above 0.
    """

    most: float = 1.5
    toe: float = 0.01

    def __post_init__(self) -> None:
        if not self.most >= 1 or not self.toe > 0:
            raise WalnutError(f"gamma() needs most >= 1 and toe > 0, not {self.most}, {self.toe}")

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        log = math.log(self.most)
        g = _wide(between(draws, -log, log, x).exp(), x)
        low = self.toe**g
        return ((x.clamp_min(0) + self.toe) ** g - low) / ((1 + self.toe) ** g - low)


@dataclass(frozen=True)
class tint:
    """x · m + a per channel, m uniform in 1 ± multiply and a in ± add: what a printer makes of colours.

    As the print error of Athalye et al. 2018: each channel is scaled and moved by itself.
    """

    add: float = 0.1
    multiply: float = 0.2

    def __post_init__(self) -> None:
        _check("tint", self.add)
        _check("tint", self.multiply, 1.0)

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        check_image(x)
        m, a = (2 * draws.uniform(x.shape[1], dtype=x.dtype) - 1 for _ in range(2))
        return x * (1 + self.multiply * _wide(m, x)) + self.add * _wide(a, x)


@dataclass(frozen=True)
class blur:
    """Convolve with a Gaussian of standard deviation uniform in [0, sigma) pixels; edges repeat."""

    sigma: float = 1.0

    def __post_init__(self) -> None:
        _check("blur", self.sigma)

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        check_image(x)
        half = math.ceil(3 * self.sigma)
        place = torch.arange(-half, half + 1, dtype=x.dtype, device=x.device)
        width = between(draws, 0.0, self.sigma, x)[:, None].clamp_min(1e-3)
        line = (-0.5 * (place / width) ** 2).exp()
        line = (line / line.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)[:, None, None]
        flat = F.pad(x.reshape(1, -1, *x.shape[2:]), [half] * 4, mode="replicate")
        flat = F.conv2d(flat, line, groups=flat.shape[1])
        flat = F.conv2d(flat, line.transpose(2, 3), groups=flat.shape[1])
        return flat.reshape(x.shape)


@dataclass(frozen=True)
class clip:
    """Clip every entry to [lower, upper], as a sensor does. No gradient passes where it acts."""

    lower: float = 0.0
    upper: float = 1.0

    def __call__(self, x: Float[Tensor, " b *d"], draws: Draws) -> Float[Tensor, " b *d"]:
        return x.clamp(self.lower, self.upper)
