"""Basin hopping: climbs that begin near the best point so far, not at the example."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from walnut.core.constraints import l1, l2, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.gradients import input_gradient
from walnut.core.objectives import margin, misclassified
from walnut.core.queried import whole
from walnut.core.rows import Run
from walnut.core.types import Adversarial, Attack, Constraint, Direction, Model, Objective

from .approach import rows_like
from .common import Norm, ball, prepare, steepest
from .relay import Search, relay

Bounds = tuple[float, float] | None


class _State(NamedTuple):
    z: Tensor
    made: Int[Tensor, " b"]  # steps
    top: Tensor  # the best point so far
    height: Float[Tensor, " b"]  # the objective there


@dataclass(frozen=True, eq=False)
class _Hopping:
    """A step of basin hopping (a :class:`walnut.core.method.Method`): climb, or hop."""

    attack: BasinHopping

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> _State:
        """Return the example itself: the first step is a hop, which tells restarts apart."""
        low = torch.full_like(restart, float("-inf"), dtype=x0.dtype)
        return _State(x0, torch.zeros_like(restart), x0, low)

    def resume(self, state: Any, x: Tensor) -> _State:
        """Return the state at ``x``."""
        return _State(*state)._replace(z=x)

    def point(self, state: Any) -> Tensor:
        """Return the input."""
        return state[0]

    def evaluate(self, value: Any, state: Any, draws: Draws) -> tuple[Tensor, Any]:
        """Return the objective's values and its gradient."""
        x = state[0].detach().requires_grad_()
        values = value(x)
        return values.detach(), input_gradient(values, x)

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Draws
    ) -> _State:
        """Note the point if it is the best; then hop from the best, or climb on."""
        state, attack = _State(*state), self.attack
        higher = values > state.height
        top = torch.where(rows_like(higher, x0), state.z, state.top)
        height = torch.where(higher, values, state.height)
        at = state.made % attack.steps  # 0: a hop; then a climb
        share = (at - 1).clamp_min(0).to(x0.dtype) / max(attack.steps - 1, 1)
        size = attack.peak * attack.eps * (1 + torch.cos(torch.pi * share)) / 2
        step, _ = attack.direction.update(seen, attack.direction.init(seen))
        z = attack.constraint.project(state.z + rows_like(size, x0) * step, x0)
        hops = at == 0
        if bool(hops.any()):
            z = torch.where(rows_like(hops, x0), self._hop(top, x0, draws), z)
        return _State(z, state.made + 1, top, height)

    def _hop(self, x: Tensor, x0: Tensor, draws: Draws) -> Tensor:
        """Return project(x + reach · eps · direction(u)), u random in some of the entries."""
        direction = self.attack.direction
        lot = draws.uniform(*x.shape[1:])
        least = rows_like(lot.flatten(1).amin(1), lot)  # one entry at least
        u = (draws.normal(*x.shape[1:]) * ((lot < self.attack.share) | (lot == least))).to(x)
        way, _ = direction.update(u, direction.init(u))
        return self.attack.constraint.project(x + self.attack.reach * self.attack.eps * way, x0)


@dataclass(frozen=True)
class BasinHopping:
    """Basin hopping put together: call it with ``(model, x, y)``; see :func:`basin_hopping`."""

    eps: float
    constraint: Constraint
    direction: Direction
    steps: int
    hops: int
    restarts: int
    objective: Objective
    peak: float
    reach: float
    share: float
    first: Attack | None = None
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.steps, self.hops, self.restarts) < 1:
            raise WalnutError("basin_hopping needs steps, hops and restarts of at least 1")
        if not 0 < self.share <= 1:
            raise WalnutError(f"share is of the entries, above 0 and at most 1, not {self.share:g}")

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels ``y`` (n,)."""
        prepare(model, x, self.constraint)
        y = whole(y)
        run = Run(
            self.objective, misclassified(), self.steps * self.hops, self.restarts,
            self.first is not None, True, True, self.seed, self.batch_size, self.drop, repr(self),
        )  # fmt: skip
        search: Search = partial(run, _Hopping(self))
        return relay(self, search, model, x, y)


def basin_hopping(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 20,
    hops: int = 32,
    restarts: int = 1,
    objective: Objective = margin(),
    peak: float = 1.0,
    reach: float | None = None,
    share: float | None = None,
    first: Attack | None = None,
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> BasinHopping:
    """Climb, hop away from the best point so far, climb again: for examples that nearly fell.

        climbing:  x ← project(x + peak · eps (1 + cos πt)/2 · direction(∇ₓ objective))    t from 0 to 1
        hopping:   x ← project(x* + reach · eps · direction(u))          x* the best point yet, u normal in a
                                                                         share of the entries, else 0

    Basin hopping (Wales & Doye 1997, J. Phys. Chem. A 101, §II) in the ball of an attack: the hop is taken
    from the best point and not from where the last climb ended (their temperature is zero), and a climb is
    a short projected gradient ascent. Where an example stands by a hair, the way that is left lies near
    the best point more often than near a new random start.

    Args:
        eps: radius in input units.
        norm: ``linf``, ``l2`` or ``l1``.
        steps: of a hop and the climb that follows it.
        hops: climbs of a run.
        restarts: runs per example, the later ones only where the earlier failed.
        objective: what to climb.
        peak: the largest step, in eps.
        reach: of a hop, in eps; 2 in L∞, where the entries that move go to the ends of the ball, 1.5 in L2
            and 1 in L1.
        share: of the entries that a hop moves, 0.3 in L∞ and else 0.05. A hop that moves them all is the
            worse one: what made the best point good is gone.
        first: an attack with the same goal to run before. Where it failed, or went farther than ``eps``,
            the first hop is taken from its best point, drawn into the ball, and not from the example.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(4, 3).eval()
    >>> found = basin_hopping(0.2, steps=5, hops=3)(net, torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> bool((found.norms["linf"] <= 0.2 + 1e-6).all())
    True
    """
    if norm not in (linf, l2, l1):
        raise WalnutError(f"norm must be one of linf, l2, l1, not {norm!r}")
    reach = {linf: 2.0, l2: 1.5, l1: 1.0}[norm] if reach is None else reach
    share = (0.3 if norm is linf else 0.05) if share is None else share
    return BasinHopping(
        eps, ball(norm, eps, bounds, mask), steepest(norm, mask), steps, hops, restarts, objective, peak,
        reach, share, first, seed, batch_size,
    )  # fmt: skip
