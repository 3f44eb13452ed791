"""The nearest point of a half-space inside a box, for each norm, and the point of a ray of a given length."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.constraints import l0, l2, linf

from .common import Norm

_ROUNDS = 20  # three or four are the rule
_LONGEST = 1e30
_FARTHEST = 1e6


def nearest(
    w: Float[Tensor, " b m d"],
    gap: Float[Tensor, " b m"],
    room: Float[Tensor, " b m d"],
    norm: Norm,
) -> Float[Tensor, " b m d"]:
    """Return argmin ‖δ‖ with w·δ ≥ gap and 0 ≤ δ_i ≤ room_i, where all w_i ≥ 0 and room is finite.

    δ_i = min(t, room_i) for L∞ and min(t w_i, room_i) for L2; for L1 the entries of largest w_i are filled
    to their room until the gap is met, and for L0 those of largest w_i room_i. Where the box cannot meet
    the gap, δ_i = room_i wherever w_i > 0.

    >>> import torch
    >>> from walnut.core.constraints import l2
    >>> w, room = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[9.0, 0.5]]])
    >>> nearest(w, torch.tensor([[5.0]]), room, l2)  # (0.6, 0.8) without the box
    tensor([[[1.0000, 0.5000]]])
    """
    room = torch.where(w > 0, room, 0.0)
    if norm is l2:
        return _level(w, gap[..., None], room, w)
    if norm is linf:
        return _level(w, gap[..., None], room, (w > 0).to(w))
    return _filled(w, gap[..., None], room, w * room if norm is l0 else w)


def stretched(
    delta: Float[Tensor, " b d"], radius: Float[Tensor, " b"], room: Float[Tensor, " b d"]
) -> Float[Tensor, " b d"]:
    """Return sign(δ_i) · min(t |δ_i|, room_i) with t such that its L2 norm is ``radius`` (or the corner).

    What the box clips off one entry the others make up for.

    >>> import torch
    >>> delta, room = torch.tensor([[3.0, 4.0]]), torch.tensor([[9.0, 0.8]])
    >>> stretched(delta, torch.tensor([1.0]), room)  # (0.6, 0.8) would do without the box
    tensor([[0.6000, 0.8000]])
    """
    rate = delta.abs() * (room > 0)
    rate = rate / rate.amax(1, keepdim=True).clamp_min(torch.finfo(rate.dtype).tiny)
    t, whole = torch.zeros_like(radius[:, None]), radius[:, None].clamp_max(_FARTHEST).square()
    for _ in range(_ROUNDS):
        full = t * rate >= room
        left = whole - torch.where(full, room.square(), 0.0).sum(1, keepdim=True)
        free = torch.where(full, 0.0, rate.square()).sum(1, keepdim=True)
        new = torch.where(free > 0, (left.clamp_min(0) / free).sqrt(), t)
        rising = new > t * (1 + 1e-6)
        if not bool(rising.any()):
            break
        t = torch.where(rising, new, t)
    return torch.minimum(t * rate, room) * delta.sign()


def _level(w: Tensor, gap: Tensor, room: Tensor, rate: Tensor) -> Tensor:
    """Return δ = min(t rate, room) with w·δ = gap: t rises as entries meet their room, and never falls."""
    slope, most, t = w * rate, w * room, torch.zeros_like(gap)
    for _ in range(_ROUNDS):
        full = t * rate >= room
        left = gap - torch.where(full, most, 0.0).sum(2, keepdim=True)
        free = torch.where(full, 0.0, slope).sum(2, keepdim=True)
        new = torch.where(free > 0, (left / free).clamp_max(_LONGEST), t)
        rising = new > t * (1 + 1e-6)  # a row that stands keeps its t, whatever the others do
        if not bool(rising.any()):
            break
        t = torch.where(rising, new, t)
    return torch.minimum(t * rate, room)


def _filled(w: Tensor, gap: Tensor, room: Tensor, worth: Tensor) -> Tensor:
    """Return the step that fills entries, those of most worth first."""
    order = worth.argsort(dim=2, descending=True, stable=True)
    slope, space = w.gather(2, order), room.gather(2, order)
    gain = slope * space
    left = gap - (gain.cumsum(2) - gain)
    filled = torch.minimum((left / slope.clamp_min(torch.finfo(w.dtype).tiny)).clamp_min(0), space)
    return torch.zeros_like(w).scatter(2, order, filled)
