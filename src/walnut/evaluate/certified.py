"""What no attack can break: a lower bound on every margin in an L∞ ball, proven layer by layer.

Intervals first (Gowal et al. 2018, Eq. 5-6), then linear bounds of each ReLU carried backward from the
margins to the input (CROWN: Zhang et al. 2018, Theorem 3.2; with parallel slopes the bound of Wong & Kolter
2018, §3). Where we differ: intervals decide which ReLUs need more, and both choices of slopes are tried.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.types import Model

from .recorded import Node, NotApplicable, record

_ROWS = 512  # linear forms carried backward at once
MOST = 20_000  # linear forms an example at most; beyond, a deep network takes minutes an example
_ROUNDING = 1e-4  # a margin must be above this, relative to the logits, to count

Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class Certificate:
    """Which examples no perturbation within the radius can make wrong.

    Attributes:
        proven: (n,) examples whose label holds in the whole ball.
        margin: (n,) the best proven lower bound of min_k z_y − z_k in the ball.
        forward: mean forward passes per example (an interval takes two).
        backward: mean linear forms per example carried back to the input, in backward passes.
        seconds: wall clock.
    """

    proven: Bool[Tensor, " n"] = field(repr=False)
    margin: Float[Tensor, " n"] = field(repr=False)
    forward: float
    backward: float
    seconds: float


@dataclass
class _Relaxed:
    """A graph over some boxes: bounds of every value, one row per example."""

    graph: tuple[Node, ...]
    low: list[Tensor]
    high: list[Tensor]
    walked: float = 0.0  # linear forms, each by the share of the network it went through
    spread: float = 1.0

    def take(self, rows: Tensor) -> _Relaxed:
        """Return some of the boxes."""
        return _Relaxed(self.graph, [t[rows] for t in self.low], [t[rows] for t in self.high])


def certified(
    model: Model,
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    eps: float,
    *,
    bounds: Bounds = (0.0, 1.0),
    thorough: Bool[Tensor, " n"] | None = None,
    batch_size: int = 64,
) -> Certificate:
    """Prove of examples that no perturbation ‖x̂ − x‖∞ ≤ eps makes them wrong.

        min over the ball of z_y − z_k  ≥  min over the ball of a·x + c,    a, c by linear relaxation

    Affine layers (linear, convolution, batch norm, average pooling, sums of branches), ReLU and max-pooling.
    Bounds are computed in the network's own precision, not with directed rounding. Two forward passes and
    2 · (classes − 1) backward ones an example; where ``thorough`` and not proven so, one or two more for
    every ReLU that may be on or off, hundreds in an ordinary network.

    Args:
        model: network to logits.
        x: examples (n, ...) in ``bounds``; y: their labels (n,).
        eps: radius in input units.
        bounds: the box that inputs live in.
        thorough: which examples may have the expensive bound; all unless given.
        batch_size: examples at once.

    Raises:
        NotApplicable: the network has a part that cannot be bounded.

    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> x, y = torch.tensor([[0.9, 0.1], [0.6, 0.5]]), torch.tensor([0, 0])
    >>> certified(net, x, y, 0.1).proven.tolist()
    [True, False]
    """
    if not 0 <= eps < math.inf:
        raise WalnutError(f"eps is a radius in input units, 0 or more, not {eps}")
    began = time.perf_counter()
    graph = record(model, x)
    margin = torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
    proven = torch.zeros_like(y, dtype=torch.bool)
    passes = [0.0, 0.0]
    with torch.no_grad(), frozen(model):
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            more = torch.ones_like(rows, dtype=torch.bool) if thorough is None else thorough[rows]
            margin[rows], proven[rows] = _batch(graph, x[rows], y[rows], eps, bounds, more, passes)
    n = max(len(x), 1)
    return Certificate(proven, margin, passes[0] / n, passes[1] / n, time.perf_counter() - began)


def _batch(
    graph: tuple[Node, ...], x: Tensor, y: Tensor, eps: float, bounds: Bounds, more: Tensor,
    passes: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the margins of some examples, and which of them are proven."""
    low, high = x - eps, x + eps
    if bounds is not None:
        low, high = low.clamp(*bounds), high.clamp(*bounds)
    boxes = _Relaxed(graph, [low], [high])
    _intervals(boxes, tighten=False)
    passes[0] += 2 * len(x)
    scale = torch.maximum(boxes.low[-1].abs(), boxes.high[-1].abs()).amax(1).clamp_min(1e-3)
    needed = _ROUNDING * scale
    margin = _margins(boxes, y)
    passes[1] += boxes.walked
    left = (more & (margin <= needed)).nonzero()[:, 0]
    if len(left):
        few = boxes.take(left)
        if _refine(few):
            margin[left] = torch.maximum(margin[left], _margins(few, y[left]))
            scale[left] = torch.maximum(few.low[-1].abs(), few.high[-1].abs()).amax(1)
            needed = _ROUNDING * scale.clamp_min(1e-3)
        passes[1] += few.walked
    return margin, margin > needed


def _intervals(boxes: _Relaxed, tighten: bool, start: int = 1) -> None:
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


def _refine(boxes: _Relaxed) -> bool:
    """Bound every input of a ReLU or max-pool that intervals leave open; say whether that was affordable."""
    for at, node in enumerate(boxes.graph):
        if node.kind not in ("relu", "pool") or _exact(boxes.graph, node.parents[0]):
            continue
        p = node.parents[0]
        low, high = boxes.low[p].flatten(1), boxes.high[p].flatten(1)
        open_ = (low < 0) & (high > 0) if node.kind == "relu" else low < high
        who, which = open_.nonzero().unbind(1)
        if len(who) > MOST * len(low):
            return False
        for rows in torch.arange(len(who), device=low.device).split(_ROWS):
            forms = torch.zeros(len(rows), low.shape[1], dtype=low.dtype, device=low.device)
            forms[torch.arange(len(rows)), which[rows]] = 1
            forms = forms.reshape(len(rows), *boxes.graph[p].shape)
            pair, one = (who[rows], which[rows]), who[rows]
            least, most = _walk(boxes, p, forms, one, _parallel)
            if not bool(most.isfinite().all()):  # behind a max-pool
                most = -_walk(boxes, p, -forms, one, _parallel)[0]
            low[pair] = torch.maximum(low[pair], least)
            high[pair] = torch.minimum(high[pair], most)
        boxes.low[p], boxes.high[p] = (t.reshape(boxes.low[p].shape) for t in (low, high))
        _intervals(boxes, tighten=True, start=at)
    return True


def _exact(graph: tuple[Node, ...], at: int) -> bool:
    """Say whether a value is one affine map of the input, so that its interval is its true range."""
    while graph[at].kind == "affine" and len(graph[at].parents) == 1:
        before = graph[at].parents[0]
        if graph[at].reach is not None and any(
            node.reach is not None for node in graph[1:at]
        ):  # two weighted layers in a row: the interval of the second is not exact
            return False
        at = before
    return graph[at].kind == "input"


def _margins(boxes: _Relaxed, y: Tensor) -> Tensor:
    """Return the proven lower bound of min_k z_y − z_k, (b,)."""
    b, classes = len(y), boxes.graph[-1].shape[0]
    forms = F.one_hot(y, classes)[:, None] - torch.eye(classes, dtype=y.dtype, device=y.device)
    other = torch.ones(b, classes, dtype=torch.bool, device=y.device).scatter(1, y[:, None], False)
    who, which = other.nonzero().unbind(1)
    found = torch.full((b, classes), math.inf, dtype=boxes.low[0].dtype, device=y.device)
    last = len(boxes.graph) - 1
    for rows in torch.arange(len(who), device=y.device).split(_ROWS):
        chosen = forms[who[rows], which[rows]].to(boxes.low[0])
        best = torch.maximum(
            *(_walk(boxes, last, chosen, who[rows], s)[0] for s in (_parallel, _near))
        )
        found[who[rows], which[rows]] = best
    return found.amin(1)


Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(lower, upper, slope above) to the slope of the line below each ReLU."""


def _parallel(low: Tensor, high: Tensor, above: Tensor) -> Tensor:
    return above


def _near(low: Tensor, high: Tensor, above: Tensor) -> Tensor:
    """Return the slope, 0 or 1, that leaves the smaller triangle, where a ReLU is open."""
    return torch.where((low < 0) & (high > 0), (high > -low).to(low), above)


def _walk(
    boxes: _Relaxed, end: int, forms: Tensor, who: Tensor, slope: Slope
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


__all__ = ["Certificate", "NotApplicable", "certified"]
