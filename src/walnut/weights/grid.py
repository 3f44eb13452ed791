"""Whole numbers times a learned step: the weight an entropy coder likes best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .quantised import straight_through
from .represent import latents
from .representation import Representation

_DIVISORS = 16
"""How many times smaller than the smallest non-zero the step of a finished weight may be."""


def _short(step: Tensor) -> Tensor:
    """Return the step to 8 bits of mantissa (bfloat16), with the gradient of the step."""
    return step + (step.detach().bfloat16().to(step.dtype) - step.detach())


class Gridded(Representation):
    """w = s·round(clip(v / s, ±most)), s = exp(log_step) to 8 bits of mantissa.

    The latents are ``v``, shaped like the weight, and ``log_step``. Rounding is passed straight
    through, so ∂w/∂v = 1 inside the clip and ∂w/∂s = round(v/s) − v/s: Eq. 2-5 of Esser et al. 2020
    ("Learned step size quantization"). Where we differ: the step is learned by its logarithm, which
    keeps it positive and needs no scale of its gradient.
    """

    source: ClassVar[bool] = True

    def __init__(self, most: int, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.most = most
        self.axes = axes

    def in_steps(self, *parts: Tensor) -> Tensor:
        """Return clip(v / s, ±most), differentiable: what is rounded to make the weight."""
        v, log_step = parts
        return (v / _short(log_step.exp())).clamp(-self.most, self.most)

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight of (v, log_step)."""
        v, log_step = latents
        step = _short(log_step.exp())
        place = (v / step).clamp(-self.most, self.most)
        # + 0: −0.3 rounds to −0.0, a second kind of zero
        return straight_through(place, place.round() + 0.0) * step

    def right_inverse(self, w: Tensor) -> tuple[Tensor, ...]:
        """Return w and a step: the one that ``w`` has, or the one that rounds it with least error."""
        rows, shape = _rows(w.detach(), self.axes)
        known = whole(rows)
        step = _nearest_step(rows, self.most)
        if known is not None:
            fits = known[0].abs().amax(1, keepdim=True) <= self.most
            live = (rows != 0).any(1, keepdim=True)
            step = torch.where(fits & live, known[1], step)
        return w, step.log().reshape(shape)


def _moved(w: Tensor, axes: tuple[int, ...]) -> Tensor:
    return w.movedim(axes, tuple(range(len(axes)))) if axes else w


def _rows(w: Tensor, axes: tuple[int, ...]) -> tuple[Float[Tensor, " r n"], tuple[int, ...]]:
    """Return a row for each step, and the shape in which steps multiply the weight."""
    shape = tuple(n if i in axes else 1 for i, n in enumerate(w.shape))
    count = 1
    for n in shape:
        count *= n
    return _moved(w, axes).reshape(count, -1), shape


def whole(rows: Float[Tensor, " r n"]) -> tuple[Int[Tensor, " r n"], Float[Tensor, " r 1"]] | None:
    """Return (k, s) with rows = k·s exactly, s to 8 bits of mantissa; None where there is none.

    Only finished weights have such a step, and it is read off their values: the smallest non-zero
    over 1, 2, ..., 16. A row of zeros gets a step of 1.

    >>> k, s = whole(torch.tensor([[0.5, -0.75, 0.0]]))
    >>> k.tolist(), s.tolist()
    ([[2, -3, 0]], [[0.25]])
    """
    size = rows.abs()
    live = (rows != 0).any(1, keepdim=True)
    small = torch.where(size > 0, size, torch.inf).amin(1, keepdim=True)
    step = torch.ones_like(small)
    open_ = live.clone()
    for divisor in range(1, _DIVISORS + 1):
        if not bool(open_.any()):
            break
        trial = torch.where(live, small / divisor, 1.0)
        short = trial.bfloat16().to(trial.dtype)
        k = (rows / short).round()
        good = open_ & (trial == short) & (k * short == rows).all(1, keepdim=True)
        step = torch.where(good, short, step)
        open_ &= ~good
    if bool(open_.any()) or not bool(rows.isfinite().all()):
        return None
    return (rows / step).round().long(), step


def _nearest_step(rows: Float[Tensor, " r n"], most: int) -> Float[Tensor, " r 1"]:
    """Return for each row the step with the least squared error, of 48 on a logarithmic scale."""
    top = rows.abs().amax(1, keepdim=True)
    best = torch.where(top > 0, top / most, 1.0)
    error = torch.full_like(best, torch.inf)
    for number in range(48):
        step = torch.where(top > 0, top / most * 0.93**number, 1.0)
        off = (rows - (rows / step).round().clamp(-most, most) * step).square().sum(1, keepdim=True)
        best, error = torch.where(off < error, step, best), torch.minimum(error, off)
    return best


@dataclass(frozen=True)
class Grid:
    """Hold a weight to whole numbers k in {−most, ..., most} times a step that is learned.

    Args:
        most: the largest whole number, from 1 (three values) to 32767.
        axes: along which steps differ: ``()`` one step for the tensor, ``(0,)`` one an output.

    The start of the step has the least squared error. Train at a low rate of the step's logarithm,
    with :class:`walnut.training.rate` where the file shall be small.

    >>> from walnut.weights import represent
    >>> net = represent(nn.Linear(20, 5), {"weight": Grid(most=1)})
    >>> len(net.weight.unique())
    3
    """

    most: int = 7
    axes: tuple[int, ...] = ()
    source: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.most <= 32767:
            raise WalnutError(f"the largest whole number is from 1 to 32767, not {self.most}")
        if len(set(self.axes)) != len(self.axes) or any(a < 0 for a in self.axes):
            raise WalnutError(f"axes are counted from 0, each once: {self.axes}")

    def build(self, w: Tensor) -> Gridded:
        """Return the source for the weight ``w``."""
        if not w.is_floating_point():
            raise WalnutError(f"weights on a grid must be floating-point, not {w.dtype}")
        if self.axes and max(self.axes) >= w.ndim:
            raise WalnutError(f"a weight of {w.ndim} axes has no axis {max(self.axes)}")
        return Gridded(self.most, self.axes)


def in_steps(model: nn.Module) -> Mapping[str, Tensor]:
    """Return every weight on a grid as {name: v / s}, differentiable, before it is rounded.

    This is what :class:`walnut.training.rate` reads.
    """
    found = {}
    for name, (source, held) in latents(model).items():
        if isinstance(source, Gridded):
            found[name] = source.in_steps(*held)
    return found
