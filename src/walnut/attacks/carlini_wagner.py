"""Carlini and Wagner's attacks: the norm and the margin in one loss, and a search over their balance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from walnut.core.constraints import l2, linf
from walnut.core.errors import WalnutError
from walnut.core.images import tanh_box
from walnut.core.method import Method

from .approach import Answers, Approach, check_norm, rows_like, size
from .common import Norm
from .minimal import MinimalAttack

_LARGEST = 1e10


@dataclass(frozen=True, kw_only=True, repr=False)
class carlini_wagner(MinimalAttack):
    """min_z ‖δ‖₂² + c · max(κ − margin(x + δ), 0) with x + δ = lower + (upper − lower)(tanh z + 1)/2.

    Adam on z; each example searches its own c: times ten until it fools, then between the smallest that
    did and the largest that did not (Carlini & Wagner 2017, §V and Eq. 6–8 with f₆). For L∞ the norm's
    place is taken by Σ max(|δ_i| − τ, 0); after each search τ falls to 0.9 of the best norm where the
    network was fooled, and c doubles where it was not (§VI-C).

    Where we differ: pixels at exactly 0 and 1 start ``tanh_box().margin`` inside the box, so that they
    can move; a search starts from the best point of those before; the result is drawn towards the
    example by ``refine`` passes (0: as published; always 0 with a confidence).

    Args:
        norm: ``l2`` or ``linf``.
        searches: values of c (L∞: of c and τ) that each example tries.
        steps: of Adam per search, each a forward and a backward pass.
        step_size: of Adam, in units of z (the width of the box is ten or so).
        c: the first value tried.
        confidence: κ, in logits: how far beyond the boundary an example must be.

    >>> from walnut.checks import check_attack
    >>> check_attack(carlini_wagner(searches=2, steps=10))
    """

    norm: Norm = l2  # type: ignore[misc]
    searches: int = 6
    steps: int = 50
    step_size: float = 0.05
    c: float = 0.3
    confidence: float = 0.0
    candidates: int = 10

    def __post_init__(self) -> None:
        check_norm(self.norm, (l2, linf))
        if self.bounds is None:
            raise WalnutError("carlini_wagner paints inside a box: give bounds=(lower, upper)")
        if self.searches < 1 or self.steps < 1 or not self.c > 0:
            raise WalnutError("carlini_wagner needs searches >= 1, steps >= 1 and c > 0")
        if self.confidence and self.refine:
            object.__setattr__(self, "refine", 0)

    def method(self, x: Tensor, answers: Answers) -> tuple[Method, int]:
        """Return the step, and how many there are."""
        kind = _Balanced if self.norm is l2 else _Levelled
        steps = self.searches * self.steps
        return kind(
            self.norm, steps, self.bounds, self.mask, answers, self.confidence,
            0 if self.targeted else self.candidates,
            self.steps, self.step_size, self.c,
        ), steps  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Balanced(Approach):
    """Kept: z, Adam's two moments, the step of this search, c, its bounds, and whether it fooled."""

    inner: int = 1
    step_size: float = 0.01
    c: float = 0.3

    def _image(self) -> tanh_box:
        return tanh_box(*(self.bounds or (0.0, 1.0)))

    def begin(self, x0: Tensor) -> Any:
        """Return z at the example and c at its first value."""
        z, none = self._image().start(x0), torch.zeros_like(x0.flatten(1)[:, 0])
        far = torch.full_like(none, float("inf"))
        return z, torch.zeros_like(z), torch.zeros_like(z), none, none + self.c, none, far, none > 0

    def penalty(self, delta: Tensor, level: Tensor, grad: Tensor) -> Tensor:
        """Return the slope of the norm's part of the loss."""
        return 2 * delta

    def enter(self, kept: Any, x0: Tensor, x: Tensor, first: Tensor) -> Any:
        """Begin at the nearest linearised boundary."""
        wide = rows_like(first, x)
        z = torch.where(wide, self._image().start(x), kept[0])
        moments = (kept[1].masked_fill(wide, 0.0), kept[2].masked_fill(wide, 0.0))
        return (z, *moments, kept[3].masked_fill(first, 0.0), *kept[4:])

    def rate(self, made: Tensor, best: Any, x0: Tensor) -> Tensor:
        """Return Adam's step in z: falling, and a fifth of the largest change at most once one fools."""
        image = self._image()
        reach = 0.4 * size(best[0] - x0, linf) / (image.upper - image.lower)
        wave = (1 + torch.cos(math.pi * (made - 1) / self.inner)) / 2
        limit = torch.where(best[1].isfinite(), reach, torch.full_like(reach, self.step_size))
        return limit.clamp_max(self.step_size) * (0.05 + 0.95 * wave)

    def move(
        self,
        x: Tensor,
        kept: Any,
        seen: Any,
        best: Any,
        values: Tensor,
        x0: Tensor,
        progress: Tensor,
    ) -> tuple[Tensor, Any]:
        """Make a step of Adam; at the end of a search choose the next c and start again."""
        z, first, second, made, c, low, high, hit = kept
        grad, fooled = seen[:2]
        image, made, hit = self._image(), made + 1, hit | fooled
        pull = torch.where(values <= self.confidence, c, torch.zeros_like(c))
        slope = self.penalty(x - x0, low, grad) - rows_like(pull, x) * grad
        slope = slope * (image.upper - image.lower) / 2 * (1 - z.tanh().square())
        if self.mask is not None:
            slope = slope * self.mask.to(slope)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope.square()
        t = rows_like(made, x)
        z = z - rows_like(self.rate(made, best, x0), x) * (first / (1 - 0.9**t)) / (
            (second / (1 - 0.999**t)).sqrt() + 1e-8
        )
        ended = made >= self.inner
        if bool(ended.any()):
            wide = rows_like(ended, x)
            c, low, high = (
                torch.where(ended, new, old)
                for new, old in zip(self.next(c, low, high, hit, best), (c, low, high), strict=True)
            )
            z = torch.where(wide, image.start(best[0]), z)
            first, second = first.masked_fill(wide, 0.0), second.masked_fill(wide, 0.0)
            made, hit = made.masked_fill(ended, 0.0), hit & ~ended
        painted = torch.where(z == image.start(x0), x0, image.paint(z))
        return painted, (z, first, second, made, c, low, high, hit)

    def next(
        self, c: Tensor, low: Tensor, high: Tensor, hit: Tensor, best: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next c and its bounds, given whether this one fooled."""
        low, high = torch.where(hit, low, c), torch.where(hit, c, high)
        middle = torch.where(high.isfinite(), (low + high) / 2, (c * 10).clamp_max(_LARGEST))
        return middle, low, high


@dataclass(frozen=True, eq=False)
class _Levelled(_Balanced):
    """For L∞: ``low`` is the level τ above which entries are pushed down; ``high`` is not used."""

    def begin(self, x0: Tensor) -> Any:
        """Start with a level that pushes nothing."""
        kept = super().begin(x0)
        image = self._image()
        return (*kept[:5], kept[5] + (image.upper - image.lower), *kept[6:])

    def penalty(self, delta: Tensor, level: Tensor, grad: Tensor) -> Tensor:
        """Push entries beyond the level, each as hard as the margin pulls on average."""
        scale = rows_like(grad.flatten(1).abs().mean(1), grad)
        return scale * delta.sign() * (delta.abs() > rows_like(level, delta))

    def next(
        self, c: Tensor, low: Tensor, high: Tensor, hit: Tensor, best: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Lower the level where the network was fooled, pull harder where it was not."""
        known = torch.where(best[1].isfinite(), best[1], low)
        level = torch.where(hit, 0.9 * known, (low + known) / 2)
        return torch.where(hit, c, (2 * c).clamp_max(_LARGEST)), level, high
