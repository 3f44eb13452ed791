"""FMN: the margin's gradient inside a ball that closes in on the boundary, for L0, L1, L2 and L∞."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.constraints import l0, l1, l2, linf
from walnut.core.directions import normalized
from walnut.core.errors import WalnutError
from walnut.core.method import Method

from .approach import BEYOND, FAR, Approach, check_norm, rows_like, size
from .common import Norm
from .minimal import MinimalAttack
from .nearest import stretched

DUAL: dict[Any, Norm] = {linf: l1, l2: l2, l1: linf}

_SCOUTED = 0.3  # part of the schedule that a start goes through; the rest is for closing in
_LAST_STEP = 0.03  # α at the end, in reaches
_LAST_GAMMA = 0.01  # the search on the line finds what this leaves
_WIDER = 2.0  # times the radius, at most, to which the linear estimate opens a ball


@dataclass(frozen=True, kw_only=True, repr=False)
class fmn(MinimalAttack):
    """δ ← project_ε(δ + α g/‖g‖₂), clipped to the box, with ε moved to where the boundary seems to be.

    Before a row has fooled the network, ε = ‖δ‖ + margin/‖g‖_dual, the linear estimate; then ε grows by
    1 + γ where the network is not fooled and shrinks by 1 − γ (from the best norm at most) where it is.
    α and γ fall as cosines (Pintor et al. 2021, Alg. 1). For L0, ε is a number of entries.

    Where we differ. *Starts*: a boundary has several hollows, and a run ends in the one where it began, so
    ``starts`` short runs begin at the nearest linearised boundaries of as many classes and use ``scout`` of
    the steps; the rest closes in from the nearest point of all. A row that a start did not solve goes on
    from there. *The ball*: ε is the linear estimate times 1 + γ, which crosses it (the estimate
    alone ends on the boundary, and a quarter of the test examples were never fooled), does not fall
    before a row is fooled, and at most doubles; in L2 a difference is as long as ε after the box has
    clipped it. *The step*: α is a share of the ball's reach and not a length, so that no scale of the
    input is assumed: √d ε for L∞, ε for L2, √ε for L0, and for L1 min(ε, √(wε)) with w the width of the
    box (steps of the ball's own size leave the wrong hollow of a network with small gradients). α begins at
    two reaches, where the direction is nearly that of the last gradient alone, and ends as an average over
    the last few. *The gradient* leaves out entries that the box holds (L1 and L0 get stuck on them); the
    projection on L1 is the Euclidean one; L0 keeps the entries of largest δ_i g_i inside the box, not of
    largest δ_i; ``refine`` passes draw the result towards the example.

    Where passes count, ``fmn(steps=16, starts=2, skip=2.0, refine=4)`` takes 40.

    Args:
        norm: ``linf``, ``l2``, ``l1`` or ``l0``.
        steps: each a forward and a backward pass.
        step_size: α at the beginning, in reaches of the ball.
        gamma: share by which the radius changes at the beginning.
        candidates: classes of the largest logits to look at in the first step, each but the label's a
            backward pass (0: as published, with one start at the example).
        starts: short runs at the beginning, at most one for each candidate but the label.
        scout: share of the steps that they take.
        skip: leave out a start whose linearised boundary is more than so many times as far as what is found.

    >>> from walnut.core.constraints import linf
    >>> from walnut.checks import check_attack
    >>> check_attack(fmn(norm=linf, steps=20))
    """

    norm: Norm = l2  # type: ignore[misc]
    steps: int = 100
    step_size: float = 2.0
    gamma: float = 0.3
    candidates: int = 5
    starts: int = 4
    scout: float = 0.5
    skip: float = float("inf")

    def __post_init__(self) -> None:
        check_norm(self.norm, (linf, l2, l1, l0))
        if self.starts < 1 or not 0 <= self.scout < 1 or not self.skip > 0:
            raise WalnutError("fmn needs starts >= 1, scout in [0, 1) and skip > 0")

    def method(self, x: Tensor, answers: Any) -> tuple[Method, int]:
        """Return the step, and how many there are."""
        candidates = 0 if self.targeted else self.candidates
        scouting = int(self.scout * self.steps)
        starts = max(1, min(self.starts, candidates - 1, scouting // 2))
        return _Closing(
            self.norm, self.steps, self.bounds, self.mask, answers, 0.0, candidates, self.step_size,
            self.gamma, starts, scouting // starts if starts > 1 else 0, self.skip,
        ), self.steps  # fmt: skip


class _Kept(NamedTuple):
    radius: Tensor
    near: Tensor  # the least norm that fooled since this start
    began: Tensor  # the step of the last start, or of the closing
    scouting: Tensor
    ways: Tensor  # (b, starts, *d)
    away: Tensor  # (b, starts)


@dataclass(frozen=True, eq=False)
class _Closing(Approach):
    step_size: float = 1.0
    gamma: float = 0.2
    starts: int = 1
    leg: int = 0  # steps of a start
    skip: float = float("inf")

    @property
    def ways(self) -> int:  # type: ignore[override]
        """How many linearised boundaries to begin at."""
        return self.starts

    def begin(self, x0: Tensor) -> _Kept:
        """Return an open ball."""
        far = torch.full_like(x0.flatten(1)[:, 0], float("inf"))
        wide = [x0.shape[0], self.starts]
        return _Kept(
            torch.ones_like(far) if self.norm is l0 else far, far, torch.zeros_like(far),
            torch.full_like(far, self.leg > 0, dtype=torch.bool),
            x0.new_zeros([*wide, *x0.shape[1:]]), x0.new_full(wide, float("inf")),
        )  # fmt: skip

    def opened(self, x: Tensor, x0: Tensor) -> Tensor:
        """Return the radius of a start at ``x``: open until the point is seen; in L0 that of the step."""
        if self.norm is l0:
            return size(x - x0, l0).clamp_min(1)
        return torch.full_like(x.flatten(1)[:, 0], float("inf"))

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Any
    ) -> Any:
        """Note the point, move, and begin again where a start has had its steps."""
        made, kept = state[2], _Kept(*state[3])
        if seen[2].numel():
            kept = self._told(kept, seen[2], seen[3], made == 0)
        x, best, made, kept = super().advance((*state[:3], kept), seen, values, x0, progress, draws)
        kept = _Kept(*kept)
        ended = (made > 1) & ((made - 1) % max(self.leg, 1) == 0)
        turn = kept.scouting & ended & (made < self.steps)
        if bool(turn.any()):
            x, kept = self._turned(x, kept, best, made, turn, x0)
        return x, best, made, kept

    def enter(self, kept: _Kept, x0: Tensor, x: Tensor, first: Tensor) -> _Kept:
        """Open the ball of the first start."""
        return kept._replace(
            radius=torch.where(first, self.opened(x, x0), kept.radius),
            began=torch.where(first, 1.0, kept.began),
        )

    def _told(self, kept: _Kept, ways: Tensor, away: Tensor, first: Tensor) -> _Kept:
        """Keep the ways to the linearised boundaries of the rows that were just told."""
        there = ways.shape[1]
        wide, mine, size_ = kept.ways.clone(), rows_like(first, ways), kept.away.clone()
        wide[:, :there] = torch.where(mine, ways, wide[:, :there])
        size_[:, :there] = torch.where(first[:, None], away, size_[:, :there])
        return kept._replace(ways=wide, away=size_)

    def _turned(
        self, x: Tensor, kept: _Kept, best: Any, made: Tensor, turn: Tensor, x0: Tensor
    ) -> tuple[Tensor, _Kept]:
        """Begin at the next boundary; after the last, and where nothing fools yet, close in."""
        rows, place = torch.arange(len(x), device=x.device), (made - 1) // self.leg
        at = place.clamp(0, self.starts - 1)
        solved = best[1].isfinite()
        go = turn & solved & (place < self.starts) & (kept.away[rows, at] < self.skip * best[1])
        back = turn & ~go & solved
        new = self.clip(x0 + BEYOND * kept.ways[rows, at])
        opened = self.opened(new, x0)
        near = torch.where(go, float("inf"), torch.where(back, best[1], kept.near))
        radius = torch.where(go, opened, torch.where(back, best[1], kept.radius))
        x = torch.where(rows_like(go, x), new, torch.where(rows_like(back, x), best[0], x))
        return x, kept._replace(
            radius=radius, near=near, began=torch.where(turn, made.to(near), kept.began),
            scouting=kept.scouting & ~(turn & ~go),
        )  # fmt: skip

    def move(
        self, x: Tensor, kept: Any, seen: Any, best: Any, values: Tensor, x0: Tensor,
        progress: Tensor,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Set the radius, step, project, clip."""
        grad, fooled = seen[:2]
        if self.bounds is not None:  # entries at the end of the box cannot follow
            ended = ((x >= self.bounds[1]) & (grad > 0)) | ((x <= self.bounds[0]) & (grad < 0))
            grad = grad.masked_fill(ended, 0.0)
        delta = x - x0
        length = size(delta, self.norm)
        near = torch.where(fooled, torch.minimum(kept.near, length), kept.near)
        share, gamma = self._schedule(kept, progress)
        if self.norm is l0:
            radius = self._count(kept.radius, fooled, near, gamma, x0[0].numel())
        else:
            radius = self._radius(length, kept.radius, grad, fooled, near, values, gamma)
        kept = kept._replace(radius=radius, near=near)
        alpha = share * self._reach(radius, x0).clamp_max(FAR)
        delta = delta + rows_like(alpha, x) * normalized().update(grad, ())[0]
        if self.norm is l0:
            inside = self.clip(x0 + delta) - x0
            return self.clip(x0 + worthiest(inside, seen[0], radius)), kept
        if self.norm is l2:
            low, high = (-FAR, FAR) if self.bounds is None else self.bounds
            room = torch.where(delta > 0, high - x0, x0 - low).clamp_min(0)
            flat = stretched(delta.flatten(1), radius, room.flatten(1))
            return self.clip(x0 + flat.reshape(x.shape)), kept
        return self.clip(x0 + project(delta, radius, self.norm)), kept

    def _schedule(self, kept: _Kept, progress: Tensor) -> tuple[Tensor, Tensor]:
        """Return α in reaches of the ball, and γ."""
        since, begun = progress * self.steps - kept.began, _SCOUTED if self.leg else 0.0
        closing = begun + (1 - begun) * since / (self.steps - kept.began)
        t = torch.where(kept.scouting, _SCOUTED * since / max(self.leg, 1), closing)
        wave = (1 + torch.cos(math.pi * t)) / 2
        return (
            _LAST_STEP + (self.step_size - _LAST_STEP) * wave,
            _LAST_GAMMA + (self.gamma - _LAST_GAMMA) * wave,
        )

    def _reach(self, radius: Tensor, x0: Tensor) -> Tensor:
        """Return the L2 norm of the longest difference in the ball (of L1: in the box as well)."""
        if self.norm is linf:
            return x0[0].numel() ** 0.5 * radius
        if self.norm is l0:
            return radius.sqrt()
        if self.norm is l1:
            width = float("inf") if self.bounds is None else self.bounds[1] - self.bounds[0]
            return torch.minimum(radius, (width * radius).sqrt())
        return radius

    def _radius(
        self, length: Tensor, kept: Tensor, grad: Tensor, fooled: Tensor, near: Tensor,
        values: Tensor, gamma: Tensor,
    ) -> Tensor:  # fmt: skip
        dual = size(grad, DUAL[self.norm]).clamp_min(torch.finfo(grad.dtype).tiny)
        guess = (length + values.abs() / dual).nan_to_num(posinf=1e30)
        held = torch.minimum(torch.maximum(guess, kept), _WIDER * kept)
        guess = torch.where(kept.isfinite(), held, guess)
        outside = torch.where(near.isfinite(), kept, guess) * (1 + gamma)
        return torch.where(fooled, torch.minimum(kept, near) * (1 - gamma), outside)

    def _count(
        self, kept: Tensor, fooled: Tensor, near: Tensor, gamma: Tensor, entries: int
    ) -> Tensor:
        less = torch.minimum(torch.minimum(kept - 1, (kept * (1 - gamma)).floor()), near)
        more = torch.maximum(kept + 1, (kept * (1 + gamma)).floor())
        return torch.where(fooled, less, more).clamp(1, entries)


def worthiest(
    delta: Float[Tensor, " b *d"], grad: Float[Tensor, " b *d"], count: Float[Tensor, " b"]
) -> Float[Tensor, " b *d"]:
    """Keep the ``count`` differences that add most to the margin, by δ_i g_i; a count for each row."""
    rank = (delta * grad).flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return delta * (rank < count[:, None]).reshape(delta.shape)


def project(
    delta: Float[Tensor, " b *d"], radius: Float[Tensor, " b"], norm: Norm
) -> Float[Tensor, " b *d"]:
    """Return the nearest differences of at most ``radius`` in ``norm``, a radius for each row.

    >>> import torch
    >>> from walnut.core.constraints import l1
    >>> project(torch.tensor([[3.0, 1.0]]), torch.tensor([1.0]), l1)
    tensor([[1., 0.]])
    """
    flat, limit = delta.flatten(1), radius[:, None]
    large = flat.abs()
    if norm is linf:
        flat = torch.minimum(torch.maximum(flat, -limit), limit)
    elif norm is l2:
        flat = flat * (limit / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(1)
    elif norm is l1:  # Duchi et al. 2008, Fig. 1
        falling = large.sort(1, descending=True).values
        place = torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype, device=flat.device)
        threshold = (falling.cumsum(1) - limit) / place
        count = (falling > threshold).sum(1, keepdim=True).clamp_min(1)
        shrink = threshold.gather(1, count - 1).clamp_min(0)
        flat = flat.sign() * (large - shrink).clamp_min(0)
    else:
        rank = large.argsort(dim=1, descending=True, stable=True).argsort(1)
        flat = torch.where(rank < limit, flat, torch.zeros_like(flat))
    return flat.reshape(delta.shape)
