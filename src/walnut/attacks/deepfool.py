"""DeepFool: step to the nearest of the linearised decision boundaries until one is crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from walnut.core.constraints import l2, linf
from walnut.core.errors import WalnutError
from walnut.core.method import Method

from .approach import Answers, boundary, check_norm, rivals
from .common import Norm
from .minimal import MinimalAttack


@dataclass(frozen=True, kw_only=True, repr=False)
class deepfool(MinimalAttack):
    """r_i = |g_k| w_k / ‖w_k‖₂² towards the class k whose boundary is nearest, |g_k| / ‖w_k‖ smallest.

    g_k = z_k − z_y and w_k = ∇ₓ g_k at the current point; x̂ = x + (1 + overshoot) Σ r_i, clipped to the
    box; a row leaves at the step that fools it (Moosavi-Dezfooli et al. 2016, Alg. 2; for L∞ their §2.4
    with p = ∞: r_i = |g_k| / ‖w_k‖₁ · sign w_k).

    Where we differ: one forward pass a step gives all gradients, a backward pass per class; after the
    first step only the ``kept`` classes that were nearest then are linearised again; and the result is
    drawn back towards the example by ``refine`` passes (0: as published).

    Args:
        norm: ``l2`` or ``linf``.
        steps: at most.
        candidates: classes of the largest logits to look at in the first step, y among them.
        kept: classes to look at in later steps.
        overshoot: how far beyond the boundary, as a share of the way.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> found = deepfool()(net, torch.tensor([[0.7, 0.5]]), torch.tensor([0]))
    >>> round(float(found.norms["l2"]), 3)  # the boundary is 0.2 / √2 away
    0.141
    """

    norm: Norm = l2  # type: ignore[misc]
    steps: int = 50
    candidates: int = 10
    kept: int = 3
    overshoot: float = 0.02
    stops: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_norm(self.norm, (l2, linf))
        if self.targeted:
            raise WalnutError("deepfool has no targeted form; use ddn, fmn or carlini_wagner")
        if self.candidates < 2 or self.kept < 1:
            raise WalnutError("deepfool needs candidates >= 2 and kept >= 1")

    def method(self, x: Tensor, answers: Answers) -> tuple[Method, int]:
        """Return the step, and how many there are."""
        return _Linearised(self, answers), self.steps


@dataclass(frozen=True, eq=False)
class _Linearised:
    """State: the point, Σ r_i, the classes by distance (-1: not asked yet)."""

    attack: deepfool
    answers: Answers

    def start(self, x0: Tensor, restart: Tensor, draws: Any) -> Any:
        width = self.attack.candidates - 1
        return x0, torch.zeros_like(x0), restart.new_full((len(restart), width), -1)

    def point(self, state: Any) -> Tensor:
        return state[0]

    def evaluate(self, value: Any, state: Any, draws: Any) -> tuple[Tensor, Any]:
        """Return the margin, and the nearest linearised boundary: step and classes in order."""
        x = state[0].detach().requires_grad_()
        values = value(x)
        step, order = torch.zeros_like(x), state[2]
        if bool((values > 0).all()):
            self.answers.unused(x)
        else:
            step, order = self._nearest(x, state[2])
        return values.detach(), (step.detach(), order)

    def _nearest(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step to the nearest boundary of those asked, and the classes by distance."""
        attack, fresh = self.attack, order[:, :1] < 0
        largest = rivals(self.answers, order.shape[1])
        asked = torch.where(fresh, largest, order[:, : largest.shape[1]].clamp_min(0))
        if not bool(fresh.any()):
            asked = asked[:, : attack.kept]
        away, steps = boundary(self.answers, x, asked, attack.norm, attack.mask)
        column = torch.arange(away.shape[1], device=x.device)
        away = away.masked_fill(~fresh & (column >= attack.kept), float("inf"))
        turn = away.argsort(dim=1, stable=True)
        step = steps[torch.arange(len(x), device=x.device), turn[:, 0]]
        after = order.clone()
        after[:, : asked.shape[1]] = torch.where(fresh, asked.gather(1, turn), asked)
        return step, after

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Any
    ) -> Any:
        """Add the step to the path."""
        path = state[1] + seen[0]
        x = x0 + (1 + self.attack.overshoot) * path
        return (x if self.attack.bounds is None else x.clamp(*self.attack.bounds)), path, seen[1]
