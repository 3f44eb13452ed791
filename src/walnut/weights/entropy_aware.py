"""Shared values chosen for what they cost to code: distortion + price · bits.

A weight that lies between two shared values takes the commoner one more often than the nearer one:
the commoner one is shorter to write. With p_j the share of the weights on level c_j,

    J = Σ_i h_i (w_i − c_a(i))² + price · Σ_i −log2 p_a(i)

is what entropy-constrained scalar quantisation minimises (Chou, Lookabaugh & Gray 1989). Given the
levels and their code lengths every weight takes the cheapest level; given those, a level is the mean
of its weights and its code length follows from their number: two steps that never raise J.

Where we differ: the start is not random. With equal h the best cells are intervals, and the J of an
interval depends on nothing but the interval, so the best start on a few hundred cells of the sorted
weights is found by dynamic programming, and with it the number of levels. (The divide and conquer of
:mod:`~walnut.weights.kmeans` does not apply: n log n is not convex in the length of an interval.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError

from .kmeans import Clusters

CELLS = 256
"""How many intervals of sorted weights the start is made of."""

_CHUNK = 1 << 21


@dataclass(frozen=True, eq=False)
class Coded:
    """Weights on levels, and what they cost.

    ``levels`` (k,), ascending, at most as many as were allowed; ``index``: the level of each weight,
    int64, shaped like the weights; ``distortion``: Σ h (w − level)²; ``bits``: Σ −log2 p, the
    least that any code without contexts takes.
    """

    levels: Float[Tensor, " k"]
    index: Int[Tensor, "*w"]
    distortion: float
    bits: float


def quantise(
    w: Float[Tensor, "*w"],
    k: int,
    price: float,
    *,
    importance: Tensor | None = None,
    anchor: float | None = None,
    iterations: int = 30,
) -> Coded:
    """Put weights on at most k levels so that distortion + price · bits is small.

    Args:
        w: weights.
        k: the most levels, at least 1 (2 with an anchor).
        price: what a bit costs, in units of the distortion, at least 0. With 0 it is weighted
            k-means.
        importance: shaped like ``w``: h ≥ 0, what a squared error of each weight costs; by default 1.
        anchor: a level that is there and does not move: 0.0 lets weights become exactly zero.
        iterations: the most rounds of assignment and update.

    Raises:
        WalnutError: values that are not finite, an importance that does not fit, a negative price.

    >>> w = torch.tensor([0.0, 0.1, 0.1, 0.2, 0.35, 1.0])
    >>> quantise(w, 3, 0.0).index.tolist(), quantise(w, 3, 0.02).index.tolist()
    ([0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 1])
    """
    x, h = _checked(w, k, price, importance, anchor)
    levels, fixed, code = _start(x, h, k, price, anchor)
    best: Coded | None = None
    for _ in range(max(1, iterations)):
        index = _cheapest(x, h, levels, code)
        counts = np.bincount(index, minlength=len(levels))
        kept = (counts > 0) | (np.arange(len(levels)) == fixed)
        index = (np.cumsum(kept) - 1)[index]
        counts, levels = counts[kept], levels[kept]
        fixed = int(kept[:fixed].sum()) if fixed >= 0 else -1
        levels = _means(x, h, index, levels, fixed)
        found = _measured(x, h, index, levels, counts)
        if best is not None and _cost(found, price) >= _cost(best, price) * (1 - 1e-7):
            break
        best = found
        code = _code(counts, len(x), price)
    assert best is not None
    return Coded(best.levels.to(w.dtype), best.index.reshape(w.shape), best.distortion, best.bits)


def _checked(
    w: Tensor, k: int, price: float, importance: Tensor | None, anchor: float | None
) -> tuple[np.ndarray, np.ndarray]:
    if k < (1 if anchor is None else 2):
        raise WalnutError(f"{k} levels are too few to share, an anchor being one of them")
    if not (price >= 0 and math.isfinite(price)):
        raise WalnutError(f"the price of a bit must be at least 0, not {price}")
    x = w.detach().cpu().reshape(-1).double().numpy()
    if x.size == 0 or not np.isfinite(x).all():
        raise WalnutError("weights to share must be finite numbers, and at least one")
    if importance is None:
        return x, np.ones(len(x))
    if importance.shape != w.shape:
        raise WalnutError(
            f"an importance of shape {tuple(importance.shape)} for weights of shape "
            f"{tuple(w.shape)}: give one number for each weight"
        )
    h = importance.detach().cpu().reshape(-1).double().numpy()
    if not (np.isfinite(h).all() and (h >= 0).all()):
        raise WalnutError("importances must be finite and at least 0")
    # A weight of no importance at all would leave its level undefined.
    return x, np.maximum(h, 1e-6 * h.mean() + 1e-30)


def _code(counts: np.ndarray, total: int, price: float) -> np.ndarray:
    """Return price · −log2 p of each level; a level without weights counts as half a weight."""
    return price * (math.log2(total) - np.log2(np.maximum(counts, 0.5)))


def _cost(coded: Coded, price: float) -> float:
    return coded.distortion + price * coded.bits


def _cheapest(x: np.ndarray, h: np.ndarray, levels: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Return the level of least h (x − level)² + code for each weight."""
    out = np.empty(len(x), np.int64)
    step = max(1, _CHUNK // len(levels))
    for at in range(0, len(x), step):
        part = x[at : at + step, None] - levels
        np.square(part, out=part)
        part *= h[at : at + step, None]
        part += code
        out[at : at + step] = part.argmin(1)
    return out


def _means(
    x: np.ndarray, h: np.ndarray, index: np.ndarray, levels: np.ndarray, fixed: int
) -> np.ndarray:
    """Return the mean of the weights on each level; the anchor stays."""
    total = np.bincount(index, h, len(levels))
    mean = np.bincount(index, h * x, len(levels)) / np.maximum(total, 1e-300)
    out = np.where(total > 0, mean, levels)
    if fixed >= 0:
        out[fixed] = levels[fixed]
    return out


def _measured(
    x: np.ndarray, h: np.ndarray, index: np.ndarray, levels: np.ndarray, counts: np.ndarray
) -> Coded:
    order = np.argsort(levels, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    used = counts[counts > 0]
    bits = float((used * (math.log2(len(x)) - np.log2(used))).sum())
    distortion = float((h * np.square(x - levels[index])).sum())
    return Coded(torch.from_numpy(levels[order]), torch.from_numpy(rank[index]), distortion, bits)


# --- the start: dynamic programming over cells ----------------------------------------------------


def _start(
    x: np.ndarray, h: np.ndarray, k: int, price: float, anchor: float | None
) -> tuple[np.ndarray, int, np.ndarray]:
    """Return levels, which of them is the anchor (-1: none), and price · bits of each."""
    order = np.argsort(x, kind="stable")
    v, weight = x[order], h[order]
    edges = _edges(v)
    sums = [np.append(0.0, np.cumsum(t))[edges] for t in (weight, weight * v, weight * v * v)]
    free, held = _interval_costs(edges, sums, price, anchor)
    cuts, which = _best_intervals(free, held, min(k, len(edges) - 1), k - 1)
    total, mean = np.diff(sums[0][cuts]), np.diff(sums[1][cuts])
    levels, counts = mean / np.maximum(total, 1e-300), np.diff(edges[cuts])
    if anchor is not None and which < 0:  # no weight is near the anchor
        which, levels, counts = len(levels), np.append(levels, anchor), np.append(counts, 0)
    elif anchor is not None:
        levels[which] = anchor
    return levels, which, _code(counts, len(x), price)


def _edges(v: np.ndarray) -> np.ndarray:
    """Return where cells of sorted values begin: each distinct value, or half by number and width."""
    steps = np.flatnonzero(v[1:] != v[:-1]) + 1
    if len(steps) < CELLS:
        return np.concatenate([[0], steps, [len(v)]])
    number = np.linspace(0, len(v), CELLS // 2 + 1).astype(np.int64)
    width = np.searchsorted(v, np.linspace(v[0], v[-1], CELLS // 2 + 1)[1:-1])
    return np.unique(np.concatenate([number, width]))


def _interval_costs(
    edges: np.ndarray, sums: list[np.ndarray], price: float, anchor: float | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return J of every interval of cells, (b+1, b+1): at its mean, and on the anchor."""
    n = (edges[None, :] - edges[:, None]).astype(float)
    valid = n > 0
    n = np.where(valid, n, 1.0)
    total, first, second = (np.where(valid, s[None, :] - s[:, None], 1.0) for s in sums)
    rate = price * n * (math.log2(edges[-1]) - np.log2(n))
    spread = np.maximum(second - first * first / np.maximum(total, 1e-300), 0.0)
    free = np.where(valid, spread + rate, np.inf)
    if anchor is None:
        return free, None
    apart = np.maximum(second - 2 * anchor * first + anchor * anchor * total, 0.0)
    return free, np.where(valid, apart + rate, np.inf)


def _best_intervals(
    free: np.ndarray, held: np.ndarray | None, most: int, without: int
) -> tuple[np.ndarray, int]:
    """Return the edges of the at most ``most`` intervals of least J, and which is on the anchor.

    Two tables grow by an interval at a time: before the anchor is used, and after. Where there is
    an anchor that no interval wants, there may be ``without`` intervals (which is -1).
    """
    end = len(free) - 1
    start = np.full(end + 1, np.inf)
    start[0] = 0.0
    plain, anchored = [start], [np.full(end + 1, np.inf)]
    back: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(most):
        step, later = plain[-1][:, None] + free, anchored[-1][:, None] + free
        now = np.full_like(step, np.inf) if held is None else plain[-1][:, None] + held
        takes = now.min(0) < later.min(0)
        back.append((step.argmin(0), np.where(takes, now.argmin(0), later.argmin(0)), takes))
        plain.append(step.min(0))
        anchored.append(np.minimum(now.min(0), later.min(0)))
    if held is not None:
        plain = plain[: without + 1]
    bare, on = (np.array([table[end] for table in tables]) for tables in (plain, anchored))
    after = bool(on.min() <= bare.min()) and held is not None
    at, cuts, which = end, [end], -1
    for level in range(int((on if after else bare).argmin()), 0, -1):
        from_bare, from_on, takes = back[level - 1]
        if after and takes[at]:
            which = level - 1
        before = int((from_on if after else from_bare)[at])
        after, at = after and not takes[at], before
        cuts.append(at)
    return np.array(cuts[::-1]), which


@dataclass(frozen=True)
class entropy_constrained:
    """A clustering for :class:`~walnut.weights.codebook.Codebook` that counts the bits too.

    price: what a bit costs, in squared units of the weights.

    >>> from walnut.weights import Codebook, represent
    >>> net = represent(torch.nn.Linear(50, 9), {"weight": Codebook(4, entropy_constrained(1e-3))})
    >>> len(net.weight.unique()) < 16
    True
    """

    price: float

    def __call__(self, values: Tensor, k: int) -> Clusters:
        """Return at most k clusters, and which of them each value belongs to."""
        coded = quantise(values, k, self.price)
        return Clusters(coded.levels, coded.distortion, math.inf, coded.index)
