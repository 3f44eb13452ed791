"""Fewer bits: a filter that rounds a weight to a grid of integers times a scale, or to half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from walnut.core.errors import WalnutError
from walnut.core.types import Packed

from .calibrate import Reach, mse
from .representation import Representation, as_grid


@runtime_checkable
class Along(Protocol):
    """Which entries of a weight share a scale."""

    def rows(self, w: Tensor) -> Tensor:
        """Return the entries (r, n), a row for each scale."""
        ...

    def spread(self, scale: Tensor, w: Tensor) -> Tensor:
        """Return the scales (r,) in a shape that multiplies ``w``."""
        ...


@dataclass(frozen=True)
class per_tensor:
    """One scale for the whole weight."""

    def rows(self, w: Tensor) -> Tensor:
        """Return the entries (1, n)."""
        return w.reshape(1, -1)

    def spread(self, scale: Tensor, w: Tensor) -> Tensor:
        """Return the one scale, without axes."""
        return scale.reshape(())


@dataclass(frozen=True)
class per_channel:
    """One scale for each index of ``axis``: 0 is the output of a dense or convolutional layer."""

    axis: int = 0

    def rows(self, w: Tensor) -> Tensor:
        """Return the entries (channels, n)."""
        if not -w.ndim <= self.axis < w.ndim:
            raise WalnutError(f"a weight of shape {tuple(w.shape)} has no axis {self.axis}")
        return w.movedim(self.axis, 0).reshape(w.shape[self.axis], -1)

    def spread(self, scale: Tensor, w: Tensor) -> Tensor:
        """Return the scales along their axis."""
        shape = [1] * w.ndim
        shape[self.axis] = -1
        return scale.reshape(shape)


class _StraightThrough(torch.autograd.Function):
    """The value as it is given; its gradient goes to ``w`` where ``passes`` (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, value: Tensor, passes: Tensor | None) -> Tensor:
        ctx.save_for_backward(*([] if passes is None else [passes]))
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return (grad * ctx.saved_tensors[0] if ctx.saved_tensors else grad), None, None


def straight_through(w: Tensor, value: Tensor, passes: Tensor | None = None) -> Tensor:
    """Return ``value``, with the gradient of ``w`` where ``passes`` is true (None: everywhere).

    ``w + (value − w).detach()`` is the same gradient, but rounds the value once more.

    >>> w = torch.tensor([0.4, 1.7], requires_grad=True)
    >>> straight_through(w, w.detach().round()).sum().backward()
    >>> w.grad
    tensor([1., 1.])
    """
    return _StraightThrough.apply(w, value.detach(), passes)


def on_grid(w: Tensor, scale: Tensor) -> Packed | None:
    """Return the record of whole numbers times ``scale`` that a weight is, or None.

    A record has one scale, or one for each index of the first axis.
    """
    if scale.ndim and scale.numel() != scale.shape[0]:
        return None
    return as_grid(w.detach(), scale.detach().reshape(-1) if scale.ndim else scale.detach())


def finite(w: Tensor) -> Tensor:
    """Return a weight without its graph, or say that it cannot be rounded."""
    if not w.is_floating_point():
        raise WalnutError(f"weights to quantise must be floating-point, not {w.dtype}")
    if not bool(w.isfinite().all()):
        raise WalnutError("a weight to quantise holds NaN or infinity: check the network first")
    return w.detach()


class Quantised(Representation):
    """w ↦ s · clip(round(w / s), −Q, Q), Q = 2^(bits−1) − 1; the scale s stays what it was at first.

    The latent is the weight before rounding. Its gradient passes where nothing is cut off and is
    zero elsewhere. A zero stays +0.
    """

    scale: Tensor

    def __init__(self, scale: Tensor, top: int) -> None:
        super().__init__()
        self.top = top
        self.register_buffer("scale", scale)

    def _integers(self, w: Tensor) -> Tensor:
        return (w / self.scale).round().clamp(-self.top, self.top)

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight on its grid."""
        (w,) = latents
        value = self._integers(w.detach()) * self.scale + 0.0  # + 0: −0 becomes 0
        return straight_through(w, value, w.detach().abs() <= (self.top + 0.5) * self.scale)

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the weight as it is: what is trained is not rounded."""
        return w

    def encode(self, w: Tensor) -> Packed:
        """Return the whole numbers and their scale."""
        return on_grid(w, self.scale) or super().encode(w)


@dataclass(frozen=True)
class Quantise:
    """Round a weight to 2^bits − 1 values: whole numbers from −Q to Q times a scale.

    The grid is symmetric, as kernels want it for weights: 8 bits have Q = 127, 4 have 7, 2 have 1.

    Args:
        bits: from 2 to 8.
        along: which entries share a scale.
        reach: how the largest value of a grid is found; its Q-th part is the scale.

    Krishnamoorthi 2018 ("Quantizing deep convolutional networks for efficient inference"), section
    2.2; there the clip is the largest magnitude, here by default the one of least squared error.

    >>> from walnut.weights import represent
    >>> net = represent(torch.nn.Linear(50, 4), {"weight": Quantise(2)})
    >>> [len(row.unique()) <= 3 for row in net.weight]
    [True, True, True, True]
    """

    bits: int
    along: Along = per_channel()
    reach: Reach = mse()
    source: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise WalnutError(
                f"a grid has 2 to 8 bits, not {self.bits}: half() and bfloat() have 16, Binary() one"
            )

    def build(self, w: Tensor) -> Quantised:
        """Return the filter for the weight ``w``, with the scale that suits it."""
        w, top = finite(w), (1 << (self.bits - 1)) - 1
        reach = self.reach(self.along.rows(w).abs(), top)
        scale = torch.where(reach > 0, reach / top, 1.0)
        # the smallest float whose quotients are finite; a weight below it rounds to zero
        return Quantised(self.along.spread(scale.clamp_min(1e-35), w), top)


class Rounded(Representation):
    """w rounded to a shorter floating-point type, and cut off at its largest number."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight in its own type, with the shorter type's values."""
        (w,) = latents
        most = torch.finfo(self.dtype).max
        value = w.detach().clamp(-most, most).to(self.dtype).to(w.dtype)
        return straight_through(w, value)

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the weight as it is: what is trained is not rounded."""
        return w


@dataclass(frozen=True)
class Cast:
    """Round a weight to a shorter floating-point type; see :func:`half` and :func:`bfloat`.

    The network still computes in its own type; the file holds the shorter numbers.
    """

    dtype: torch.dtype
    source: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.dtype.is_floating_point:
            raise WalnutError(f"Cast takes a floating-point type, not {self.dtype}: see Quantise")

    def build(self, w: Tensor) -> Rounded:
        """Return the filter."""
        finite(w)
        return Rounded(self.dtype)


def half() -> Cast:
    """Return the part that rounds to IEEE half precision: 11 bits of precision, up to 65504."""
    return Cast(torch.float16)


def bfloat() -> Cast:
    """Return the part that rounds to bfloat16: 8 bits of precision, the range of float32."""
    return Cast(torch.bfloat16)
