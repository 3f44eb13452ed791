"""Steps that look after their own size: what a step of Auto-PGD is (Croce & Hein 2020, 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .constraints import box, intersection
from .draws import Draws
from .gradients import plain
from .method import Value
from .types import Constraint, Direction, GradientEstimator


class Memory(NamedTuple):
    """What a row knows of its climb; the batch comes first in each."""

    z: Tensor
    before: Tensor  # the point before z
    best_z: Tensor
    best_grad: Tensor
    best: Tensor  # (b,) value at best_z
    last: Tensor  # (b,) value before this one
    rises: Tensor  # (b,) steps since the last checkpoint that raised the value
    size: Tensor  # (b,) step size in input units
    best_then: Tensor  # (b,) best at the last checkpoint
    halved: Tensor  # (b,) bool: the step was halved at the last checkpoint
    share: Tensor  # (b,) L1: share of the entries that move
    changed: Tensor  # (b,) L1: share of the entries that best_z changed at the last checkpoint


def _choose(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.reshape(-1, *[1] * (no.ndim - 1)), yes, no)


@lru_cache(maxsize=64)
def checkpoints(steps: int) -> Int[Tensor, " steps_and_one"]:
    """Return, per step, how many steps ago the last checkpoint was if this one is due, else 0.

    Periods of 22 % of the steps, each 3 % shorter than the last, never below 6 % (§3.1).
    """
    due = torch.zeros(steps + 1, dtype=torch.int64)
    period, at = max(int(0.22 * steps), 1), 0
    while at + period <= steps:
        at += period
        due[at] = period
        period = max(period - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return due


@dataclass(frozen=True)
class Adaptive:
    """What a step of Auto-PGD is (a :class:`walnut.core.method.Method`), for L∞ and L2.

        z  = project(x_k + η · direction(∇J(x_k)))
        x_{k+1} = project(x_k + α(z − x_k) + (1 − α)(x_k − x_{k−1})),   α = momentum, 1 at first

    η starts at 2·eps. At a checkpoint a row halves η and goes back to its best point if fewer than
    ``rho`` of the steps since the last raised J, or if neither η nor the best J changed (Eq. 1-2).

    Where we differ: a rise smaller than rounding is none, so that what a row does is not decided by
    its neighbours in the batch; like the authors' code, a row at exactly ``rho`` is halved too.
    """

    eps: float
    steps: int
    constraint: Constraint
    direction: Direction
    gradient: GradientEstimator = plain()
    momentum: float = 0.75
    rho: float = 0.75
    random_start: bool = True

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> Memory:
        """Return a random point of the constraint, and nothing seen yet."""
        z = self._first(x0, draws)
        z = _choose((restart > 0) | self.random_start, z, x0)
        low = torch.full_like(restart, float("-inf"), dtype=x0.dtype)
        size, none = torch.full_like(low, 2 * self.eps), torch.zeros_like(low)
        return Memory(
            z, z, z, torch.zeros_like(z), low, low, none, size, low,
            torch.ones_like(restart, dtype=torch.bool), none + 0.2, none + 1.0,
        )  # fmt: skip

    def _first(self, x0: Tensor, draws: Draws) -> Tensor:
        return self.constraint.sample(x0, draws)

    def point(self, state: Memory) -> Tensor:
        """Return the input."""
        return state.z

    def evaluate(self, value: Value, state: Memory, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return values and the gradient."""
        return self.gradient(value, state.z, draws)

    def advance(
        self, state: Any, seen: Tensor, values: Tensor, x0: Tensor, progress: Tensor, draws: Draws
    ) -> Memory:
        """Remember, look back if a checkpoint is due, and step."""
        step = (progress * self.steps).round().long()
        state = _remember(state, seen, values, step)
        state, back = self._look_back(state, self._due(step), x0)
        grad = _choose(back, state.best_grad, seen)
        moved = self._move(state, grad, x0, step == 0)
        return state._replace(z=moved, before=state.z)

    def _due(self, step: Tensor) -> Tensor:
        return checkpoints(self.steps).to(step.device)[step]

    def _look_back(self, state: Memory, period: Tensor, x0: Tensor) -> tuple[Memory, Tensor]:
        due = period > 0
        idle = ~state.halved & ~_above(state.best, state.best_then)
        cut = due & (idle | (state.rises <= self.rho * period))
        return state._replace(
            z=_choose(cut, state.best_z, state.z),
            size=torch.where(cut, state.size / 2, state.size),
            rises=torch.where(due, torch.zeros_like(state.rises), state.rises),
            best_then=torch.where(due, state.best, state.best_then),
            halved=torch.where(due, cut, state.halved),
        ), cut

    def _move(self, state: Memory, grad: Tensor, x0: Tensor, first: Tensor) -> Tensor:
        z, project = state.z, self.constraint.project
        wide = [-1, *[1] * (z.ndim - 1)]
        stepped = project(z + state.size.reshape(wide) * self.direction.update(grad, ())[0], x0)
        a = torch.where(first, 1.0, self.momentum).to(z.dtype).reshape(wide)
        return project(z + a * (stepped - z) + (1 - a) * (z - state.before), x0)


def _above(values: Tensor, before: Tensor) -> Bool[Tensor, " b"]:
    """Say where a value rose by more than rounding."""
    slack = 64 * torch.finfo(values.dtype).eps * before.abs()
    return values > before + torch.where(slack.isfinite(), slack, 0.0)


def _remember(state: Memory, grad: Tensor, values: Tensor, step: Tensor) -> Memory:
    values, first = values.to(state.best), step == 0
    better = values > state.best
    return state._replace(
        best_z=_choose(better, state.z, state.best_z),
        best_grad=_choose(better, grad, state.best_grad),
        best=torch.where(better, values, state.best),
        last=values,
        rises=state.rises + (_above(values, state.last) & ~first),
        best_then=torch.where(first, values, state.best_then),
    )


@dataclass(frozen=True)
class AdaptiveSparse(Adaptive):
    """The step of Auto-PGD under L1 (Croce & Hein 2021, Alg. 1): few entries move, fewer as it goes.

    The ``share`` of entries of largest gradient move by ±1 at unit L1 length, without momentum; the
    projection is the exact one onto the ball cut by the box. At each checkpoint (every 4 % of the
    steps) the share becomes the best point's share of changed entries / 1.5; where that fell by
    5 % the step grows back to eps and the row goes back to its best point, else it shrinks by 1.5.

    Where we differ: the authors start with larger balls and shrink them, here the ball stays; the share
    of d entries is rounded down, so that in few dimensions too it comes to one entry.
    """

    def _first(self, x0: Tensor, draws: Draws) -> Tensor:
        return self._project(x0 + draws.normal(*x0.shape[1:], dtype=x0.dtype), x0)

    def _project(self, x: Tensor, x0: Tensor) -> Tensor:
        parts = self.constraint.parts if isinstance(self.constraint, intersection) else ()
        for limit in parts:
            if isinstance(limit, box):
                x = nearest_in_l1_box(x, x0, self.eps, limit.lower, limit.upper)
        return self.constraint.project(x, x0)

    def _due(self, step: Tensor) -> Tensor:
        period = max(int(0.04 * self.steps), 1)
        return torch.where((step > 0) & (step % period == 0), period, 0)

    def _look_back(self, state: Memory, period: Tensor, x0: Tensor) -> tuple[Memory, Tensor]:
        due = period > 0
        share = (state.best_z != x0).flatten(1).to(x0.dtype).mean(1)
        fell = due & (share < 0.95 * state.changed)
        size = torch.where(fell, torch.full_like(state.size, self.eps), state.size / 1.5)
        return state._replace(
            z=_choose(fell, state.best_z, state.z),
            size=torch.where(due, size.clamp(self.eps / 10, self.eps), state.size),
            share=torch.where(due, share / 1.5, state.share),
            changed=torch.where(due, share, state.changed),
        ), fell

    def _move(self, state: Memory, grad: Tensor, x0: Tensor, first: Tensor) -> Tensor:
        flat = grad.flatten(1)
        d = flat.shape[1]
        rank = (d - (state.share * d).long()).clamp(0, d - 1)
        least = flat.abs().sort(1).values.gather(1, rank[:, None])
        step = flat.sign() * (flat.abs() >= least)
        step = step / step.abs().sum(1, keepdim=True).clamp_min(1)
        return self._project(state.z + (state.size[:, None] * step).reshape(grad.shape), x0)


def nearest_in_l1_box(
    x: Float[Tensor, " b *d"], x0: Float[Tensor, " b *d"], eps: float, lower: float, upper: float
) -> Float[Tensor, " b *d"]:
    """Return the point nearest to ``x`` of {‖z − x0‖₁ ≤ eps, lower ≤ z ≤ upper} (2021, Prop. 2.1).

    Each difference δ_i becomes sign(δ_i) · clip(|δ_i| − λ, 0, room_i); λ ≥ 0 makes the lengths sum to
    eps, and is found among the sorted kinks of that sum. Projecting on the ball and then on the box
    gives a feasible point too, but not the nearest, and shorter than eps.
    """
    delta, clean = (x - x0).flatten(1).double(), x0.flatten(1).double()
    size = delta.abs()
    room = torch.where(delta > 0, upper - clean, clean - lower).clamp_min(0)
    kinks, order = torch.cat([size - room, size], 1).sort(1)
    slope = torch.cat([-torch.ones_like(size), torch.ones_like(size)], 1).gather(1, order).cumsum(1)
    fall = torch.cat([torch.zeros_like(size[:, :1]), slope[:, :-1] * kinks.diff(dim=1)], 1)
    total = room.sum(1, keepdim=True) + fall.cumsum(1)
    at = (total > eps).sum(1, keepdim=True).clamp(1, total.shape[1] - 1) - 1
    over = total.gather(1, at) - eps
    shrink = kinks.gather(1, at) + over / (-slope.gather(1, at)).clamp_min(1)
    fits = torch.minimum(size, room).sum(1, keepdim=True) <= eps
    length = (size - torch.where(fits, 0.0, shrink)).clamp_min(0).minimum(room)
    return x0 + (delta.sign() * length).to(x.dtype).reshape(x.shape)
