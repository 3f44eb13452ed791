"""The propose-and-accept loop: raise an objective by asking the network, without any gradient.

candidate ← project(propose(best, x0));  best ← candidate where its value is higher
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .constraints import box
from .draws import Draws
from .method import Value
from .objectives import misclassified
from .queried import whole
from .rows import Run
from .types import Adversarial, Constraint, Criterion, Model, Objective


@runtime_checkable
class Proposal(Protocol):
    """What to try next."""

    def __call__(self, best: Tensor, x0: Tensor, progress: Tensor, draws: Draws) -> Tensor:
        """Return a candidate (b, ...), given the best point so far; ``progress`` is in [0, 1)."""
        ...


@dataclass(frozen=True)
class far:
    """x0 + distance · N(0, 1), to be projected: noise on the rim of the constraint, not inside it.

    Projected on an L∞ ball it is ±eps in nearly every entry, on an L2 ball a random direction at
    radius eps: as long as what an attack adds.
    """

    distance: float = 1e3

    def __call__(self, best: Tensor, x0: Tensor, progress: Tensor, draws: Draws) -> Tensor:
        return x0 + self.distance * draws.normal(*x0.shape[1:], dtype=x0.dtype)


@dataclass(frozen=True)
class Queries:
    """What a query is (a :class:`walnut.core.method.Method`). State: best, its value, the candidate."""

    propose: Proposal
    constraint: Constraint

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> Any:
        """Return the example itself: the first query asks whether it is decided already."""
        return x0, torch.full_like(restart, float("-inf"), dtype=x0.dtype), x0

    def resume(self, state: Any, x: Tensor) -> Any:
        """Return the state of rows that begin at ``x``."""
        return x, state[1], x

    def point(self, state: Any) -> Tensor:
        """Return the candidate."""
        return state[2]

    def evaluate(self, value: Value, state: Any, draws: Draws) -> tuple[Tensor, None]:
        """Ask the network about the candidate."""
        with torch.no_grad():
            return value(state[2]), None

    def advance(
        self, state: Any, seen: None, values: Tensor, x0: Tensor, progress: Tensor, draws: Draws
    ) -> Any:
        """Accept what is better, row by row, and propose again."""
        best, best_value, candidate = state
        accept = values > best_value
        best = torch.where(accept.reshape(-1, *[1] * (best.ndim - 1)), candidate, best)
        best_value = torch.where(accept, values.to(best_value), best_value)
        proposed = self.propose(best, x0, progress, draws)
        return best, best_value, self.constraint.project(proposed, x0)


def search(
    model: Model,
    x: Float[Tensor, " n *d"],
    y: Tensor,
    *,
    objective: Objective,
    propose: Proposal,
    queries: int,
    constraint: Constraint = box(),
    criterion: Criterion = misclassified(),
    early_stop: bool = True,
    keep_best: bool = True,
    seed: int = 0,
    batch_size: int = 256,
    drop: bool = True,
    name: str = "",
    begin: Tensor | None = None,
) -> Adversarial:
    """Try ``queries`` candidates per example and return the best; see :func:`ascend` for the rest.

    Args:
        propose: what to try next, given the best so far.
        queries: candidates per example, ≥ 1; each costs one forward pass, after one
            for the example itself.
        begin: where each begins (n, ...), inside ``constraint``; the examples unless given.
    """
    run = Run(
        objective, criterion, queries, 1, begin is not None, early_stop, keep_best, seed, batch_size,
        drop, name,
    )  # fmt: skip
    return run(Queries(propose, constraint), model, x, whole(y), begin)
