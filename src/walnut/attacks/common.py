"""What every attack checks before it starts, in the caller's words."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from walnut.core.constraints import box, intersection, l1, l2, linf
from walnut.core.directions import normalized, sign, sparse
from walnut.core.errors import WalnutError, WalnutWarning
from walnut.core.types import Constraint, Direction

Norm = Callable[[float], Constraint]
"""A ball by its radius: the classes ``linf``, ``l2``, ``l1`` themselves."""

STEEPEST: dict[Any, Direction] = {
    linf: sign(),
    l2: normalized(),
    l1: sparse(),
}
"""The direction of steepest ascent under each norm."""


def ball(norm: Norm, eps: float, bounds: tuple[float, float] | None) -> Constraint:
    """Return the ball of radius ``eps`` cut by the box ``bounds`` (None: the ball alone)."""
    if bounds is None:
        return norm(eps)
    width = bounds[1] - bounds[0]
    if norm is linf and eps > width:
        raise WalnutError(
            f"eps is {eps:g}, but inputs span only {bounds[0]:g} to {bounds[1]:g}; "
            f"eps is in input units: for 8-bit images write {eps:g}/255 = {eps / 255:.4g}"
        )
    return intersection((norm(eps), box(*bounds)))


def steepest(norm: Norm) -> Direction:
    """Return the steepest-ascent direction of a norm."""
    if norm not in STEEPEST:
        raise WalnutError(f"norm must be one of linf, l2, l1, not {norm!r}")
    return STEEPEST[norm]


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
