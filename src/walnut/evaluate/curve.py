"""Accuracy against the radius, from one search for each example's smallest perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.attacks.bracket import bracket
from walnut.core.types import Attack

from .stages import Setting, Stage, Suspicion, gradients
from .survey import Survey

POINTS = 20


@dataclass(frozen=True)
class Curve:
    """Accuracy at 20 radii, evenly spaced up to twice the one asked for.

    Attributes:
        eps: the radii.
        accuracy: share of all examples that are right and for which no perturbation of at most that
            size is known; never rising.
        median: of the smallest known perturbations of the examples that were right; None where half of
            them or more have none.
        forward, backward: mean passes per example that the search took, beyond the verdict's.
    """

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    median: float | None
    forward: float
    backward: float

    def json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "eps": list(self.eps), "accuracy": list(self.accuracy), "median": self.median,
            "forward": self.forward, "backward": self.backward,
        }  # fmt: skip


def _nearest(steps: int) -> Any:
    def make(s: Setting) -> Attack:
        return bracket(
            norm=s.norm, steps=steps, bounds=s.bounds, seed=s.seed,
            batch_size=s.batch_size,
        )  # fmt: skip

    return make


def _soon(survey: Survey) -> Tensor:
    """Say which rows fell in the first two stages: their boundary is near and plain."""
    return (survey.fell_to >= 0) & (survey.fell_to <= 1)


def _easy(survey: Survey) -> Tensor:
    return _soon(survey).nonzero()[:, 0]


def _hard(survey: Survey) -> Tensor:
    return (survey.clean & ~_soon(survey)).nonzero()[:, 0]


def _wanted(survey: Survey, suspicion: Suspicion) -> str:
    return "the curve" if gradients(survey, suspicion) else ""


CURVE = (
    Stage("nearest, hard", _nearest(60), "minimal", _hard, _wanted),
    Stage("nearest, easy", _nearest(30), "minimal", _easy, _wanted),
)
"""A search on every example that the network gets right; what it breaks inside the ball counts as broken."""


def curve(survey: Survey, eps: float) -> Curve:
    """Read the curve off a survey after the stages of :data:`CURVE`."""
    radii = tuple(float(f"{2 * eps * (k + 1) / POINTS:.10g}") for k in range(POINTS))
    fallen = smallest(survey, eps)
    held = survey.clean
    shares = tuple(float((held & (fallen > radius)).double().mean()) for radius in radii)
    right = fallen[held].sort().values
    median = float(right[(len(right) - 1) // 2]) if len(right) else float("inf")
    spent = [s for s in survey.stages if s.family == "minimal"]
    n = max(len(survey.y), 1)
    return Curve(
        radii, shares, median if median < float("inf") else None,
        sum(s.forward for s in spent) / n, sum(s.backward for s in spent) / n,
    )  # fmt: skip


def smallest(survey: Survey, eps: float) -> Float[Tensor, " n"]:
    """Return the smallest radius at which each example is known to fall; inf where none is known.

    An example that stands is above ``eps`` and one that fell at most at it, whatever the rounding.
    """
    above = torch.nextafter(survey.radius.new_tensor(eps), survey.radius.new_tensor(float("inf")))
    fell = survey.fell_to >= 0
    return torch.where(
        fell, survey.radius.clamp(max=eps), survey.radius.clamp(min=float(above))
    ) * (survey.clean)
