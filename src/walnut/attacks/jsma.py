"""JSMA: change the few entries that the Jacobian says matter most, two at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from walnut.core.constraints import l0
from walnut.core.errors import WalnutError
from walnut.core.method import Method

from .approach import Answers
from .minimal import MinimalAttack

_POOL = 1024  # entries among which pairs are looked for


@dataclass(frozen=True, kw_only=True, repr=False)
class jsma(MinimalAttack):
    """Change by θ the pair (p, q) with the largest −(α_p + α_q)(β_p + β_q), α sum > 0 > β sum; repeat.

    Towards a target t: α = θ ∂z_t/∂x and β = θ Σ_{k≠t} ∂z_k/∂x; away from a label y, the two change
    places with their signs: α = θ Σ_{k≠y} ∂z_k/∂x, β = θ ∂z_y/∂x (Papernot et al. 2016, Eq. 8 and Alg. 3;
    the untargeted form is Wiyatno & Xu's, 2018). Entries at the end of the box are out of the search.

    Where we differ: logits in place of probabilities, whose slopes vanish where the network is sure;
    where no pair has both signs the one with the largest α − β is taken; pairs are looked for among the
    1024 entries with the largest α − β (all, up to 1024 entries).

    Args:
        theta: change of an entry, in input units; negative to make entries smaller.
        share: of the entries that may change at most (the paper's Υ).

    >>> from walnut.checks import check_attack
    >>> check_attack(jsma(share=0.3))
    """

    theta: float = 1.0
    share: float = 0.145
    refine: int = 0
    norm: ClassVar[Any] = l0
    stops: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.theta == 0 or not 0 < self.share <= 1:
            raise WalnutError("jsma needs a theta other than 0 and a share in (0, 1]")

    def method(self, x: Tensor, answers: Answers) -> tuple[Method, int]:
        """Return the step, and how many there are."""
        pairs = max(1, math.floor(self.share * x[0].numel() / 2))
        width = 1.0 if self.bounds is None else self.bounds[1] - self.bounds[0]
        return _Pairs(self, answers), pairs * max(1, math.ceil(width / abs(self.theta)))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """State: the point, which entries have changed."""

    attack: jsma
    answers: Answers

    def start(self, x0: Tensor, restart: Tensor, draws: Any) -> Any:
        return x0, torch.zeros_like(x0, dtype=torch.bool)

    def point(self, state: Any) -> Tensor:
        return state[0]

    def evaluate(self, value: Any, state: Any, draws: Any) -> tuple[Tensor, Any]:
        """Return the margin, and the two slopes of every entry."""
        x = state[0].detach().requires_grad_()
        values = value(x)
        logits, y = self.answers.logits, self.answers.y
        own = logits.gather(1, y[:, None])[:, 0]
        own_slope, rest_slope = self.answers.gradients([own, logits.sum(1) - own], x)
        pair = (own_slope, rest_slope) if self.attack.targeted else (rest_slope, own_slope)
        return values.detach(), tuple(self.attack.theta * slope for slope in pair)

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Any
    ) -> Any:
        """Change one pair of entries of each row."""
        x, changed = state
        attack, theta = self.attack, self.attack.theta
        open_ = torch.ones_like(changed)
        if attack.bounds is not None:
            open_ = x < attack.bounds[1] if theta > 0 else x > attack.bounds[0]
        if attack.mask is not None:
            open_ = open_ & attack.mask.to(x.device)
        flat = open_.flatten(1)
        count = max(2, math.floor(attack.share * flat.shape[1]))
        full = changed.flatten(1).sum(1) + 2 > count
        flat = flat & (changed.flatten(1) | ~full[:, None])
        chosen = torch.zeros_like(flat)
        for i, (alpha, beta) in enumerate(zip(*(s.flatten(1) for s in seen), strict=True)):
            chosen[i, _pair(alpha, beta, flat[i])] = True
        chosen = chosen.reshape(x.shape)
        moved = torch.where(chosen, x + theta, x)
        if attack.bounds is not None:
            moved = moved.clamp(*attack.bounds)
        return moved, changed | chosen


def _pair(alpha: Tensor, beta: Tensor, allowed: Tensor) -> Tensor:
    """Return the two entries to change; fewer where fewer may."""
    places = allowed.nonzero()[:, 0]
    if len(places) <= 2:
        return places
    gain = (alpha - beta)[places]
    if len(places) > _POOL:
        top = gain.topk(_POOL).indices.sort().values
        places, gain = places[top], gain[top]
    a, b = alpha[places], beta[places]
    up, down = a[:, None] + a, b[:, None] + b
    score = torch.where((up > 0) & (down < 0), -up * down, torch.zeros_like(up)).triu(1)
    if not bool((score > 0).any()):
        return places[gain.topk(2).indices]
    best = int(score.argmax())
    return places[torch.tensor([best // len(places), best % len(places)], device=places.device)]
