"""Accuracy against the radius, from one search for each example's smallest perturbation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.constraints import l1
from walnut.core.types import Attack

from .cascade import Cascade
from .descent import Descent, inside
from .probes import ROWS
from .stage import Setting, Stage, Suspicion
from .stages import climb, gradients, hops
from .survey import Survey

POINTS = 20
# the attacks at a radius and the shares that have them, chosen on the networks named ``tune-``
_BEYOND = ((climb(8, onwards=True), 1.0), (climb(10, 2, scout=3, skip=1), 0.6), (hops(3, 10), 0.25))
_WITHIN = ((climb(10, onwards=True), 1.0), (climb(8, 1, scout=2, skip=1), 0.5))
_NEAR = 1.25  # of a radius: what falls within this is in doubt at the radius itself


@dataclass(frozen=True)
class Check:
    """Examples that the curve counts as right at a radius, attacked there at greater length.

    Attributes:
        eps: the radius, the one at which most examples stand that fall a little further out.
        tried, fell: how many examples were attacked, and how many of them fell.
        excess: share of all examples by which the curve is too high there, going by that sample.
    """

    eps: float
    tried: int
    fell: int
    excess: float


@dataclass(frozen=True)
class Curve:
    """Accuracy at 20 radii, evenly spaced up to twice the one asked for.

    Only at the radius asked for has every stage been run. At each other radius an example that counts as
    right has stood a short attack there, or at a larger one: an upper bound, and ``check`` says how far
    above the truth it may be where it is most in doubt.

    Attributes:
        eps: the radii.
        accuracy: share of all examples that are right and for which no perturbation of at most that
            size is known; never rising.
        median: of the smallest known perturbations of the examples that were right; None where half of
            them or more have none.
        forward, backward: mean passes per example that the search took, beyond the verdict's.
        check: a second look; None where no radius has examples in doubt.
    """

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    median: float | None
    forward: float
    backward: float
    check: Check | None = None

    def json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "eps": list(self.eps), "accuracy": list(self.accuracy), "median": self.median,
            "forward": self.forward, "backward": self.backward,
            "check": None if self.check is None else asdict(self.check),
        }  # fmt: skip


def grid(eps: float) -> tuple[float, ...]:
    """Return the radii of the curve."""
    return tuple(float(f"{2 * eps * (k + 1) / POINTS:.10g}") for k in range(POINTS))


def _search(beyond: bool) -> Callable[[Setting], Attack]:
    """Return the search among the radii above the one asked for, or below it."""

    def make(s: Setting) -> Attack:
        radii = tuple(r for r in grid(s.eps) if (r > s.eps if beyond else r < s.eps))
        tries = _BEYOND if beyond else _WITHIN
        if s.norm is l1:  # climbs do not go on there: hops do
            tries = ((hops(1, 8), 1.0), *tries[1:])
        return Descent(
            setting=s, tries=tries, radii=radii, norm=s.norm, bounds=s.bounds,
            seed=s.seed, batch_size=s.batch_size,
        )  # fmt: skip

    return make


def _fallen(survey: Survey) -> Int[Tensor, " m"]:
    return (survey.fell_to >= 0).nonzero()[:, 0]


def _wanted(survey: Survey, suspicion: Suspicion) -> str:
    return "the curve" if gradients(survey, suspicion) else ""


CURVE = (
    Stage("nearest, standing", _search(True), "minimal", when=_wanted),
    Stage("nearest, fallen", _search(False), "minimal", _fallen, _wanted),
)
"""A search on every example that the network gets right; what it breaks inside the ball counts as broken."""


def curve(survey: Survey, eps: float, check: Check | None = None) -> Curve:
    """Read the curve off a survey after the stages of :data:`CURVE`."""
    radii, fallen, held = grid(eps), smallest(survey, eps), survey.clean
    shares = tuple(float((held & (fallen > radius)).double().mean()) for radius in radii)
    right = fallen[held].sort().values
    median = float(right[(len(right) - 1) // 2]) if len(right) else float("inf")
    spent = [s for s in survey.stages if s.family == "minimal"]
    n = max(len(survey.y), 1)
    return Curve(
        radii, shares, median if median < float("inf") else None,
        sum(s.forward for s in spent) / n, sum(s.backward for s in spent) / n, check,
    )  # fmt: skip


def checked(cascade: Cascade) -> Check | None:
    """Attack a sample of what the curve counts as right, at the radius where most is in doubt.

    What falls counts: its radius is that of what was found.
    """
    survey, eps = cascade.survey, cascade.setting.eps
    known = smallest(survey, eps)
    beside = [r for r in grid(eps) if r != eps]
    doubted = [((known > r) & (known <= _NEAR * r)).nonzero()[:, 0] for r in beside]
    if not any(len(rows) for rows in doubted):
        return None
    radius, rows = max(zip(beside, doubted, strict=True), key=lambda at: len(at[1]))
    count = min(ROWS, len(rows))
    some = rows[torch.arange(count, device=rows.device) * len(rows) // count]
    longer = climb(30, 2, scout=6, skip=1, seed=6)
    cascade.stage(
        Stage("nearest, checked", lambda s: longer(replace(s, eps=inside(radius))), "minimal"), some,
        f"the curve at {radius:.4g}",
    )  # fmt: skip
    fell = int((smallest(survey, eps)[some] <= radius).sum())
    return Check(radius, len(some), fell, fell / len(some) * len(rows) / len(survey.y))


def smallest(survey: Survey, eps: float) -> Float[Tensor, " n"]:
    """Return the smallest radius at which each example is known to fall; inf where none is known.

    An example that stands is above ``eps`` and one that fell at most at it, whatever the rounding.
    """
    above = torch.nextafter(survey.radius.new_tensor(eps), survey.radius.new_tensor(float("inf")))
    fell = survey.fell_to >= 0
    return torch.where(
        fell, survey.radius.clamp(max=eps), survey.radius.clamp(min=float(above))
    ) * (survey.clean)
