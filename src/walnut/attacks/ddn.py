"""DDN: the direction of the gradient, and a radius that shrinks while the network is fooled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from walnut.core.constraints import l2
from walnut.core.directions import normalized
from walnut.core.method import Method
from walnut.core.objectives import cross_entropy
from walnut.core.objectives import targeted as towards
from walnut.core.types import Objective

from .approach import Approach, rows_like, size
from .minimal import MinimalAttack


@dataclass(frozen=True, kw_only=True, repr=False)
class ddn(MinimalAttack):
    """δ ← δ + α g/‖g‖₂; ε ← (1 ∓ γ) ε, less where fooled, more elsewhere; x̂ = clip(x + ε δ/‖δ‖₂).

    Decoupled direction and norm for L2 (Rony et al. 2019, Alg. 1), α falling as a cosine from 1 to 0.01.
    Where we differ: the first step goes to the nearest linearised boundary inside the box and sets ε;
    α is at most ε/2; the result is drawn towards the example by ``refine`` passes.

    Args:
        steps: each a forward and a backward pass.
        eps: radius to begin with, in input units, where the first step sets none.
        gamma: share by which the radius changes.
        candidates: classes of the largest logits to look at in the first step (0: as published).
        objective: whose gradient is the direction; the paper's by default.

    >>> from walnut.checks import check_attack
    >>> check_attack(ddn(steps=20))
    """

    steps: int = 100
    eps: float = 1.0
    gamma: float = 0.05
    candidates: int = 4
    objective: Objective = cross_entropy()
    norm: ClassVar[Any] = l2

    def method(self, x: Tensor, answers: Any) -> tuple[Method, int]:
        """Return the step, and how many there are."""
        goal = towards(self.objective) if self.targeted else self.objective
        return _Decoupled(
            l2, self.steps, self.bounds, self.mask, answers, 0.0,
            0 if self.targeted else self.candidates, self.eps, self.gamma, goal,
        ), self.steps  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Decoupled(Approach):
    eps: float = 1.0
    gamma: float = 0.05
    objective: Objective = cross_entropy()

    def begin(self, x0: Tensor) -> Tensor:
        """Return the radius of each row."""
        return torch.full_like(x0.flatten(1)[:, 0], self.eps)

    def enter(self, kept: Tensor, x0: Tensor, x: Tensor, first: Tensor) -> Tensor:
        """Begin with the radius of the step, where there was a slope."""
        length = size(x - x0, l2)
        return torch.where(first & (length > 0), length, kept)

    def slope(self, values: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of the objective, from the pass that gave the margin."""
        seen = self.answers
        return seen.gradients([self.objective(lambda _: seen.logits, x, seen.y)], x)[0]

    def move(
        self,
        x: Tensor,
        kept: Tensor,
        seen: Any,
        best: Any,
        values: Tensor,
        x0: Tensor,
        progress: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Step, and put the difference at the new radius."""
        grad, fooled = seen[:2]
        rate = 0.01 + 0.99 * (1 + torch.cos(math.pi * progress)) / 2
        rate = torch.minimum(rate, kept / 2)
        delta = (x - x0) + rows_like(rate, x) * normalized().update(grad, ())[0]
        radius = torch.where(fooled, kept * (1 - self.gamma), kept * (1 + self.gamma))
        length = rows_like(delta.flatten(1).norm(dim=1), x).clamp_min(1e-30)
        return self.clip(x0 + delta * (rows_like(radius, x) / length)), radius
