"""Constraints: the set around a clean example that an attack may use.

``project`` returns the nearest point of the set in L2 (L0: a nearest point), except for
:class:`intersection`, which applies its parts in order: a ball, then the box, is always inside both,
but is not the nearest point of their intersection.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .draws import Draws
from .errors import WalnutError
from .types import Constraint

_SLACK = 1e-5  # float32: x0 + (x - x0) is off by an ulp of 1, summed over an example's entries


def measured(
    x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"], order: float
) -> Float[Tensor, " b"]:
    """Return how long x − x0 was made at least, in float64: an ulp of every entry of ``x`` is rounding.

    ‖max(|x − x0| − ε |x|, 0)‖, ε the precision of the type: in float32 the rounding is 2e-5 at a level of
    200, and 1e-7 in [0, 1].
    """
    x, x0 = x.detach().flatten(1), x0.detach().flatten(1)
    delta = (x - x0).abs_().sub_(x.abs(), alpha=torch.finfo(x.dtype).eps).clamp_min_(0)
    return torch.linalg.vector_norm(delta, order, dim=1, dtype=torch.float64)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _check_eps(eps: float) -> None:
    if not eps >= 0 or eps == float("inf"):
        raise WalnutError(f"eps is a radius in input units, 0 or more, not {eps}")


def _noise(x0: Tensor, draws: Draws) -> Tensor:
    return draws.normal(*x0.shape[1:], dtype=x0.dtype)


@dataclass(frozen=True)
class linf:
    """‖x − x0‖∞ ≤ eps. ``eps`` is in input units: 8/255 for 8-bit images in [0, 1]."""

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Clip the difference."""
        return (x - x0).clamp_(-self.eps, self.eps).add_(x0)

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Return a point uniform in the cube."""
        return x0 + self.eps * (2 * draws.uniform(*x0.shape[1:], dtype=x0.dtype) - 1)

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Compare the largest entry."""
        return measured(x, x0, float("inf")) <= self.eps + _SLACK


@dataclass(frozen=True)
class l2:
    """‖x − x0‖₂ ≤ eps."""

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Scale the difference down to length eps where it is longer."""
        delta = x - x0
        length = _rows(delta.flatten(1).norm(dim=1), x)
        return x0 + delta * (self.eps / length.clamp_min(1e-30)).clamp_max(1.0)

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Return a point uniform in the ball: a normal direction at radius eps · u^(1/d)."""
        direction = _noise(x0, draws)
        length = _rows(direction.flatten(1).norm(dim=1), x0)
        radius = draws.uniform(1, dtype=x0.dtype)[:, 0] ** (1.0 / max(direction[0].numel(), 1))
        return x0 + direction / length.clamp_min(1e-30) * _rows(self.eps * radius, x0)

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Compare the Euclidean length."""
        return measured(x, x0, 2) <= self.eps * (1 + _SLACK) + _SLACK


@dataclass(frozen=True)
class l1:
    """‖x − x0‖₁ ≤ eps, with the true Euclidean projection (a rescale is not one)."""

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Shrink every entry by the same amount, found by sorting (Duchi et al. 2008, Fig. 1)."""
        delta = (x - x0).flatten(1)
        size = delta.abs()
        falling = size.sort(dim=1, descending=True).values
        count = torch.arange(1, size.shape[1] + 1, dtype=size.dtype, device=size.device)
        threshold = (falling.cumsum(1) - self.eps) / count
        kept = (falling > threshold).sum(1, keepdim=True).clamp_min(1)
        shrink = threshold.gather(1, kept - 1).clamp_min(0)
        inside = size.sum(1, keepdim=True) <= self.eps
        projected = delta.sign() * (size - shrink).clamp_min(0)
        return x0 + torch.where(inside, delta, projected).reshape(x.shape)

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Return a point uniform in the ball: d + 1 exponentials, normalized, with random signs."""
        d = x0[0].numel()
        weight = -torch.log1p(-draws.uniform(d + 1))
        share = weight[:, :d] / weight.sum(1, keepdim=True)
        signs = 2.0 * draws.integers(2, d) - 1.0
        return x0 + (self.eps * share * signs).to(x0.dtype).reshape(x0.shape)

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Compare the sum of absolute differences."""
        return measured(x, x0, 1) <= self.eps * (1 + _SLACK) + 10 * _SLACK


@dataclass(frozen=True)
class l0:
    """At most ``eps`` entries differ from x0 (entries, not pixels: a grey pixel is one entry)."""

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def _count(self, x: Tensor) -> int:
        return min(int(self.eps), x.shape[1:].numel())  # there may be no rows

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Keep the largest differences."""
        delta = (x - x0).flatten(1)
        top = delta.abs().topk(self._count(x), dim=1).indices
        kept = torch.zeros_like(delta).scatter(1, top, delta.gather(1, top))
        return torch.where(kept.reshape(x.shape) != 0, x, x0)

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Change ``eps`` random entries by up to 1 either way."""
        d = x0[0].numel()
        chosen = draws.uniform(d).topk(self._count(x0), dim=1).indices
        change = 2 * draws.uniform(d, dtype=x0.dtype) - 1
        delta = torch.zeros_like(change).scatter(1, chosen, change.gather(1, chosen))
        return x0 + delta.reshape(x0.shape)

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Count the entries that differ."""
        return (x != x0).flatten(1).sum(1) <= int(self.eps)


@dataclass(frozen=True)
class box:
    """lower ≤ x ≤ upper in every entry; [0, 1] unless given."""

    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise WalnutError(f"box() needs lower < upper, not {self.lower} and {self.upper}")

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Clip each entry."""
        return x.clamp(self.lower, self.upper)

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Return a point uniform in the box."""
        u = draws.uniform(*x0.shape[1:], dtype=x0.dtype)
        return self.lower + (self.upper - self.lower) * u

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Compare the smallest and the largest entry."""
        flat = x.flatten(1)
        return (flat.amin(1) >= self.lower - _SLACK) & (flat.amax(1) <= self.upper + _SLACK)


@dataclass(frozen=True)
class unconstrained:
    """Every point: for variables that paint their own limits, such as ``tanh_box``."""

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Return ``x``."""
        return x

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Return ``x0`` with standard normal noise."""
        return x0 + _noise(x0, draws)

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Say yes."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)


@dataclass(frozen=True, eq=False)
class region:
    """Only entries where ``mask`` is true may differ from x0.

    Args:
        mask: bool, shaped like one example or broadcasting to it.
    """

    mask: Bool[Tensor, " *d"] = field(repr=False)

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Put the other entries back."""
        return torch.where(self.mask.to(x.device), x, x0)

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Return x0 with standard normal noise in the region."""
        return self.project(x0 + _noise(x0, draws), x0)

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Say whether everything outside the region is untouched."""
        return ((x == x0) | self.mask.to(x.device)).flatten(1).all(1)


@dataclass(frozen=True)
class intersection:
    """All of ``parts``, applied in the order given: put the ball first and the box last.

    A sample is one of the first part, projected through the others.
    """

    parts: tuple[Constraint, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise WalnutError("intersection() needs at least one constraint")

    def project(self, x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"]) -> Tensor:
        """Project through the parts in order."""
        for part in self.parts:
            x = part.project(x, x0)
        return x

    def sample(self, x0: Float[Tensor, " b *d"], draws: Draws) -> Tensor:
        """Return a point in all parts."""
        return self.project(self.parts[0].sample(x0, draws), x0)

    def contains(self, x: Tensor, x0: Tensor) -> Bool[Tensor, " b"]:
        """Ask every part."""
        return torch.stack([part.contains(x, x0) for part in self.parts]).all(0)
