"""Directions: which way a step goes, given the gradient. A step has unit size in its own norm.

All state has a leading batch dimension, so that the loop can drop rows and admit new ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .errors import WalnutError
from .types import Direction


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (b,) so that it broadcasts over an example."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


class Memoryless:
    """A direction that keeps nothing between steps."""

    def init(self, x: Tensor) -> tuple[()]:
        """Return the empty state."""
        return ()


@dataclass(frozen=True)
class sign(Memoryless):
    """sign(g): the steepest ascent under an L∞ bound (Goodfellow et al. 2015)."""

    def update(
        self, grad: Float[Tensor, " b *d"], state: Any
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """Return the sign of each entry."""
        return grad.sign(), state


@dataclass(frozen=True)
class normalized(Memoryless):
    """g / ‖g‖₂ per example: the steepest ascent under an L2 bound; a zero gradient stays zero."""

    def update(
        self, grad: Float[Tensor, " b *d"], state: Any
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """Return the gradient at unit L2 length."""
        # divided by the largest entry first: the square of a tiny gradient would underflow
        scaled = grad / _rows(grad.flatten(1).abs().amax(1), grad).clamp_min(
            torch.finfo(grad.dtype).tiny
        )
        length = _rows(scaled.flatten(1).norm(dim=1), grad)
        return torch.where(length > 0, scaled / length.clamp_min(1e-30), scaled), state


@dataclass(frozen=True)
class sparse(Memoryless):
    """The signs of the largest entries only, at unit L1 length: steepest ascent under an L1 bound,
    spread over a share of the coordinates (SLIDE, Tramèr & Boneh 2019, §3.3).

    Args:
        share: share of the coordinates that move, in (0, 1]; one at least.
    """

    share: float = 0.05

    def update(
        self, grad: Float[Tensor, " b *d"], state: Any
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """Return the step, of L1 length 1."""
        flat = grad.flatten(1)
        count = max(1, math.ceil(self.share * flat.shape[1]))
        top = flat.abs().topk(count, dim=1).indices
        step = torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign() / count)
        return step.reshape(grad.shape), state


@dataclass(frozen=True)
class momentum:
    """m ← decay · m + g / ‖g‖₁; the step is m (MI-FGSM, Dong et al. 2018, Eq. 6)."""

    decay: float = 1.0

    def init(self, x: Tensor) -> Tensor:
        """Return m = 0."""
        return torch.zeros_like(x)

    def update(self, grad: Float[Tensor, " b *d"], state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the accumulated direction and remember it."""
        size = _rows(grad.flatten(1).abs().sum(1), grad)
        m = self.decay * state + grad / size.clamp_min(torch.finfo(grad.dtype).tiny)
        return m, m


@dataclass(frozen=True)
class nesterov:
    """m ← decay · m + g / ‖g‖₁; the step is g / ‖g‖₁ + decay · m.

    Nesterov's look-ahead in the form of Bengio et al. 2013, Eq. 7 (as in ``torch.optim.SGD``): the
    iterate *is* the looked-ahead point. NI-FGSM (Lin et al. 2020) evaluates the gradient at
    x + α·decay·m instead, which is not the same once a sign follows: see ``attacks.ni_fgsm``.
    """

    decay: float = 1.0

    def init(self, x: Tensor) -> Tensor:
        """Return m = 0."""
        return torch.zeros_like(x)

    def update(self, grad: Float[Tensor, " b *d"], state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the looked-ahead direction and remember m."""
        size = _rows(grad.flatten(1).abs().sum(1), grad)
        unit = grad / size.clamp_min(torch.finfo(grad.dtype).tiny)
        m = self.decay * state + unit
        return unit + self.decay * m, m


@dataclass(frozen=True)
class blurred(Memoryless):
    """W * g: the gradient convolved with a Gaussian (TI-FGSM, Dong et al. 2019, Eq. 8).

    Args:
        size: width of the kernel in pixels, odd.
        sigma: standard deviation in pixels; a third of the half width unless given.
    """

    size: int = 7
    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise WalnutError(f"blurred() needs an odd kernel size, not {self.size}")

    def update(
        self, grad: Float[Tensor, " b *d"], state: Any
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """Return the smoothed gradient of images (b, C, H, W), any number of channels."""
        if grad.ndim != 4:
            raise WalnutError(f"blurred() needs images (b, C, H, W), not {tuple(grad.shape)}")
        half = self.size // 2
        place = torch.arange(-half, half + 1, dtype=grad.dtype, device=grad.device)
        line = (-0.5 * (place / (self.sigma or max(half, 1) / 3)) ** 2).exp()
        line = line / line.sum()
        channels = grad.shape[1]
        kernel = (line[:, None] * line).expand(channels, 1, -1, -1)
        return F.conv2d(grad, kernel, padding=half, groups=channels), state


@dataclass(frozen=True)
class chain:
    """Directions one after the other: ``chain((momentum(), sign()))`` is MI-FGSM's."""

    parts: tuple[Direction, ...]

    def init(self, x: Tensor) -> tuple[Any, ...]:
        """Return the states of the parts."""
        return tuple(part.init(x) for part in self.parts)

    def update(self, grad: Float[Tensor, " b *d"], state: tuple[Any, ...]) -> tuple[Tensor, Any]:
        """Pass the step of each part to the next."""
        states = []
        for part, before in zip(self.parts, state, strict=True):
            grad, after = part.update(grad, before)
            states.append(after)
        return grad, tuple(states)
