"""What a stage of the cascade is: an attack, the rows it may have, and when it is worth running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from walnut.core.types import Adversarial, Attack, perturbation_norms

from .survey import Survey

Rows = Callable[[Survey], Int[Tensor, " m"]]
When = Callable[[Survey, "Suspicion"], str]


@dataclass(frozen=True, eq=False)
class Reached:
    """Where the stages before ended, in the place of an attack that others may begin after.

    Args:
        points: the best point so far of each row (n, ...); None before there are any.
    """

    points: Tensor | None = field(default=None, repr=False)

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Adversarial:
        """Return the points as what an attack found that broke nothing and cost nothing."""
        points = x if self.points is None else self.points
        none = torch.zeros_like(y, dtype=torch.int64)
        return Adversarial(
            points, none.bool(), y, none - 1, none, none, perturbation_norms(points, x), 0.0, repr(self), 0
        )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What the user asked for; every stage's attack is made from it.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: radius in input units.
        bounds: the box inputs live in.
        seed: of every draw.
        batch_size: rows at work at once.
        span: a range that inputs stay in where there is no box, for attacks that need one.
        reached: where the stages before ended on the rows at hand.
    """

    norm: Any
    eps: float
    bounds: tuple[float, float] | None = (0.0, 1.0)
    seed: int = 0
    batch_size: int = 512
    span: tuple[float, float] = (0.0, 1.0)
    reached: Reached = Reached()


@dataclass(frozen=True)
class Suspicion:
    """What is odd about the network before any attack: reasons to ask it without gradients."""

    reasons: tuple[str, ...] = ()
    gradients: bool = True


@dataclass(frozen=True)
class Stage:
    """One attack on some of the rows that still stand.

    Args:
        name: as it is called in tables.
        make: the attack for a setting.
        family: ``gradient``, ``query``, ``noise`` or ``transfer``.
        rows: which of the standing rows it has.
        when: the reason to run it, or "" to leave it out.
    """

    name: str
    make: Callable[[Setting], Attack]
    family: str = "gradient"
    rows: Rows = lambda survey: survey.standing
    when: When = lambda survey, suspicion: "always"
