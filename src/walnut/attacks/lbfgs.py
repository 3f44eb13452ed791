"""Szegedy's attack: box-constrained L-BFGS, with a search over the weight of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from walnut.core.constraints import l2
from walnut.core.errors import WalnutError
from walnut.core.objectives import cross_entropy
from walnut.core.queried import Queried
from walnut.core.types import Model, Objective

from .approach import Answers, boundary, rivals, size, slack
from .minimal import MinimalAttack, Record


@dataclass(frozen=True, kw_only=True, repr=False)
class lbfgs(MinimalAttack):
    """min_r ‖r‖₂² + w · loss(x + r) subject to x + r in the box, for the smallest w that fools.

    With ``targeted=True`` the loss is −log p_l for the label l given as ``y``, any class (Szegedy et al.
    2014, §4.1, who write c = 1/w in front of |r|); otherwise l is the class whose linearised boundary is
    nearest. SciPy's L-BFGS-B, one example at a time; w goes up or down by tens to a bracket, then bisects.

    Where we differ: the squared norm, which is smooth at 0; the nearest fooling point of all that were
    asked about is returned, not the last minimiser; and it is drawn towards the example by ``refine``
    passes (0: as published).

    Args:
        searches: values of w that each example tries.
        iterations: of L-BFGS for each.
        weight: the first value of w.
        candidates: classes of the largest logits among which the nearest is looked for.
        objective: the loss; the paper's cross-entropy pulls away from all other classes at once.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> found = lbfgs(targeted=True)(net, torch.tensor([[0.7, 0.5]]), torch.tensor([1]))
    >>> round(float(found.norms["l2"]), 3)  # the boundary is 0.2 / √2 away
    0.141
    """

    searches: int = 9
    iterations: int = 20
    weight: float = 1.0
    candidates: int = 10
    objective: Objective = cross_entropy()
    norm: ClassVar[Any] = l2

    def __post_init__(self) -> None:
        if self.searches < 1 or self.iterations < 1 or not self.weight > 0:
            raise WalnutError("lbfgs needs searches >= 1, iterations >= 1 and weight > 0")

    def search(self, record: Record, rows: Tensor, model: Model, x: Tensor, y: Tensor) -> None:
        """Attack one example after the other."""
        for i in rows.tolist():
            one = _Example(self, Queried(model), x[i : i + 1], y[i : i + 1])
            low, high, weight = 0.0, float("inf"), self.weight
            for _ in range(self.searches):
                if one.solve(weight):
                    high = weight
                else:
                    low = weight
                if np.isfinite(high):
                    weight = (low + high) / 2 if low > 0 else high / 10
                else:
                    weight *= 10
            record.x[i] = one.best[0]
            record.first[i] = one.first
            record.forward[i] += one.net.forward
            record.backward[i] += one.net.backward
        net = Queried(model)
        record.check(net, y, rows, self.criterion(), self.batch_size)


class _Example:
    """One example being attacked: what was asked, and the nearest point that fools."""

    def __init__(self, attack: lbfgs, net: Queried, x0: Tensor, y: Tensor) -> None:
        self.attack, self.net, self.x0, self.y = attack, net, x0, y
        self.answers = Answers(attack.targeted)
        self.goal = y if attack.targeted else self.nearest()
        self.best, self.length, self.margin = x0, float("inf"), float("-inf")
        self.first, self.asked = -1, 0

    def nearest(self) -> Tensor:
        """Return the class whose linearised boundary is nearest."""
        x = self.x0.detach().requires_grad_()
        self.answers(self.net, x, self.y)
        classes = rivals(self.answers, self.attack.candidates - 1)
        away, _ = boundary(self.answers, x, classes, l2, self.attack.mask, self.attack.bounds)
        return classes.gather(1, away.argmin(1)[:, None])[:, 0]

    def solve(self, weight: float) -> bool:
        """Minimise for one weight, starting from the example; say whether any point fooled."""
        from scipy.optimize import minimize  # slow to load, and only this attack needs it

        before, self.hit = self.asked, False
        bounds = None if self.attack.bounds is None else [self.attack.bounds] * self.x0.numel()
        minimize(
            self.loss, self.x0.flatten().double().cpu().numpy(), args=(weight,), jac=True,
            method="L-BFGS-B", bounds=bounds, options={"maxiter": self.attack.iterations},
        )  # fmt: skip
        assert self.asked > before
        return self.hit

    def loss(self, point: np.ndarray, weight: float) -> tuple[float, np.ndarray]:
        """Return ‖r‖² + w · loss and its gradient, and note the point."""
        flat = torch.from_numpy(point.copy()).to(self.x0)
        x = flat.reshape(self.x0.shape)
        if self.attack.bounds is not None:
            x = x.clamp(*self.attack.bounds)
        if self.attack.mask is not None:
            x = torch.where(self.attack.mask.to(x.device), x, self.x0)
        x = x.detach().requires_grad_()
        margin = self.answers(self.net, x, self.y)
        loss = self.attack.objective(lambda _: self.answers.logits, x, self.goal)
        (grad,) = self.answers.gradients([loss], x)
        if self.attack.mask is not None:
            grad = grad * self.attack.mask.to(grad)
        self.note(x.detach(), margin.detach())
        r = (x - self.x0).detach().double()
        value = float(r.square().sum() + weight * loss.detach().double())
        slope = 2 * r + weight * grad.double()
        return value, slope.flatten().cpu().numpy()

    def note(self, x: Tensor, margin: Tensor) -> None:
        """Keep the point if it is the nearest that fools, or the strongest attempt."""
        length, sure = float(size(x - self.x0, l2)), bool(margin > slack(self.answers.logits))
        if sure:
            self.hit = True
            self.first = self.asked if self.first < 0 else self.first
            if length < self.length:
                self.best, self.length = x, length
        elif (
            self.length == float("inf")
            and self.asked
            and float(margin) > self.margin
            and length > 0
        ):
            self.best, self.margin = x, float(margin)
        self.asked += 1
