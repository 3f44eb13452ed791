"""One bit a weight: the sign, times a scale or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from walnut.core.types import Packed

from .quantised import Along, finite, per_channel
from .representation import Representation, as_grid


@runtime_checkable
class Magnitude(Protocol):
    """The one magnitude that binary weights have."""

    def __call__(self, w: Tensor) -> Tensor:
        """Return the magnitude in a shape that multiplies ``w``, differentiable in it or not."""
        ...


@dataclass(frozen=True)
class unit:
    """α = 1: BinaryConnect. The network needs normalisation after the layer."""

    def __call__(self, w: Tensor) -> Tensor:
        """Return 1."""
        return w.new_ones(())


@dataclass(frozen=True)
class mean_magnitude:
    """α = mean |w| over the entries that share it: the best scale for the sign in least squares.

    Rastegari et al. 2016 (XNOR-Net), Eq. 6; there and here by default one for each output channel.
    """

    along: Along = per_channel()

    def __call__(self, w: Tensor) -> Tensor:
        """Return the means."""
        return self.along.spread(self.along.rows(w).abs().mean(1), w)


class _Sign(torch.autograd.Function):
    """+1 where v ≥ 0, else −1. Gradients that would push a latent further beyond ±1 are dropped."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(w)
        return torch.where(v >= 0, 1.0, -1.0).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,), (w,) = grads, ctx.saved_tensors
        outwards = ((w > 1) & (grad < 0)) | ((w < -1) & (grad > 0))
        return grad.masked_fill(outwards, 0.0), None


class Signs(Representation):
    """w ↦ α · sign(w), sign(0) = +1; the latent keeps its small numbers and gets the gradient."""

    def __init__(self, magnitude: Magnitude) -> None:
        super().__init__()
        self.magnitude = magnitude

    def _seen(self, w: Tensor) -> Tensor:
        """Return what the sign is taken of."""
        return w

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the binary weight."""
        (w,) = latents
        return self.magnitude(w) * _Sign.apply(w, self._seen(w.detach()))

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the weight as it is: what is trained is not binary."""
        return w

    def encode(self, w: Tensor) -> Packed:
        """Return the signs and their magnitudes, one for each row or one for all."""
        rows = per_channel().rows(w).abs().amax(1)
        alpha = rows[0] if bool((rows == rows[:1]).all()) else rows
        return as_grid(w.detach(), alpha.detach()) or super().encode(w)


class _Counted(torch.autograd.Function):
    """The identity; a backward pass through it draws new thresholds."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, draw: Any) -> Tensor:
        ctx.draw = draw
        return w.view_as(w)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.draw()
        return grads[0], None


class RandomSigns(Signs):
    """While training, w ↦ α with probability clip((w + 1) / 2, 0, 1), else −α; then α · sign(w).

    The draws stay until a backward pass has used them: the weight is the same however often it is
    read within a step.
    """

    threshold: Tensor

    def __init__(self, magnitude: Magnitude, like: Tensor) -> None:
        super().__init__(magnitude)
        self.register_buffer("threshold", torch.rand_like(like), persistent=False)

    def _seen(self, w: Tensor) -> Tensor:
        return ((w + 1) / 2).clamp(0, 1) - self.threshold if self.training else w

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the binary weight."""
        made = super().forward(*latents)
        return _Counted.apply(made, self._draw) if self.training else made

    def _draw(self) -> None:
        self.threshold = torch.rand_like(self.threshold)


@dataclass(frozen=True)
class Binary:
    """Keep one bit of each weight: its sign, times one magnitude.

    ``magnitude``: ``unit()`` is deterministic BinaryConnect (Courbariaux et al. 2015, Eq. 1);
    ``mean_magnitude()`` the scaled binary weights of Rastegari et al. 2016 (BWN, Eq. 4-6).

    The latents take the gradient at the binary point (straight through). BinaryConnect clips them to
    [−1, 1] after each update; here a gradient that would push one further out is dropped, which
    needs no hook and keeps them inside up to one step.

    >>> from walnut.weights import represent
    >>> net = represent(torch.nn.Linear(50, 4), {"weight": Binary(unit())})
    >>> net.weight.unique().tolist()
    [-1.0, 1.0]
    """

    magnitude: Magnitude = mean_magnitude()
    source: ClassVar[bool] = False

    def build(self, w: Tensor) -> Signs:
        """Return the filter."""
        finite(w)
        return Signs(self.magnitude)


@dataclass(frozen=True)
class StochasticBinary:
    """Draw each weight's sign while training, +1 with probability clip((w + 1) / 2, 0, 1).

    Courbariaux et al. 2015, Eq. 2-3. In eval mode the sign is deterministic, the first of the three
    ways of their section 2.6; call ``model.eval()`` before packing.
    """

    magnitude: Magnitude = unit()
    source: ClassVar[bool] = False

    def build(self, w: Tensor) -> RandomSigns:
        """Return the filter."""
        return RandomSigns(self.magnitude, finite(w))
