"""PGD from starting points that are far apart in what the network says, not in what it sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from walnut.core.constraints import l2, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.objectives import margin, misclassified
from walnut.core.queried import whole
from walnut.core.rows import Run
from walnut.core.types import Adversarial, Attack, Constraint, Direction, Model, Objective

from .approach import Answers, rows_like
from .common import Norm, ball, prepare, steepest
from .relay import Search, relay

Bounds = tuple[float, float] | None
_HAIR = 1e-3  # of eps


class _State(NamedTuple):
    z: Tensor
    made: Int[Tensor, " b"]  # steps
    turn: Int[Tensor, " b"]  # which restart; 0 does not scout
    keys: Int[Tensor, " b"]  # of the direction that the scouting steps climb
    target: Int[Tensor, " b"]  # the class to drive to; -1: not chosen yet


class _Watch:
    """An objective that keeps the logits and the labels of the rows it was just asked about."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.answers = objective, Answers(False)

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        self.answers(model, x, y)
        return self.objective(lambda _: self.answers.logits, x, y)


@dataclass(frozen=True, eq=False)
class _Scouting:
    """A step of ODI-PGD (a :class:`walnut.core.method.Method`): along w·z first, then uphill."""

    attack: OdiPgd
    watch: _Watch

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> _State:
        """Return the example, a hair inside the box: scouting is what tells restarts apart."""
        turn, none = restart + self.attack.skip, torch.full_like(restart, -1)
        scouts = self.attack.scout > 0 and bool((turn > 0).any())
        keys = draws.bits(1)[:, 0] if scouts else none
        z = self.attack.constraint.project(self.attack.begin(x0), x0)
        return _State(z, torch.zeros_like(restart), turn, keys, none)

    def resume(self, state: Any, x: Tensor) -> _State:
        """Return the state at ``x``."""
        return _State(*state)._replace(z=x)

    def point(self, state: Any) -> Tensor:
        """Return the input."""
        return state[0]

    def scouting(self, state: _State) -> Tensor:
        """Say which rows are at a scouting step."""
        return (state.turn > 0) & (state.made < self.attack.scout)

    def evaluate(self, value: Any, state: Any, draws: Draws) -> tuple[Tensor, Any]:
        """Return the objective's values, and the gradient of what this step climbs and the targets."""
        state = _State(*state)
        x = state.z.detach().requires_grad_()
        values = value(x)
        logits, y = self.watch.answers.logits, self.watch.answers.y
        climbed, target = values, state.target
        if self.attack.targets:
            target = self._targets(logits.detach(), y, state)
            gap = logits.gather(1, target[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
            climbed = torch.where(state.turn > 0, gap, values)
        scouting = self.scouting(state)
        if bool(scouting.any()):
            w = self._weights(logits.detach(), y, target, state.keys)
            climbed = torch.where(scouting, (w * logits).sum(1), climbed)
        (grad,) = self.watch.answers.gradients([climbed], x)
        return values.detach(), (grad, target)

    def _targets(self, logits: Tensor, y: Tensor, state: _State) -> Int[Tensor, " b"]:
        """Return the class of rank ``turn`` among the others, chosen where the run begins."""
        others = logits.scatter(1, y[:, None], float("-inf")).argsort(1, descending=True)
        rank = (state.turn - 1).clamp_min(0) % min(self.attack.targets, logits.shape[1] - 1)
        return torch.where(state.target < 0, others.gather(1, rank[:, None])[:, 0], state.target)

    def _weights(self, logits: Tensor, y: Tensor, target: Tensor, keys: Tensor) -> Tensor:
        """Return w uniform in [−1, 1]: against the label, and towards the target if there is one."""
        w = 2 * Draws.keyed(keys).uniform(logits.shape[1], dtype=logits.dtype) - 1
        w = w.scatter(1, y[:, None], -w.gather(1, y[:, None]).abs())
        return w.scatter(1, target[:, None], 0.8) if self.attack.targets else w

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Draws
    ) -> _State:
        """Step by eps while scouting, then by a step that falls to nothing, and project."""
        state, (grad, target), attack = _State(*state), seen, self.attack
        before = torch.where(state.turn > 0, attack.scout, 0)
        share = (state.made - before).clamp_min(0) / (attack.steps - before)
        falling = attack.peak * (1 + torch.cos(torch.pi * share)) / 2
        size = attack.eps * torch.where(self.scouting(state), 1.0, falling).to(x0.dtype)
        step, _ = attack.direction.update(grad, attack.direction.init(grad))
        z = attack.constraint.project(state.z + rows_like(size, x0) * step, x0)
        return _State(z, state.made + 1, state.turn, state.keys, target)


@dataclass(frozen=True)
class OdiPgd:
    """ODI-PGD put together: call it with ``(model, x, y)``; see :func:`odi_pgd`."""

    eps: float
    norm: Norm = field(repr=False)
    constraint: Constraint
    direction: Direction
    steps: int
    restarts: int
    scout: int
    targets: int
    objective: Objective
    peak: float
    skip: int
    first: Attack | None = None
    bounds: Bounds = field(default=None, repr=False)
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.scout < max(self.steps, 1) or self.skip < 0 or self.targets < 0:
            raise WalnutError("odi_pgd needs 0 <= scout < steps, and targets and skip >= 0")

    def begin(self, x0: Tensor) -> Tensor:
        """Return ``x0`` with the entries at an end of the box moved inwards by a thousandth of eps, in all.

        A network that clips its inputs has no gradient in an entry that is exactly at the end.
        """
        if self.bounds is None:
            return x0
        entries = x0[0].numel() if self.norm is l2 and len(x0) else 1
        low, high = self.bounds
        hair = min(_HAIR * self.eps / max(entries, 1) ** 0.5, (high - low) / 4)
        return x0.clamp(low + hair, high - hair)

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels ``y`` (n,)."""
        prepare(model, x, self.constraint)
        y, watch = whole(y), _Watch(self.objective)
        run = Run(
            watch, misclassified(), self.steps, self.restarts, self.first is not None, True, True,
            self.seed, self.batch_size, self.drop, repr(self),
        )  # fmt: skip
        search: Search = partial(run, _Scouting(self, watch))
        return relay(self, search, model, x, y)


def odi_pgd(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 20,
    restarts: int = 5,
    scout: int | None = None,
    targets: int = 0,
    objective: Objective = margin(),
    peak: float = 2.0,
    skip: int = 0,
    first: Attack | None = None,
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> OdiPgd:
    """PGD with output-diversified starts: short runs that climb different hills.

        scouting:  x ← project(x + eps · direction(∇ₓ w·z(x)))            w uniform in [−1, 1]^classes
        climbing:  x ← project(x + peak · eps (1 + cos πt)/2 · direction(∇ₓ objective))

    (Tashiro et al. 2020, Eq. 4; the schedule of Xu et al. 2024.) At equal passes many short runs from such
    starts break more than one long run. Where we differ: the first run starts at the example and does not
    scout; in the others w is negative at the label, as in Liu et al. 2022, and runs start at the example (a
    thousandth of eps inside the box, where its entries are at the box's ends: a network that clips its
    inputs has no gradient there).

    Args:
        eps: radius in input units.
        norm: ``linf`` or ``l2``.
        steps: of a run, scouting included.
        restarts: runs per example, the later ones only where the earlier failed.
        scout: scouting steps of a run; a third of the steps unless given.
        targets: drive run i to the class of rank i mod ``targets`` (z_t − z_y); 0: away from the label.
        objective: what to climb.
        peak: the largest step, in eps.
        skip: runs to leave out; 1 leaves out the one without scouting.
        first: an attack with the same goal to run before. Where it failed, or went farther than ``eps``,
            the runs begin at its best point, drawn into the ball, and not at the example.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(4, 3).eval()
    >>> found = odi_pgd(0.2, steps=6)(net, torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> bool((found.norms["linf"] <= 0.2 + 1e-6).all())
    True
    """
    if norm is not linf and norm is not l2:
        raise WalnutError(f"odi_pgd works in linf or l2, not in {norm!r}; use apgd for l1")
    scout = (steps - 1) // 3 if scout is None else scout
    return OdiPgd(
        eps, norm, ball(norm, eps, bounds, mask), steepest(norm, mask), steps, restarts, scout, targets,
        objective, peak, skip, first, bounds, seed, batch_size,
    )  # fmt: skip
