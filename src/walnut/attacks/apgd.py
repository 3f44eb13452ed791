"""Auto-PGD: presets of the steps that look after their own size, and the round of its targets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from walnut.core.adaptive import Adaptive, AdaptiveSparse
from walnut.core.constraints import l1, linf
from walnut.core.directions import sparse
from walnut.core.dlr import of_label, targeted_dlr
from walnut.core.frozen import frozen
from walnut.core.gradients import plain
from walnut.core.objectives import classified_as, cross_entropy, margin, misclassified
from walnut.core.objectives import targeted as towards
from walnut.core.queried import Queried, check_data, label_error, whole
from walnut.core.rows import Run
from walnut.core.types import (
    Adversarial,
    Constraint,
    Criterion,
    GradientEstimator,
    Model,
    Objective,
    perturbation_norms,
)

from .common import Norm, ball, masked, prepare, steepest

Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class AdaptiveAttack:
    """Auto-PGD put together: call it with ``(model, x, y)``."""

    objective: Objective
    method: Adaptive
    criterion: Criterion = misclassified()
    restarts: int = 1
    early_stop: bool = True
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    @property
    def constraint(self) -> Constraint:
        """The set that examples stay in."""
        return self.method.constraint

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels (or targets) ``y`` (n,)."""
        prepare(model, x, self.constraint)
        run = Run(
            self.objective, self.criterion, self.method.steps, self.restarts,
            self.method.random_start, self.early_stop, True, self.seed, self.batch_size, self.drop,
            repr(self),
        )  # fmt: skip
        return run(self.method, model, x, whole(y))


@dataclass(frozen=True)
class TargetRound:
    """Auto-PGD towards one class after the other, the likeliest first (APGD-T).

    An example leaves at its first success; one that is wrong from the start is returned as it is.
    Passes per example: one to rank the classes, those of each round, and one after each round that
    failed, to know which attempt came nearest.
    """

    method: Adaptive
    objective: Objective = targeted_dlr()
    targets: int = 9
    restarts: int = 1
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    @property
    def constraint(self) -> Constraint:
        """The set that examples stay in."""
        return self.method.constraint

    def _run(self, turn: int) -> Run:
        return Run(
            self.objective, of_label(misclassified()), self.method.steps, self.restarts,
            self.method.random_start, True, True, self.seed + 7919 * turn, self.batch_size,
            self.drop, "",
        )  # fmt: skip

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels ``y`` (n,)."""
        prepare(model, x, self.constraint)
        y = whole(y)
        check_data(x, y, self._run(0))
        began = time.perf_counter()
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            x, y = x.clone(), y.clone()
            return self._rounds(model, x, y, began)

    def _rounds(self, model: Model, x: Tensor, y: Tensor, began: float) -> Adversarial:
        order, prediction = self._ranking(model, x, y)
        out, success = x.clone(), prediction != y
        nearest = torch.full_like(y, float("-inf"), dtype=x.dtype)
        forward, backward = torch.ones_like(y), torch.zeros_like(y)
        first = torch.where(success, 0, -1)
        for turn in range(order.shape[1]):
            rows = (~success).nonzero()[:, 0]
            if len(rows) == 0:
                break
            pairs = torch.stack([y[rows], order[rows, turn]], 1)
            found = self._run(turn)(self.method, model, x[rows], pairs)
            worth = self._worth(model, found, y[rows])
            forward[rows] += found.forward + (~found.success).long()
            backward[rows] += found.backward
            better = worth > nearest[rows]
            kept = rows[better]
            out[kept], nearest[kept] = found.x[better], worth[better].to(nearest)
            success[kept], prediction[kept] = found.success[better], found.prediction[better]
            passed = turn * self.restarts * self.method.steps
            first[kept] = torch.where(found.success, found.first_success + passed, -1)[better]
        return Adversarial(
            out, success, prediction, first, forward, backward, perturbation_norms(out, x),
            time.perf_counter() - began, repr(self), self.seed,
        )  # fmt: skip

    def _ranking(
        self, model: Model, x: Tensor, y: Tensor
    ) -> tuple[Int[Tensor, " n t"], Int[Tensor, " n"]]:
        """Return each example's targets, the likeliest first, and what the network says of it."""
        asked = Queried(model)
        logits = torch.cat([asked(part) for part in x.split(self.batch_size)])
        error = label_error(y, asked.classes)
        if error:
            raise error
        others = logits.scatter(1, y[:, None], float("-inf"))
        order = others.argsort(dim=1, descending=True, stable=True)[:, : logits.shape[1] - 1]
        return order[:, : self.targets], logits.argmax(1)

    def _worth(self, model: Model, found: Adversarial, y: Tensor) -> Tensor:
        """Return how near each attempt came: its margin, infinite where it succeeded."""
        worth = torch.full_like(y, float("inf"), dtype=found.x.dtype)
        failed = (~found.success).nonzero()[:, 0]
        for rows in failed.split(self.batch_size) if len(failed) else ():  # not all take none
            worth[rows] = margin()(model, found.x[rows], y[rows]).to(worth)
        return worth


def _method(
    eps: float, norm: Norm, steps: int, bounds: Bounds, gradient: GradientEstimator,
    mask: Tensor | None,
) -> Adaptive:  # fmt: skip
    kind = AdaptiveSparse if norm is l1 else Adaptive
    direction = sparse() if norm is l1 else steepest(norm)
    seen = gradient if mask is None else masked(gradient, mask)
    return kind(eps, steps, ball(norm, eps, bounds, mask), direction, seen)


def apgd(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 100,
    restarts: int = 1,
    targeted: bool = False,
    early_stop: bool = True,
    objective: Objective = cross_entropy(),
    gradient: GradientEstimator = plain(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> AdaptiveAttack:
    """Auto-PGD (Croce & Hein 2020, Alg. 1; L1: 2021, Alg. 1): PGD that halves its step by itself.

    With ``objective=cross_entropy()`` it is APGD-CE, with :class:`walnut.core.dlr.dlr` APGD-DLR.
    ``steps`` + 1 points are looked at, the first a random one; the last without a gradient.

    Args:
        eps: radius in input units.
        norm: ``linf``, ``l2`` or ``l1`` (see :class:`walnut.core.adaptive.AdaptiveSparse`).
        steps: gradient steps per restart; the only other number it needs.
        restarts: runs per example, the later ones only where the earlier failed.
        targeted: ``y`` are targets to move towards.
        early_stop: return each example at its first success.
        gradient: how the gradient is had; ``averaged(...)`` for a network that is random.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(4, 3).eval()
    >>> found = apgd(0.2, steps=10)(net, torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> bool((found.norms["linf"] <= 0.2 + 1e-6).all())
    True
    """
    goal = towards(objective) if targeted else objective
    return AdaptiveAttack(
        goal, _method(eps, norm, steps, bounds, gradient, mask),
        classified_as() if targeted else misclassified(), restarts, early_stop, seed, batch_size,
    )  # fmt: skip


def apgd_t(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
    objective: Objective = targeted_dlr(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> TargetRound:
    """APGD-T: Auto-PGD on the targeted DLR loss, towards each likely class (Croce & Hein 2020, §4.1).

    Args:
        eps: radius in input units.
        targets: classes tried, by falling logit at the example itself; all others if there are fewer.
        objective: takes labels and targets side by side, (b, 2).
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(4, 2).eval()
    >>> found = apgd_t(0.2, steps=5)(net, torch.rand(5, 4), torch.tensor([0, 1, 1, 0, 1]))
    >>> bool((found.norms["linf"] <= 0.2 + 1e-6).all())
    True
    """
    return TargetRound(
        _method(eps, norm, steps, bounds, plain(), mask),
        objective,
        targets,
        restarts,
        seed,
        batch_size,
    )
