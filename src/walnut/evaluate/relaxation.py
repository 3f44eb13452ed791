"""Bounds of every value of a network over boxes of inputs: intervals, and linear forms carried backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .recorded import Node


@dataclass
class Relaxed:
    """A graph over some boxes: bounds of every value, one row per example."""

    graph: tuple[Node, ...]
    low: list[Tensor]
    high: list[Tensor]
    walked: float = 0.0  # linear forms, each by the share of the network it went through

    def take(self, rows: Tensor) -> Relaxed:
        """Return some of the boxes."""
        return Relaxed(self.graph, [t[rows] for t in self.low], [t[rows] for t in self.high])


def intervals(boxes: Relaxed, tighten: bool, start: int = 1) -> None:
    """Fill in bounds of every value by intervals; ``tighten`` keeps what is known if it is better."""
    for at, node in enumerate(boxes.graph[start:], start):
        lows, highs = [boxes.low[p] for p in node.parents], [boxes.high[p] for p in node.parents]
        pairs = list(zip(lows, highs, strict=True))
        if node.kind == "affine":
            middle = node.call(*((above + below) / 2 for below, above in pairs))
            radius = _reached(node, [(above - below) / 2 for below, above in pairs])
            low, high = middle - radius, middle + radius
        else:
            low, high = node.call(*lows), node.call(*highs)
        if tighten:
            boxes.low[at] = torch.maximum(boxes.low[at], low)
            boxes.high[at] = torch.minimum(boxes.high[at], high)
        else:
            boxes.low.append(low)
            boxes.high.append(high)


def _reached(node: Node, radii: list[Tensor]) -> Tensor:
    """Return |A| r of an affine part, parent by parent."""
    if node.reach is not None:
        return node.reach(*radii)
    zero = node.call(*(0 * r[:1] for r in radii))
    total = torch.zeros_like(zero)
    for at in range(len(radii)):
        alone = [r if i == at else 0 * r for i, r in enumerate(radii)]
        total = total + (node.call(*alone) - zero).abs()
    return total


def exact(graph: tuple[Node, ...], at: int) -> bool:
    """Say whether a value is one affine map of the input, so that its interval is its true range."""
    while graph[at].kind == "affine" and len(graph[at].parents) == 1:
        before = graph[at].parents[0]
        if graph[at].reach is not None and any(
            node.reach is not None for node in graph[1:at]
        ):  # two weighted layers in a row: the interval of the second is not exact
            return False
        at = before
    return graph[at].kind == "input"


Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(lower, upper, slope above) to the slope of the line below each ReLU."""


def parallel(low: Tensor, high: Tensor, above: Tensor) -> Tensor:
    return above


def near(low: Tensor, high: Tensor, above: Tensor) -> Tensor:
    """Return the slope, 0 or 1, that leaves the smaller triangle, where a ReLU is open."""
    return torch.where((low < 0) & (high > 0), (high > -low).to(low), above)


def walk(
    boxes: Relaxed, end: int, forms: Tensor, who: Tensor, slope: Slope
) -> tuple[Tensor, Tensor]:
    """Carry linear forms of a value back to the input, and return their bounds (r,), lower and upper.

    ``forms`` is (r, *shape of value ``end``), ``who`` (r,) the example of each. The upper bounds mean
    something with parallel slopes only, where lines above and below a ReLU carry the same form.
    """
    boxes.walked += len(who) * end / (len(boxes.graph) - 1)
    forms_at: dict[int, Tensor] = {end: forms}
    constant = forms.new_zeros(2, len(who))
    for at in range(end, 0, -1):
        if at not in forms_at:
            continue
        node, form = boxes.graph[at], forms_at.pop(at)
        if node.kind == "affine":
            carried, shift = _through(node, form, [boxes.graph[p].shape for p in node.parents])
        else:
            step = _relu if node.kind == "relu" else _pool
            p = node.parents[0]
            one, shift = step(node, form, boxes.low[p], boxes.high[p], who, slope)
            carried = [one]
        constant = constant + shift
        for p, part in zip(node.parents, carried, strict=True):
            forms_at[p] = forms_at[p] + part if p in forms_at else part
    if 0 not in forms_at:
        return constant[0], constant[1]
    form = forms_at[0]
    low, high = boxes.low[0][who], boxes.high[0][who]
    middle = (form * (high + low) / 2).flatten(1).sum(1)
    radius = (form.abs() * (high - low) / 2).flatten(1).sum(1)
    return constant[0] + middle - radius, constant[1] + middle + radius


def _through(
    node: Node, form: Tensor, shapes: list[tuple[int, ...]]
) -> tuple[list[Tensor], Tensor]:
    """Return the forms of an affine part's parents, and the constant it adds."""
    if node.back is not None:
        still = node.call(form.new_zeros(1, *shapes[0]))
        return [node.back(form, shapes[0])], (form * still).flatten(1).sum(1)
    with torch.enable_grad():
        zeros = [form.new_zeros(1, *shape, requires_grad=True) for shape in shapes]
        out = node.call(*zeros)  # one row: its gradient is the same everywhere
        carried = torch.autograd.grad(out, zeros, form[:, None], is_grads_batched=True)
    return [part[:, 0] for part in carried], (form * out.detach()).flatten(1).sum(1)


def _relu(
    node: Node, form: Tensor, low: Tensor, high: Tensor, who: Tensor, slope: Slope
) -> tuple[Tensor, Tensor]:
    """Return the form below max(h, 0), from α h ≤ max(h, 0) ≤ u (h − l)/(u − l), and what it adds (2, r)."""
    open_ = (low < 0) & (high > 0)
    above = torch.where(open_, high / (high - low).clamp_min(1e-30), (low >= 0).to(form))
    lift = torch.where(open_, above * -low, 0.0)
    lifted = (form * lift[who]).flatten(1)
    added = torch.stack([lifted.clamp_max(0).sum(1), lifted.clamp_min(0).sum(1)])
    below = slope(low, high, above)
    if below is above:
        return form * above[who], added
    return torch.where(form > 0, form * below[who], form * above[who]), added


def _pool(
    node: Node, form: Tensor, low: Tensor, high: Tensor, who: Tensor, slope: Slope
) -> tuple[Tensor, Tensor]:
    """Return the form below a max-pool: y ≥ h_j of the largest lower bound, y ≤ the largest upper one.

    Where that is the surest entry anyway both lines are one; elsewhere there is no upper bound.
    """
    low, high = low[who], high[who]
    kernel, stride, padding, dilation = node.settings
    pool: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    surest, place = F.max_pool2d(low, kernel, return_indices=True, **pool)
    most = F.max_pool2d(high, kernel, **pool)
    rest = high.flatten(2).scatter(2, place.flatten(2), -math.inf).reshape(high.shape)
    alone = F.max_pool2d(rest, kernel, **pool) <= surest  # no other entry can be the largest
    kept = torch.where((form >= 0) | alone, form, 0.0)
    shift = ((form - kept) * most).flatten(1).sum(1)
    unknown = ((form != 0) & ~alone).flatten(1).any(1)
    both = torch.stack([shift, torch.where(unknown, math.inf, shift)])
    back = torch.zeros_like(high).flatten(2)
    back = back.scatter_add(2, place.flatten(2), kept.flatten(2))
    return back.reshape(high.shape), both
