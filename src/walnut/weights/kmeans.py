"""One-dimensional k-means to its optimum, or to within a bound that is proved and returned.

In one dimension an optimal cluster is an interval, so the optimum is found by dynamic programming
over the sorted values (Wang & Song 2011), each row in O(n log n) because the best last boundary
moves to the right with the values (Grønlund et al. 2017). Up to 16,384 distinct values that is done
exactly. Beyond, boundaries are first restricted to the edges of as many bins, then moved to a local
optimum on all values (Lloyd's step on sorted values, O(k log n) each), and ``gap`` bounds what the
restriction can have cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from walnut.core.errors import WalnutError

BINS = 1 << 14
_CHUNK = 1 << 22  # values summed at once, so that their float64 copies stay small


@dataclass(frozen=True, eq=False)
class Clusters:
    """Centroids (k,), ascending, and how good they are.

    ``cost``: Σ (value − nearest centroid)²; ``gap``: the proved bound on
    (cost − optimal cost) / cost; 0 where the result is exact, inf where nothing is proved.
    ``index``: the centroid of each value, where that is not always the nearest.
    """

    centroids: Float[Tensor, " k"]
    cost: float
    gap: float
    index: Int[Tensor, "*n"] | None = None


Clustering = Callable[[Tensor, int], Clusters]
"""``(values (n,), k) -> Clusters`` with at most k centroids."""


class _Sorted:
    """Sorted values, cut into bins, with the sums that make the cost of any interval cheap.

    ``edges`` (b+1,): where bins begin among the values; ``n``, ``s``, ``q``: number, sum and sum of
    squares of all values before each edge. Values are shifted by their mean against cancellation.
    """

    def __init__(self, values: Tensor, bins: int) -> None:
        flat = values.detach().cpu().reshape(-1)
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.float()
        if not flat.is_floating_point() or flat.numel() == 0:
            raise WalnutError("k-means needs at least one value, and floating-point ones")
        self.x = np.sort(flat.numpy())
        if not math.isfinite(float(self.x[0]) + float(self.x[-1])):  # NaN is sorted last
            raise WalnutError("k-means cannot cluster values that are infinite or not a number")
        self.shift = float(self.x.mean(dtype=np.float64))
        self.edges, self.exact = self._cut(bins)
        self.n = self.edges.astype(np.float64)
        self.s, self.q = self._sums()

    def _cut(self, bins: int) -> tuple[np.ndarray, bool]:
        """Return the edges: one bin a distinct value, or half of equal number, half of equal width."""
        x = self.x
        steps = np.flatnonzero(x[1:] != x[:-1]) + 1 if len(x) <= 64 * bins else None
        if steps is not None and len(steps) < bins:
            return np.concatenate([[0], steps, [len(x)]]), True
        equal = np.linspace(0, len(x), bins // 2 + 1).astype(np.int64)
        width = np.linspace(float(x[0]), float(x[-1]), bins // 2 + 1)[1:-1]
        return np.unique(np.concatenate([equal, self.place(width)])), False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Return how many of the values lie below each of ``values``."""
        # In x's own dtype: numpy would convert all of x, at every call.
        return np.searchsorted(self.x, values.astype(self.x.dtype))

    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        s, q = np.zeros(len(self.edges)), np.zeros(len(self.edges))
        base_s = base_q = 0.0
        for start in range(0, len(self.x), _CHUNK):
            part = self.x[start : start + _CHUNK].astype(np.float64) - self.shift
            here = (self.edges > start) & (self.edges <= start + len(part))
            place = self.edges[here] - start - 1
            sums, squares = np.cumsum(part), np.cumsum(part * part)
            s[here], q[here] = base_s + sums[place], base_q + squares[place]
            base_s, base_q = base_s + sums[-1], base_q + squares[-1]
        return s, q

    def cost(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return Σ (x − mean)² over the bins from edge i up to edge j (i < j)."""
        total = self.s[j] - self.s[i]
        spread = self.q[j] - self.q[i] - total * total / (self.n[j] - self.n[i])
        return np.maximum(spread, 0.0)

    def before(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sum and sum of squares of the values before each place."""
        bins = np.searchsorted(self.edges, places, "right") - 1
        s, q = self.s[bins].copy(), self.q[bins].copy()
        for row, (b, place) in enumerate(zip(bins.tolist(), places.tolist(), strict=True)):
            part = self.x[self.edges[b] : place].astype(np.float64) - self.shift
            s[row] += part.sum()
            q[row] += (part * part).sum()
        return s, q


def kmeans(values: Float[Tensor, "*n"], k: int, *, bins: int | None = None) -> Clusters:
    """Return the best k centroids of the values, or as good ones to within the returned ``gap``.

    k: at least 1; with no more than k distinct values, they are the centroids. bins: how many
    distinct values are still clustered exactly; by default 16,384, or 128 for each centroid.
    Raises WalnutError for values that are not finite, and for none.

    >>> kmeans(torch.tensor([0.0, 0.1, 5.0, 5.2, 9.0]), 3).centroids
    tensor([0.0500, 5.1000, 9.0000])
    """
    if k < 1:
        raise WalnutError(f"k-means needs at least one centroid, not {k}")
    data = _Sorted(values, bins or max(BINS, 128 * k))
    if data.exact and len(data.edges) <= k + 1:
        return Clusters(torch.from_numpy(data.x[data.edges[:-1]].copy()).to(values.dtype), 0.0, 0.0)
    cuts = _best_cuts(data, k)
    places = data.edges[cuts]
    restricted = float(data.cost(cuts[:-1], cuts[1:]).sum())
    if data.exact:
        return Clusters(_means(data, places).to(values.dtype), restricted, 0.0)
    lower = restricted - _restriction(data, k, restricted)
    places, cost = _polish(data, places, 100)
    gap = max(0.0, 1.0 - max(lower, 0.0) / cost) if cost > 0 else 0.0
    return Clusters(_means(data, places).to(values.dtype), cost, gap)


def _restriction(data: _Sorted, k: int, cost: float) -> float:
    """Return a bound on what it costs that clusters begin at edges of bins.

    Let w be the cost, within themselves, of the k−1 bins that an optimal partition cuts, o what it
    pays for their values. Giving each such bin whole to the centroid nearest to its mean adds
    at most 2w + 2√(o·w), by the triangle inequality; and o is at most the cost found.
    """
    within = np.sort(data.cost(np.arange(len(data.edges) - 1), np.arange(1, len(data.edges))))
    w = float(within[max(0, len(within) - (k - 1)) :].sum()) if k > 1 else 0.0
    return 2.0 * w + 2.0 * math.sqrt(cost * w)


def _best_cuts(data: _Sorted, k: int) -> np.ndarray:
    """Return the k+1 edges between which the optimal clusters of whole bins lie."""
    bins = len(data.edges) - 1
    k = min(k, bins)
    best = np.full(bins + 1, np.inf)
    best[1:] = data.cost(np.zeros(bins, np.int64), np.arange(1, bins + 1))
    last = np.zeros((k + 1, bins + 1), np.int32)
    for clusters in range(2, k + 1):
        best, last[clusters] = _one_more(data, best, clusters)
    cuts = [bins]
    for clusters in range(k, 0, -1):
        cuts.append(int(last[clusters, cuts[-1]]))
    return np.array(cuts[::-1])


def _one_more(data: _Sorted, best: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best costs of the first j bins with one more cluster, and where that begins.

    Where it begins grows with j; so j at every 2^i-th place is solved between its solved neighbours,
    for falling i: each pass looks at no more than all bins, in whole arrays.
    """
    bins = len(best) - 1
    out, start = np.full(bins + 1, np.inf), np.zeros(bins + 1, np.int64)
    start[: clusters - 1] = clusters - 1
    step = 1 << bins.bit_length()
    while step:
        j = np.arange(step, bins + 1, 2 * step)
        j = j[j >= clusters]
        if len(j):
            right = j + step
            low = np.maximum(start[j - step], clusters - 1)
            high = np.where(right <= bins, start[np.minimum(right, bins)], bins)
            out[j], start[j] = _solve(data, best, j, low, np.minimum(high, j - 1))
        step //= 2
    return out, start


def _solve(
    data: _Sorted, best: np.ndarray, j: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return min over i in low..high of best[i] + cost(i, j) for each j, and the least such i."""
    count = high - low + 1
    first = np.cumsum(count) - count
    i = np.arange(int(count.sum())) - np.repeat(first - low, count)
    value = best[i] + data.cost(i, np.repeat(j, count))
    least = np.minimum.reduceat(value, first)
    hits = np.flatnonzero(value == np.repeat(least, count))[::-1]
    where = np.empty(len(j), np.int64)
    where[np.searchsorted(first, hits, "right") - 1] = i[hits]
    return least, where


def _means(data: _Sorted, places: np.ndarray) -> Tensor:
    """Return the mean of the values between places, (k,) float64."""
    s, _ = data.before(places)
    return torch.from_numpy(np.diff(s) / np.diff(places) + data.shift)


def _polish(data: _Sorted, places: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """Return boundaries after up to ``steps`` Lloyd steps, and the cost; empty clusters vanish."""
    for _ in range(steps):
        centroids = _means(data, places).numpy()
        moved = data.place((centroids[1:] + centroids[:-1]) / 2.0)
        moved = np.unique(np.concatenate([[0], moved, [len(data.x)]]))
        if np.array_equal(moved, places):
            break
        places = moved
    s, q = data.before(places)
    cost = np.diff(q) - np.diff(s) ** 2 / np.diff(places)
    return places, float(np.maximum(cost, 0.0).sum())


# --- Lloyd's algorithm from a start, as in the paper ---------------------------------------------


def linear(values: Tensor, k: int) -> Tensor:
    """Return k starts evenly spaced between the least and the largest value (Han et al. 2016)."""
    low, high = values.aminmax()
    return torch.linspace(float(low), float(high), k, dtype=values.dtype)


def density(values: Tensor, k: int) -> Tensor:
    """Return k starts at evenly spaced quantiles, so that clusters begin equally full."""
    ranks = ((torch.arange(k, dtype=torch.float64) + 0.5) / k * values.numel()).long()
    return values.detach().cpu().reshape(-1).sort().values[ranks]


@dataclass(frozen=True)
class random:
    """k starts drawn from the values by ``seed`` (Forgy 1965)."""

    seed: int = 0

    def __call__(self, values: Tensor, k: int) -> Tensor:
        """Return the starts, (k,)."""
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randint(values.numel(), (k,), generator=generator)
        return values.detach().cpu().reshape(-1)[chosen]


@dataclass(frozen=True)
class lloyd:
    """Lloyd's algorithm from ``start``: a local optimum, for comparison with :func:`kmeans`.

    >>> lloyd(start=linear)(torch.tensor([0.0, 0.1, 5.0, 5.2, 9.0]), 3).centroids
    tensor([0.0500, 5.1000, 9.0000])
    """

    start: Callable[[Tensor, int], Tensor] = linear
    iterations: int = 100

    def __call__(self, values: Tensor, k: int) -> Clusters:
        """Return at most k clusters: those that end empty are left out."""
        data = _Sorted(values, BINS)
        start = self.start(values, k).double().sort().values.numpy()
        places = data.place((start[1:] + start[:-1]) / 2.0)
        places = np.unique(np.concatenate([[0], places, [len(data.x)]]))
        places, cost = _polish(data, places, self.iterations)
        return Clusters(_means(data, places).to(values.dtype), cost, math.inf)


def assign(values: Float[Tensor, "*n"], centroids: Float[Tensor, " k"]) -> Int[Tensor, "*n"]:
    """Return which of the ascending centroids is nearest to each value, int64, like ``values``."""
    between = (centroids[1:].double() + centroids[:-1].double()) / 2.0
    return torch.bucketize(values, between.to(values.dtype))
