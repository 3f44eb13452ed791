"""Attacks that see only the predicted class: Boundary attack and HopSkipJump.

Both start at an image of another class and walk along the boundary towards the example. They look for the
nearest adversarial example, without a radius: read ``norms``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from walnut.core.constraints import box, l2, linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.objectives import classified_as, misclassified
from walnut.core.types import Criterion

from .common import Norm
from .oracle import DecisionAttack, Oracle, bisect, choose, distance, wide


@dataclass(frozen=True)
class AlongBoundary:
    """Random steps on the sphere around the example, then towards it (Brendel et al. 2018, Alg. 1).

    Both steps are relative to the distance. Every 5th step also asks about the point on the sphere;
    every 30th both steps grow by half where more than half of those fool, and shrink where less than
    a fifth do; the step towards the example likewise at a quarter and a tenth.
    """

    steps: int = 1000
    sphere: float = 0.1
    towards: float = 0.05
    norm: Norm = l2

    def halvings(self, d: int) -> int:
        """Return 10: near enough to walk from."""
        return 10

    def __call__(
        self, oracle: Oracle, x0: Tensor, x: Tensor, rows: Tensor, draws: Draws, limit: box
    ) -> Tensor:
        """Return nearer adversarial points."""
        none = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        around, inward, on_sphere, taken = none + self.sphere, none + self.towards, none, none
        for step in range(1, self.steps + 1):
            sphere = limit.project(_on_sphere(x, x0, around, draws.fold(step)), x0)
            if step % 5 == 0:
                on_sphere = on_sphere + oracle(sphere, rows)
            far, length = distance(sphere, x0, l2), distance(x, x0, l2)
            shrink = (1 - inward) * length / far.clamp_min(torch.finfo(x.dtype).tiny)
            nearer = limit.project(x0 + wide(shrink.clamp_max(1), x) * (sphere - x0), x0)
            better = oracle(nearer, rows) & (distance(nearer, x0, l2) < length)
            x, taken = choose(better, nearer, x), taken + better
            if step % 30 == 0:
                for share, low, high, both in (
                    (on_sphere / 6, 0.2, 0.5, True),
                    (taken / 30, 0.1, 0.25, False),
                ):
                    factor = torch.where(share > high, 1.5, torch.where(share < low, 1 / 1.5, 1.0))
                    inward = (inward * factor).clamp_max(0.5)
                    around = around * factor if both else around
                on_sphere, taken = none, none
        return x


def _on_sphere(x: Tensor, x0: Tensor, size: Tensor, draws: Draws) -> Tensor:
    """Return a point as far from x0 as ``x``, about size · distance away from it at random."""
    delta = (x - x0).flatten(1)
    length = delta.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    unit = delta / length
    u = draws.normal(delta.shape[1], dtype=x.dtype)
    u = u - (u * unit).sum(1, keepdim=True) * unit
    u = u / u.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    turned = (unit + size[:, None] * u) / (1 + size[:, None] ** 2).sqrt()
    return x0 + (length * turned).reshape(x.shape)


@dataclass(frozen=True)
class HopSkip:
    """Estimate the boundary's normal, jump along it, come back to the boundary (Chen et al. 2020, Alg. 2).

    Step t asks about ``samples`` · √t points around, at most ``most``; jumps distance / √t, halved while
    that is not adversarial; and bisects. Where we differ: at least 10 halvings in every bisection,
    since in few dimensions theirs would stop after four.
    """

    steps: int = 20
    samples: int = 100
    most: int = 10000
    norm: Norm = l2

    def halvings(self, d: int) -> int:
        """Return log2 of d^1.5 (L2) or d² (L∞), at least 10."""
        return max(10, math.ceil(math.log2(d) * (2 if self.norm is linf else 1.5)))

    def __call__(
        self, oracle: Oracle, x0: Tensor, x: Tensor, rows: Tensor, draws: Draws, limit: box
    ) -> Tensor:
        """Return nearer adversarial points."""
        d, best = x0[0].numel(), x
        for step in range(1, self.steps + 1):
            far = distance(x, x0, self.norm)
            around = far / d
            if step == 1:
                around = torch.full_like(far, 0.1 * (limit.upper - limit.lower))
            count = min(int(self.samples * math.sqrt(step)), self.most)
            normal = self._normal(oracle, x, rows, draws.fold(step), limit, around, count)
            x = self._jump(oracle, x0, x, rows, limit, normal, far / math.sqrt(step))
            x = bisect(oracle, x0, x, rows, self.halvings(d), self.norm)
            nearer = distance(x, x0, self.norm) < distance(best, x0, self.norm)
            best = choose(nearer, x, best)
        return best

    def _normal(
        self, oracle: Oracle, x: Tensor, rows: Tensor, draws: Draws, limit: box, around: Tensor,
        count: int,
    ) -> Tensor:  # fmt: skip
        """Return the direction into the adversarial region: Σ (φ_i − mean φ) u_i (Eq. 16)."""
        total, signed, yes = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(around)
        size = wide(around, x)
        for begin in range(0, count, 16):  # the same sixteen, whatever the batch
            many = min(16, count - begin)
            stream = draws.fold(begin)
            if self.norm is linf:
                u = 2 * stream.uniform(many, *x.shape[1:], dtype=x.dtype) - 1
            else:
                u = stream.normal(many, *x.shape[1:], dtype=x.dtype)
            u = u / u.flatten(2).norm(dim=2).reshape(len(x), many, *[1] * (x.ndim - 1))
            points = (x[:, None] + size[:, None] * u).clamp(limit.lower, limit.upper)
            u = (points - x[:, None]) / size[:, None].clamp_min(torch.finfo(x.dtype).tiny)
            fooled = oracle(points.flatten(0, 1), rows.repeat_interleave(many)).reshape(-1, many)
            phi = 2 * fooled.to(x.dtype) - 1
            yes = yes + phi.sum(1)
            total = total + u.sum(1)
            signed = signed + (u * phi.reshape(*phi.shape, *[1] * (x.ndim - 1))).sum(1)
        mean = yes / count
        one_sided = mean.abs() == 1
        grad = choose(one_sided, wide(mean, x) * total, signed - wide(mean, x) * total)
        if self.norm is linf:
            return grad.sign()
        length = grad.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        return grad / wide(length, x)

    def _jump(
        self, oracle: Oracle, x0: Tensor, x: Tensor, rows: Tensor, limit: box, normal: Tensor,
        size: Tensor,
    ) -> Tensor:  # fmt: skip
        waiting = torch.arange(len(x), device=x.device)
        out = x.clone()
        for _ in range(20):
            if len(waiting) == 0:
                break
            step = wide(size[waiting], x) * normal[waiting]
            moved = limit.project(x[waiting] + step, x0[waiting])
            fooled = oracle(moved, rows[waiting])
            out[waiting[fooled]] = moved[fooled]
            waiting = waiting[~fooled]
            size = size / 2
        return out


def boundary(
    *,
    steps: int = 1000,
    targeted: bool = False,
    tries: int = 100,
    starts: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> DecisionAttack:
    """Boundary attack (Brendel et al. 2018): the nearest adversarial example in L2, from classes alone.

    Costs the example, the tries until one fools, 10 halvings, 1.2 · steps, and the check: forward only.

    Args:
        steps: of the walk (the paper goes to 25,000 and more).
        targeted: ``y`` are targets; give ``starts`` of that class.
        tries: first points tried per example.
        starts: images (k, ...) to start from, the nearest first; then, or without them, uniform noise.
        mask: bool, shaped like one example: the entries that may change; None for all.
    """
    criterion: Criterion = classified_as() if targeted else misclassified()
    return DecisionAttack(
        AlongBoundary(steps), criterion, tries, bounds, starts, mask, seed, batch_size
    )


def hop_skip_jump(
    *,
    norm: Norm = l2,
    steps: int = 20,
    samples: int = 100,
    targeted: bool = False,
    tries: int = 100,
    starts: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> DecisionAttack:
    """HopSkipJump (Chen et al. 2020): the nearest adversarial example in L2 or L∞, from classes alone.

    Args:
        norm: ``l2`` or ``linf``.
        steps: jumps; step t costs ``samples`` · √t queries and about 20 more.
        targeted: ``y`` are targets; give ``starts`` of that class.
        tries: first points tried per example.
        starts: images (k, ...) to start from, the nearest first; then, or without them, uniform noise.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> found = hop_skip_jump(steps=5)(net, torch.tensor([[0.8, 0.4]]), torch.tensor([0]))
    >>> round(float(found.norms["l2"]), 2)
    0.28
    """
    if norm is not l2 and norm is not linf:
        raise WalnutError(f"hop_skip_jump() works in l2 or linf, not in {norm!r}")
    criterion: Criterion = classified_as() if targeted else misclassified()
    walk = HopSkip(steps, samples, norm=norm)
    return DecisionAttack(walk, criterion, tries, bounds, starts, mask, seed, batch_size)
