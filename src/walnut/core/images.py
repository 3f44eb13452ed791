"""Images: the variable an attack moves, and the input it paints.

A parametrised input is to the input lever what a parametrised weight is to the weights lever.
With any variable but pixels a constraint acts on the variable, so the box must come from ``paint``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import WalnutError


@dataclass(frozen=True)
class pixels:
    """The input itself."""

    def start(self, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """Return ``x``."""
        return x

    def paint(self, z: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """Return ``z``."""
        return z


@dataclass(frozen=True)
class tanh_box:
    """x = lower + (upper − lower) · (tanh z + 1) / 2 (Carlini & Wagner 2017, §V-B).

    Where we differ: x is moved inside the box by ``margin`` of its width before the inverse, so that
    pixels at exactly 0 and 1, whose z would be infinite, can move.
    """

    lower: float = 0.0
    upper: float = 1.0
    margin: float = 1e-4

    def start(self, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """Return the variable that paints ``x``, to within ``margin`` of the box's width."""
        unit = 2 * (x - self.lower) / (self.upper - self.lower) - 1
        return (
            (unit * (1 - 2 * self.margin)).clamp(2 * self.margin - 1, 1 - 2 * self.margin).atanh()
        )

    def paint(self, z: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """Return an input inside the box."""
        return self.lower + (self.upper - self.lower) * (z.tanh() + 1) / 2


@dataclass(frozen=True)
class fourier:
    """x = Re F⁻¹(z / f): coefficients of a real 2-D Fourier transform, scaled by 1/frequency.

    Equal steps in ``z`` then change low frequencies more, which makes smooth pictures
    (Olah et al. 2017, "Feature visualization"). Takes images (b, C, H, W); z is (b, C, H, W//2+1, 2).

    Args:
        width: the image's width W in pixels (the transform does not keep whether it is odd).
    """

    width: int

    def _scale(self, z: Tensor) -> Tensor:
        height = z.shape[-3]
        rows = torch.fft.fftfreq(height, dtype=z.dtype, device=z.device)[:, None]
        columns = torch.fft.rfftfreq(self.width, dtype=z.dtype, device=z.device)
        return (rows**2 + columns**2).sqrt().clamp_min(1.0 / max(height, self.width))[..., None]

    def start(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h v 2"]:
        """Return the scaled coefficients of ``x``."""
        if x.shape[-1] != self.width:
            raise WalnutError(f"fourier(width={self.width}) was given images {x.shape[-1]} wide")
        z = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
        return z * self._scale(z)

    def paint(self, z: Float[Tensor, " b c h v 2"]) -> Float[Tensor, " b c h w"]:
        """Return the image, not limited to any box."""
        spectrum = torch.view_as_complex((z / self._scale(z)).contiguous())
        return torch.fft.irfft2(spectrum, s=(z.shape[-3], self.width), norm="ortho")
