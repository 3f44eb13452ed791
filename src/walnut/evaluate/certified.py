"""What no attack can break: a lower bound on every margin in an L∞ ball, proven layer by layer.

Intervals first (Gowal et al. 2018, Eq. 5-6), then linear bounds of each ReLU carried backward from the
margins to the input (CROWN: Zhang et al. 2018, Theorem 3.2; with parallel slopes the bound of Wong & Kolter
2018, §3). Where we differ: intervals decide which ReLUs need more, and both choices of slopes are tried.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.types import Model

from .recorded import Node, record
from .relaxation import Relaxed, exact, intervals, near, parallel, walk

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
    boxes = Relaxed(graph, [low], [high])
    intervals(boxes, tighten=False)
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


def _refine(boxes: Relaxed) -> bool:
    """Bound every input of a ReLU or max-pool that intervals leave open; say whether that was affordable."""
    for at, node in enumerate(boxes.graph):
        if node.kind not in ("relu", "pool") or exact(boxes.graph, node.parents[0]):
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
            least, most = walk(boxes, p, forms, one, parallel)
            if not bool(most.isfinite().all()):  # behind a max-pool
                most = -walk(boxes, p, -forms, one, parallel)[0]
            low[pair] = torch.maximum(low[pair], least)
            high[pair] = torch.minimum(high[pair], most)
        boxes.low[p], boxes.high[p] = (t.reshape(boxes.low[p].shape) for t in (low, high))
        intervals(boxes, tighten=True, start=at)
    return True


def _margins(boxes: Relaxed, y: Tensor) -> Tensor:
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
            *(walk(boxes, last, chosen, who[rows], s)[0] for s in (parallel, near))
        )
        found[who[rows], which[rows]] = best
    return found.amin(1)
