"""What every attack checks before it starts, in the caller's words."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core.constraints import box, intersection, l0, l1, l2, linf, region
from walnut.core.directions import Memoryless, chain, normalized, sign, sparse
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError, WalnutWarning
from walnut.core.types import Constraint, Direction, GradientEstimator

Norm = Callable[[float], Constraint]
"""A ball by its radius: the classes ``linf``, ``l2``, ``l1`` themselves."""

STEEPEST: dict[Any, Direction] = {
    linf: sign(),
    l2: normalized(),
    l1: sparse(),
}
"""The direction of steepest ascent under each norm."""


def check_mask(mask: Tensor | None) -> None:
    """Refuse a mask that is not bool."""
    if mask is not None and mask.dtype is not torch.bool:
        raise WalnutError(f"mask must be bool (the entries that may change), not {mask.dtype}")


def check_bounds(bounds: Any) -> None:
    """Refuse bounds that are not two numbers, the lower one first; None is for no box."""
    pair = isinstance(bounds, tuple | list) and len(bounds) == 2
    numbers = pair and all(isinstance(v, Real | Tensor) for v in bounds)
    if bounds is not None and not (numbers and bounds[0] < bounds[1]):
        raise WalnutError(
            f"bounds are two numbers, the lower one first, such as (0, 1), not {bounds!r}; None is for no box"
        )


def check_box(bounds: Any) -> None:
    """Refuse bounds that are no box: a picture made of nothing has to fill one."""
    check_bounds(bounds)
    if bounds is None:
        raise WalnutError("pictures made from nothing fill a box: give bounds=(lower, upper)")


def ball(
    norm: Norm, eps: float, bounds: tuple[float, float] | None, mask: Tensor | None = None
) -> Constraint:
    """Return the ball of radius ``eps`` in the entries of ``mask``, cut by the box ``bounds``.

    Args:
        bounds: None for no box.
        mask: bool, shaped like one example: the entries that may change; None for all. It comes first,
            so that no part of an L2, L1 or L0 radius is spent on entries that are put back.
    """
    check_mask(mask)
    check_bounds(bounds)
    inside: tuple[Constraint, ...] = () if mask is None else (region(mask),)
    if bounds is None:
        return intersection((*inside, norm(eps))) if inside else norm(eps)
    if norm is l0:  # last: an entry that the box holds where it is would count as changed
        return intersection((*inside, box(*bounds), norm(eps)))
    width = bounds[1] - bounds[0]
    if norm is linf and eps > width:
        raise WalnutError(
            f"eps is {eps:g}, but inputs span only {bounds[0]:g} to {bounds[1]:g}; "
            f"eps is in input units: for 8-bit images write {eps:g}/255 = {eps / 255:.4g}"
        )
    return intersection((*inside, norm(eps), box(*bounds)))


@dataclass(frozen=True, eq=False)
class within(Memoryless):
    """The gradient in the entries of ``mask``, so that a step is not spent on the others."""

    mask: Tensor = field(repr=False)

    def update(
        self, grad: Float[Tensor, " b *d"], state: Any
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """Return it, zero elsewhere."""
        return torch.where(self.mask.to(grad.device), grad, torch.zeros_like(grad)), state


@dataclass(frozen=True, eq=False)
class masked:
    """A gradient estimator whose answer is zero outside ``mask``."""

    gradient: GradientEstimator
    mask: Tensor = field(repr=False)

    def __call__(self, value: Any, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return values and the gradient."""
        values, grad = self.gradient(value, x, draws)
        return values, within(self.mask).update(grad, ())[0]


@dataclass(frozen=True)
class few(Memoryless):
    """The signs of the ``count`` entries of largest gradient: steepest ascent under L0."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise WalnutError("under l0 eps is how many entries may change, 1 or more")

    def update(
        self, grad: Float[Tensor, " b *d"], state: Any
    ) -> tuple[Float[Tensor, " b *d"], Any]:
        """Return the step, of length 1 in each entry that moves."""
        flat = grad.flatten(1)
        top = flat.abs().topk(min(self.count, flat.shape[1]), dim=1).indices
        step = torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign())
        return step.reshape(grad.shape), state


def steepest(norm: Norm, mask: Tensor | None = None) -> Direction:
    """Return the steepest-ascent direction of a norm, in the entries of ``mask``."""
    if norm not in STEEPEST:
        raise WalnutError(
            f"norm must be one of linf, l2, l1, not {getattr(norm, '__name__', norm)}"
        )
    return into(STEEPEST[norm], mask)


def into(direction: Direction, mask: Tensor | None) -> Direction:
    """Return a direction in the entries of ``mask``, whatever the gradient is in the others."""
    check_mask(mask)
    return direction if mask is None else chain((within(mask), direction))


def prepare(model: Any, x: Tensor, constraint: Constraint) -> None:
    """Check that inputs lie where the constraint expects them, and warn about a mode that is odd.

    Raises:
        WalnutError: inputs outside the box (0..255 in place of 0..1, say), not floats, not finite,
            or a radius larger than the box.
    """
    if not x.is_floating_point():
        raise WalnutError(
            f"x holds {str(x.dtype).removeprefix('torch.')}; walnut's attacks work on floats in "
            "[0, 1]: use x.float() / 255"
        )
    parts = constraint.parts if isinstance(constraint, intersection) else (constraint,)
    limits = [part for part in parts if isinstance(part, box)]
    if len(x) and not bool(x.isfinite().all()):
        raise WalnutError("x holds NaN or infinite values; clean the data first")
    for limit in limits:
        _check_box(x, limit)
        for part in parts:
            _check_radius(x, part, limit.upper - limit.lower)
    if isinstance(model, nn.Module) and model.training:
        warnings.warn(
            "the network is in train mode (dropout on, batch norm moving); it is attacked in eval "
            "mode and put back afterwards: call model.eval() before you measure",
            WalnutWarning,
            stacklevel=4,
        )


def _check_box(x: Tensor, limit: box) -> None:
    if len(x) == 0 or bool(limit.contains(x, x).all()):
        return
    low, high = float(x.min()), float(x.max())
    advice = "divide by 255" if low >= 0 and 1 < high <= 255 else "give bounds=(lower, upper)"
    if low < 0 and limit.lower == 0:
        advice = "undo the normalisation (it belongs inside the network), or " + advice
    raise WalnutError(
        f"x is {low:g}..{high:g}; walnut's attacks work in [{limit.lower:g}, {limit.upper:g}]: {advice}"
    )


def _check_radius(x: Tensor, part: Constraint, width: float) -> None:
    if len(x) == 0 or not isinstance(part, (l2, l1)):
        return
    d = x[0].numel()
    largest = width * (d**0.5 if isinstance(part, l2) else d)
    if part.eps > largest:
        raise WalnutError(
            f"eps is {part.eps:g}, but no two inputs are further apart than {largest:g} in this norm; "
            "eps is in input units of [0, 1]"
        )
