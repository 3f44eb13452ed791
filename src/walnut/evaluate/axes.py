"""Directions in the input space, one per example: an attack's, or random ones.

An axis is a callable ``(model, x, y) -> perturbation`` shaped like ``x``: :class:`along` an attack,
:class:`random_signs`, :class:`random_normal`, or a function of your own. Lengths are set by :func:`units`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from walnut.core.constraints import l2, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.types import Attack, Constraint

Axis = Callable[[Any, Tensor, Tensor], Tensor]
"""``(model, x, y) -> perturbation``, shaped like ``x``, of any length but zero."""

Norm = Callable[[float], Constraint]
"""``linf`` or ``l2``: what a distance along an axis is measured in."""


@dataclass(frozen=True)
class along:
    """The direction in which an attack moves each example.

    Args:
        attack: ``(model, x, y) -> Adversarial``. One that moves every example, as :func:`fgsm` does
            and others with ``early_stop=False``, has a direction for wrong ones as well.
        on: the network to attack, where it is not the one that is looked at (a tree, say).
    """

    attack: Attack
    on: Any = field(default=None, repr=False, compare=False)

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.attack(model if self.on is None else self.on, x, y).x - x


@dataclass(frozen=True)
class random_signs:
    """±1 in every entry, by each example's own draws: as long as a sign step in every norm."""

    seed: int = 0

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        return (2.0 * Draws.of(x, self.seed).integers(2, *x.shape[1:]) - 1.0).to(x.dtype)


@dataclass(frozen=True)
class random_normal:
    """A direction uniform on the sphere, by each example's own draws."""

    seed: int = 0

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        return Draws.of(x, self.seed).normal(*x.shape[1:], dtype=x.dtype)


def units(
    model: Any, x: Tensor, y: Tensor, axes: tuple[Axis, ...], norm: Norm, *, apart: bool
) -> list[Tensor]:
    """Return the axes' directions: the first of length 1 in ``norm``, the others as long as it in L2.

    Args:
        model, x, y: what the axes are called with.
        apart: take from each direction its part along earlier ones, so that all are orthogonal.

    Raises:
        WalnutError: an axis that moves an example nowhere, or only along earlier ones.
    """
    if norm is not linf and norm is not l2:
        raise WalnutError(f"norm must be linf or l2, not {norm!r}")
    found: list[Tensor] = []
    for axis in axes:
        d = axis(model, x, y).detach().flatten(1).to(x.dtype)
        whole = d.norm(dim=1, keepdim=True)
        if apart:
            for other in found:
                d = d - other * ((d * other).sum(1) / other.square().sum(1))[:, None]
        length = d.norm(dim=1, keepdim=True)
        flat = (length <= 1e-4 * whole)[:, 0].nonzero()[:, 0]
        if len(flat):
            raise WalnutError(
                _no_direction(axis, int(flat[0]), len(flat), bool(whole[flat[0]] > 0))
            )
        if found:
            wanted = found[0].norm(dim=1, keepdim=True)
        else:
            wanted = length / (d.abs().amax(1, keepdim=True) if norm is linf else length)
        found.append(d / length * wanted)
    return [d.reshape(x.shape) for d in found]


def _no_direction(axis: Axis, row: int, count: int, parallel: bool) -> str:
    if parallel:
        return (
            f"{axis!r} runs along an earlier axis on {count} examples (the first is {row}): "
            "they span no plane; choose another second axis"
        )
    return (
        f"{axis!r} leaves {count} examples where they are (the first is {row}): choose examples the "
        "network gets right, or an attack with early_stop=False"
    )
