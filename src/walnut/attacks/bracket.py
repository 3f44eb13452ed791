"""The smallest radius at which short runs of PGD still fool: each example searches its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from walnut.core.constraints import l1, l2, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.method import Method

from .approach import Approach, check_norm, rows_like, size, slack
from .common import Norm, steepest
from .fmn import DUAL, project
from .minimal import MinimalAttack

_NEAR = 0.03  # a bracket narrower than this share of its upper end is opened again below
_BEYOND = 1.05  # times the linear estimate: a little behind the boundary
_FAR = 1e6
_LOWER = 0.1  # share by which a success lowers the radius at least


@dataclass(frozen=True, kw_only=True, repr=False)
class bracket(MinimalAttack):
    """PGD inside a ball whose radius lies between the largest that failed and the smallest that fooled.

    Each example holds a bracket (low, high). A leg is a run of PGD on the margin of ``leg`` steps with a
    cosine step of up to 2r; it begins at the example with ``scout`` steps along random directions of the
    logits (output-diversified, Tashiro et al. 2020, Eq. 4), so that no two legs climb the same hill. A
    success ends the leg: high becomes the distance reached, and the next leg begins from there, pulled into
    the smaller ball. A leg without one raises low. What others
    have by bisecting whole runs costs one run here.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: in all, each a forward and a backward pass.
        leg: steps of a leg.
        scout: of these, the ones that scout; the first leg has none.
        first: the first radius tried, in input units; margin / ‖∇ margin‖ at the example unless given.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> found = bracket()(net, torch.tensor([[0.7, 0.5]]), torch.tensor([0]))
    >>> round(float(found.norms["l2"]), 2)  # the boundary is 0.2 / √2 away
    0.14
    """

    norm: Norm = l2  # type: ignore[misc]
    steps: int = 60
    leg: int = 10
    scout: int = 3
    first: float | None = None

    def __post_init__(self) -> None:
        check_norm(self.norm, (linf, l2, l1))
        if not 0 <= self.scout < self.leg <= self.steps:
            raise WalnutError(
                f"bracket runs legs of {self.leg} steps, {self.scout} of them scouting, in {self.steps} "
                "steps: it needs 0 <= scout < leg <= steps; give more steps, or a shorter leg"
            )
        if self.first is not None and not self.first > 0:
            raise WalnutError(f"the first radius must be more than 0, not {self.first}")

    def method(self, x: Tensor, answers: Any) -> tuple[Method, int]:
        """Return the step, and how many there are."""
        return _Legs(
            self.norm, self.steps, self.bounds, self.mask, answers, 0.0, 0, self.leg, self.scout,
            self.first or 0.0,
        ), self.steps  # fmt: skip


class _Kept(NamedTuple):
    low: Tensor  # the largest radius at which a leg failed
    radius: Tensor  # of this leg
    step: Int[Tensor, " b"]  # of this leg
    turn: Int[Tensor, " b"]  # which leg
    keys: Int[Tensor, " b"]  # of the random directions


@dataclass(frozen=True, eq=False)
class _Legs(Approach):
    leg: int = 10
    scout: int = 3
    first: float = 0.0  # 0: the linear estimate

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> Any:
        """Return the state at the example itself."""
        x, best, made, _ = super().start(x0, restart, draws)
        none = torch.zeros_like(best[1])
        keys = draws.bits(1)[:, 0]
        return x, best, made, _Kept(none, none + self.first, made, made, keys)

    def scouting(self, kept: _Kept) -> Tensor:
        """Say which rows are at a scouting step."""
        return (kept.turn > 0) & (kept.step < self.scout)

    def evaluate(self, value: Any, state: Any, draws: Any) -> tuple[Tensor, Any]:
        """Return the margin, and (gradient of what this step climbs, which rows fool)."""
        kept = _Kept(*state[3])
        x = state[0].detach().requires_grad_()
        values = value(x)
        logits, y, climbed = self.answers.logits, self.answers.y, values
        scouting = self.scouting(kept)
        if bool(scouting.any()):
            keys = Draws.keyed(kept.keys).fold(kept.turn)
            w = 2 * keys.uniform(logits.shape[1], dtype=logits.dtype) - 1
            own = -self.answers.sign * w.gather(1, y[:, None]).abs()
            climbed = torch.where(scouting, (w.scatter(1, y[:, None], own) * logits).sum(1), values)
        grad = self.slope(climbed, x)
        if self.mask is not None:
            grad = grad * self.mask.to(grad)
        sure = values.detach() > slack(logits)
        return values.detach(), (grad, sure, torch.zeros_like(grad))

    def move(
        self, x: Tensor, kept: Any, seen: Any, best: Any, values: Tensor, x0: Tensor,
        progress: Tensor,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Step inside the ball; at a success, or at the leg's end, choose the next radius."""
        kept, (grad, hit, _) = _Kept(*kept), seen
        dual = size(grad, DUAL[self.norm]).clamp_min(torch.finfo(grad.dtype).tiny)
        guess = (size(x - x0, self.norm) + _BEYOND * values.abs() / dual).clamp_max(_FAR)
        kept = kept._replace(radius=torch.where(kept.radius > 0, kept.radius, guess))
        scouting = self.scouting(kept)
        before = torch.where(kept.turn > 0, self.scout, 0)
        share = (kept.step - before).clamp_min(0) / (self.leg - before)
        length = kept.radius * torch.where(scouting, 1.0, 1 + torch.cos(math.pi * share)).to(
            x.dtype
        )
        stepped = x - x0 + rows_like(length, x) * steepest(self.norm).update(grad, ())[0]
        ended = ~hit & (kept.step + 1 >= self.leg)
        low, radius = self._next(kept, best[1], guess, hit, ended)
        inside = project(torch.where(rows_like(hit, x), x - x0, stepped), radius, self.norm)
        moved = torch.where(rows_like(ended, x), x0, self.clip(x0 + inside))
        half = self.scout + (self.leg - self.scout) // 2  # a leg that goes on needs no large steps
        step = torch.where(hit, half, torch.where(ended, 0, kept.step + 1))
        return moved, _Kept(low, radius, step, kept.turn + ended.long(), kept.keys)

    def _next(
        self, kept: _Kept, high: Tensor, guess: Tensor, hit: Tensor, ended: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the lower end and the radius to try."""
        low = torch.where(ended, torch.maximum(kept.low, kept.radius), kept.low)
        wider = torch.minimum(torch.maximum(1.5 * kept.radius, guess), 8 * kept.radius)
        middle = torch.where(high.isfinite(), (low + high) / 2, wider)
        lower = torch.maximum((1 - _LOWER) * high, middle)
        radius = torch.where(hit, lower, torch.where(ended, middle, kept.radius))
        narrow = high - low < _NEAR * high
        return torch.where(narrow, 0.8 * low, low), radius
