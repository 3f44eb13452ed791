"""FMN: the margin's gradient inside a ball that closes in on the boundary, for L0, L1, L2 and L∞."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.constraints import l0, l1, l2, linf
from walnut.core.directions import normalized
from walnut.core.method import Method

from .approach import FAR, Approach, check_norm, rows_like, size
from .common import Norm
from .minimal import MinimalAttack

DUAL: dict[Any, Norm] = {linf: l1, l2: l2, l1: linf}


@dataclass(frozen=True, kw_only=True, repr=False)
class fmn(MinimalAttack):
    """δ ← project_ε(δ + α g/‖g‖₂), clipped to the box, with ε moved to where the boundary seems to be.

    Before a row has fooled the network, ε = ‖δ‖ + margin/‖g‖_dual, the linear estimate; then ε grows by
    1 + γ where the network is not fooled and shrinks by 1 − γ (to the best norm at most) where it is.
    α and γ fall as cosines, to a thousandth (Pintor et al. 2021, Alg. 1). For L0, ε is a number of entries.

    Where we differ: the first step goes to the nearest linearised boundary; ε is the linear estimate times
    1 + γ, which crosses it (the estimate alone ends on the boundary, and a quarter of the test examples
    were never fooled); α is a share of the ball's reach in L2 and not a length, so that no scale of the
    input is assumed: √d ε for L∞, ε for L2, √ε for L0, and for L1 min(ε, √(wε)) with w the width of the
    box (steps of the ball's own size leave the wrong hollow of a network with small gradients); the
    gradient leaves out entries that the box holds (L1 and L0 get stuck on them); the projection on L1 is
    the Euclidean one; L0 keeps the entries of largest δ_i g_i inside the box, not of largest δ_i; the
    result is drawn towards the example by ``refine`` bisections.

    Where passes count, ``fmn(steps=14, refine=4)`` takes 37, not 213, and ends farther off: by 2-5 % on
    seven of the eight rows in L2 and L∞ of benchmarks/results/minimal_norms.json, by 15 % on the eighth.

    Args:
        norm: ``linf``, ``l2``, ``l1`` or ``l0``.
        steps: each a forward and a backward pass.
        step_size: α at the beginning, in reaches of the ball.
        gamma: share by which the radius changes at the beginning.
        candidates: classes of the largest logits to look at in the first step, each but the label's a
            backward pass (0: as published). More are not better: where gradients are small, the nearest
            linearised boundary is often not the nearest one.

    >>> from walnut.core.constraints import linf
    >>> from walnut.checks import check_attack
    >>> check_attack(fmn(norm=linf, steps=20))
    """

    norm: Norm = l2  # type: ignore[misc]
    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.2
    candidates: int = 4

    def __post_init__(self) -> None:
        check_norm(self.norm, (linf, l2, l1, l0))

    def method(self, x: Tensor, answers: Any) -> tuple[Method, int]:
        """Return the step, and how many there are."""
        return _Closing(
            self.norm, self.steps, self.bounds, self.mask, answers, 0.0,
            0 if self.targeted else self.candidates, self.step_size, self.gamma,
        ), self.steps  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Closing(Approach):
    step_size: float = 1.0
    gamma: float = 0.2

    def begin(self, x0: Tensor) -> Tensor:
        """Return the radius of each row; in L0 one entry."""
        first = 1.0 if self.norm is l0 else float("inf")
        return torch.full_like(x0.flatten(1)[:, 0], first)

    def enter(self, kept: Tensor, x0: Tensor, x: Tensor, first: Tensor) -> Tensor:
        """Leave the radius open until the point is seen; in L0 it is that of the step."""
        if self.norm is l0:
            return torch.where(first, size(x - x0, l0).clamp_min(1), kept)
        return kept.masked_fill(first, float("inf"))

    def move(
        self,
        x: Tensor,
        kept: Tensor,
        seen: Any,
        best: Any,
        values: Tensor,
        x0: Tensor,
        progress: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Set the radius, step, project, clip."""
        grad, fooled, _ = seen
        if self.bounds is not None:  # entries at the end of the box cannot follow
            ended = ((x >= self.bounds[1]) & (grad > 0)) | ((x <= self.bounds[0]) & (grad < 0))
            grad = grad.masked_fill(ended, 0.0)
        wave = (1 + torch.cos(math.pi * progress)) / 2
        gamma, share = 1e-3 + (self.gamma - 1e-3) * wave, 1e-3 + (self.step_size - 1e-3) * wave
        if self.norm is l0:
            radius = self._count(kept, fooled, best[1], gamma, x0[0].numel())
        else:
            radius = self._radius(x - x0, kept, grad, fooled, best[1], values, gamma)
        alpha = share * self._reach(radius, x0).clamp_max(FAR)
        delta = (x - x0) + rows_like(alpha, x) * normalized().update(grad, ())[0]
        if self.norm is l0:
            inside = self.clip(x0 + delta) - x0
            return self.clip(x0 + worthiest(inside, seen[0], radius)), radius
        return self.clip(x0 + project(delta, radius, self.norm)), radius

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
        self, delta: Tensor, kept: Tensor, grad: Tensor, fooled: Tensor, best: Tensor, values: Tensor,
        gamma: Tensor,
    ) -> Tensor:  # fmt: skip
        dual = size(grad, DUAL[self.norm]).clamp_min(torch.finfo(grad.dtype).tiny)
        guess = (size(delta, self.norm) + values.abs() / dual).nan_to_num(posinf=1e30)
        outside = torch.where(best.isfinite(), kept, guess) * (1 + gamma)
        return torch.where(fooled, torch.minimum(kept * (1 - gamma), best), outside)

    def _count(
        self, kept: Tensor, fooled: Tensor, best: Tensor, gamma: Tensor, entries: int
    ) -> Tensor:
        less = torch.minimum(torch.minimum(kept - 1, (kept * (1 - gamma)).floor()), best)
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
