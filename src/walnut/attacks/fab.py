"""FAB: from boundary to boundary by exact projections on the linearised one, drawn to the example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.constraints import l1, l2, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.method import Method
from walnut.core.rows import Run
from walnut.core.types import Adversarial, Model

from .approach import Answers, Approach, Bounds, check_norm, rivals, rows_like, size, slack
from .common import Norm
from .minimal import MinimalAttack, Record


@dataclass(frozen=True, kw_only=True, repr=False)
class fab(MinimalAttack):
    """x ← clip((1 − α)(x + η d₁) + α (x₀ + η d₂)), α = min(‖d₁‖ / (‖d₁‖ + ‖d₂‖), alpha_max).

    d₁ and d₂ lead from x and from the example x₀ to the nearest point of {linearised boundary ∩ box} in
    the norm (Croce & Hein 2020, Alg. 1); from a point that fools it is drawn back instead,
    x ← x₀ + β (x − x₀). The boundary is that of one class a round, of the ``targets`` classes of the
    largest logits at the example (FAB-T, their §4), or of whichever class is nearest in the
    linearisation (``targets`` 0: a backward pass for each other class and step).

    Where we differ: drawing back is a step of its own, so that each costs one forward pass and not two;
    later restarts begin on half the way to the linearised boundary in a random direction, and their
    first step only measures that way; the published final search is ``refine`` passes.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        steps: of a round, each a forward pass and a backward pass.
        targets: rounds, at most one for each other class; 0: no fixed class, one round.
        restarts: of each round.
        alpha_max: the largest share of the projected example in a step.
        eta: how far beyond the boundary a projection goes, as a multiple of the way.
        beta: share of the way from the example that a point which fools keeps.

    >>> import torch
    >>> from walnut.core.constraints import l2
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> found = fab(norm=l2, steps=10)(net, torch.tensor([[0.7, 0.5]]), torch.tensor([0]))
    >>> round(float(found.norms["l2"]), 3)  # the boundary is 0.2 / √2 away
    0.141
    """

    norm: Norm = linf  # type: ignore[misc]
    steps: int = 100
    targets: int = 9
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    stops: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_norm(self.norm, (linf, l2, l1))
        if self.targeted:
            raise WalnutError("fab has no targeted form; use ddn, fmn or carlini_wagner")
        if self.steps < 1 or self.restarts < 1 or self.targets < 0:
            raise WalnutError("fab needs steps and restarts >= 1 and targets >= 0")
        if not (0 <= self.alpha_max <= 1 and self.eta >= 1 and 0 < self.beta <= 1):
            raise WalnutError("fab needs alpha_max in [0, 1], eta >= 1 and beta in (0, 1]")

    def search(self, record: Record, rows: Tensor, model: Model, x: Tensor, y: Tensor) -> None:
        """Make the rounds and put the nearest of what they find into the record."""
        best: Adversarial | None = None
        rank, ranks = 0, 1
        while rank < ranks:
            for turn in range(self.restarts):
                answers = Answers(self.targeted)
                run = Run(
                    answers, self.criterion(), self.steps, early_stop=False, keep_best=False,
                    seed=self.seed, batch_size=self.batch_size, drop=self.drop,
                )  # fmt: skip
                found = run(self.method(rank, turn, answers), model, x[rows], y[rows])
                best = found if best is None else nearer(best, found, self.norm, x[rows])
                if self.targets:
                    ranks = min(self.targets, answers.logits.shape[1] - 1)
            rank += 1
        assert best is not None
        record.take(rows, best)

    def method(self, rank: int, turn: int, answers: Answers) -> Method:  # type: ignore[override]
        """Return the step of a round: towards the class of rank ``rank``, restarted ``turn`` times."""
        return _Projecting(
            self.norm, self.steps, self.bounds, self.mask, answers, attack=self,
            rank=rank if self.targets else -1, turn=turn,
        )  # fmt: skip


def nearer(a: Adversarial, b: Adversarial, norm: Norm, x0: Tensor) -> Adversarial:
    """Return the rows of ``a``, or of ``b`` where only they fool or where they are nearer."""
    closer = size(b.x - x0, norm) < size(a.x - x0, norm)
    take = (b.success & ~a.success) | (b.success & closer)
    first = torch.where(a.first_success < 0, b.first_success, a.first_success)
    x = torch.where(rows_like(take, x0), b.x, a.x)
    return Adversarial(
        x, a.success | b.success, torch.where(take, b.prediction, a.prediction), first,
        a.forward + b.forward, a.backward + b.backward, a.norms, a.seconds + b.seconds, a.attack,
        a.seed,
    )  # fmt: skip


class _Kept(NamedTuple):
    target: Int[Tensor, " b"]  # the class to drive to; -1: not chosen yet
    keys: Int[Tensor, " b"]  # of the random start


@dataclass(frozen=True, eq=False)
class _Projecting(Approach):
    attack: fab = fab()
    rank: int = -1
    turn: int = 0

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> Any:
        """Return the state at the example itself."""
        x, best, made, _ = super().start(x0, restart, draws)
        keys = draws.fold(self.turn).bits(1)[:, 0]
        return x, best, made, _Kept(torch.full_like(restart, -1), keys)

    def evaluate(self, value: Any, state: Any, draws: Any) -> tuple[Tensor, Any]:
        """Return the margin, and (slope, which rows fool, gap, target) of the boundary to go to."""
        x = state[0].detach().requires_grad_()
        values, target = value(x), _Kept(*state[3]).target
        logits, y = self.answers.logits, self.answers.y
        if self.rank >= 0:
            ranked = rivals(self.answers, self.rank + 1)[:, -1]
            target = torch.where(target < 0, ranked, target)
            gap = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
            slope = self.slope(gap, x)
        else:
            gap, slope = self._nearest(x, logits - logits.gather(1, y[:, None]))
        if self.mask is not None:
            slope = slope * self.mask.to(slope)
        sure = values.detach() > slack(logits)
        return values.detach(), (slope, sure, gap.detach(), target)

    def _nearest(self, x: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Return gap and slope of the class whose linearised boundary is nearest."""
        others = rivals(self.answers, gaps.shape[1])
        chosen = gaps.gather(1, others)
        slopes = torch.stack(self.answers.gradients(list(chosen.unbind(1)), x), 1)
        if self.mask is not None:
            slopes = slopes * self.mask.to(slopes)
        dual: dict[Any, float] = {linf: 1, l2: 2, l1: float("inf")}
        length = torch.linalg.vector_norm(slopes.flatten(2), dual[self.norm], dim=2)
        away = chosen.detach().abs() / length.clamp_min(torch.finfo(length.dtype).tiny)
        row, turn = torch.arange(len(x), device=x.device), away.argmin(1)
        return chosen[row, turn], slopes[row, turn]

    def move(
        self, x: Tensor, kept: Any, seen: Any, best: Any, values: Tensor, x0: Tensor,
        progress: Tensor,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Project both points on the boundary and step between them, or draw back what fools."""
        (slope, sure, gap, target), attack = seen, self.attack
        behind = (slope * (x - x0)).flatten(1).sum(1)
        d1 = cross(x, slope, -gap, self.norm, self.bounds)
        d2 = cross(x0, slope, behind - gap, self.norm, self.bounds)
        s1, s2 = size(d1, self.norm), size(d2, self.norm)
        alpha = (s1 / (s1 + s2).clamp_min(1e-30)).clamp_max(attack.alpha_max)
        ahead, direct = x + attack.eta * d1, x0 + attack.eta * d2
        moved = self.clip(ahead + rows_like(alpha, x) * (direct - ahead))
        moved = torch.where(rows_like(sure, x), x0 + attack.beta * (x - x0), moved)
        if self.turn:
            begun = rows_like(progress == 0, x)
            moved = torch.where(begun, self._away(x0, s2 / 2, kept), moved)
        return moved, _Kept(target, _Kept(*kept).keys)

    def _away(self, x0: Tensor, radius: Tensor, kept: Any) -> Tensor:
        """Return points ``radius`` from the example in random directions."""
        t = 2 * Draws.keyed(_Kept(*kept).keys).uniform(*x0.shape[1:], dtype=x0.dtype) - 1
        if self.mask is not None:
            t = t * self.mask.to(t)
        length = size(t, self.norm).clamp_min(1e-30)
        return self.clip(x0 + rows_like(radius / length, x0) * t)


def cross(
    x: Float[Tensor, " b *d"],
    w: Float[Tensor, " b *d"],
    gap: Float[Tensor, " b"],
    norm: Norm,
    bounds: Bounds,
) -> Float[Tensor, " b *d"]:
    """Return the shortest d with w·d = gap and x + d in the box; where none is, the nearest corner.

    Every entry moves along ±sign w_i by t_i up to its room r_i: min(τ, r_i) in L∞, min(τ |w_i|, r_i) in
    L2, and in L1 the steepest entries are filled first; τ comes from the sorted places where entries
    reach their room (Croce & Hein 2020, §2 and App. A).

    >>> import torch
    >>> from walnut.core.constraints import linf
    >>> x, w = torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, 1.0]])
    >>> cross(x, w, torch.tensor([0.4]), linf, (0.0, 1.0))
    tensor([[0.3000, 0.1000]])
    """
    flat, slope = x.flatten(1), torch.where(gap[:, None] < 0, -1.0, 1.0) * w.flatten(1)
    steep, need = slope.abs(), gap.abs()
    if bounds is None:
        room = torch.full_like(flat, float("inf"))
    else:
        room = torch.where(slope > 0, bounds[1] - flat, flat - bounds[0]).clamp_min(0)
    room = room.masked_fill(steep == 0, 0.0)
    if norm is l1:
        length = _greedy(steep, room, need)
    elif norm is l2:
        tau = _level(steep.square(), room / steep.clamp_min(1e-30), need)
        length = torch.minimum(tau[:, None] * steep, room)
    else:
        length = torch.minimum(_level(steep, room, need)[:, None], room)
    return (length * slope.sign()).reshape(x.shape)


def _level(weight: Tensor, stop: Tensor, need: Tensor) -> Float[Tensor, " b"]:
    """Return τ with Σ weight_i min(τ, stop_i) = need; the largest stop where the sum stays below."""
    stop, order = stop.sort(1)
    weight = weight.gather(1, order)
    filled = torch.where(weight > 0, weight * stop, 0.0).cumsum(1)
    before = torch.cat([torch.zeros_like(filled[:, :1]), filled[:, :-1]], 1)
    left = weight.flip(1).cumsum(1).flip(1)
    reached = before + torch.where(left > 0, left * stop, 0.0) >= need[:, None]
    at = reached.to(torch.uint8).argmax(1, keepdim=True)
    tau = (need[:, None] - before.gather(1, at)) / left.gather(1, at).clamp_min(1e-30)
    held = torch.where(stop.isfinite(), stop, 0.0).amax(1)
    return torch.where(reached.any(1), tau[:, 0].clamp_min(0), held)


def _greedy(steep: Tensor, room: Tensor, need: Tensor) -> Float[Tensor, " b d"]:
    """Return how far each entry moves when the steepest are filled first."""
    order = steep.argsort(dim=1, descending=True, stable=True)
    slope = steep.gather(1, order)
    filled = torch.where(slope > 0, slope * room.gather(1, order), 0.0).cumsum(1)
    before = torch.cat([torch.zeros_like(filled[:, :1]), filled[:, :-1]], 1)
    share = (need[:, None] - before).clamp_min(0) / slope.clamp_min(1e-30)
    length = torch.minimum(share, room.gather(1, order))
    return torch.zeros_like(steep).scatter(1, order, length)
