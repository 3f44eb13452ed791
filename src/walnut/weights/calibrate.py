"""How far a grid reaches: which magnitude is the last that is not cut off.

A grid of ``levels`` steps from 0 to t has the scale t / levels. A large t cuts nothing off and rounds
coarsely; a small one rounds finely and cuts the tail off. The same four answers serve weights and
activations; what they see are magnitudes, a row for each grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.errors import WalnutError

Reach = Callable[[Tensor, int], Tensor]
"""``(magnitudes (r, n), levels) -> (r,)``: the largest magnitude that each row's grid holds."""

_SEEN = 1 << 20  # magnitudes of a row that a search looks at, evenly spaced: more change nothing


@dataclass(frozen=True)
class min_max:
    """t = max |x|: nothing is cut off.

    >>> min_max()(torch.tensor([[0.0, 3.0, 1.0]]), 127)
    tensor([3.])
    """

    def __call__(self, rows: Float[Tensor, "r n"], levels: int) -> Float[Tensor, " r"]:
        """Return the largest magnitude of each row; 0 for an empty one."""
        return rows.amax(1) if rows.shape[1] else rows.new_zeros(len(rows))


@dataclass(frozen=True)
class percentile:
    """t = the magnitude that the share ``share`` of all do not exceed.

    share: in (0, 1]. McKinstry et al. 2018 use 0.9999 and 0.99999 for activations.

    >>> percentile(0.5)(torch.arange(5.0)[None], 127)
    tensor([2.])
    """

    share: float = 0.9999

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise WalnutError(f"percentile's share lies above 0 and at most at 1: {self.share}")

    def __call__(self, rows: Float[Tensor, "r n"], levels: int) -> Float[Tensor, " r"]:
        """Return the magnitude at the percentile; the largest where that would be 0."""
        if not rows.shape[1]:
            return rows.new_zeros(len(rows))
        found = rows.kthvalue(max(1, math.ceil(self.share * rows.shape[1])), dim=1).values
        return torch.where(found > 0, found, rows.amax(1))


@dataclass(frozen=True)
class mse:
    """t = argmin Σ (|x| − s · min(round(|x| / s), levels))², s = t / levels, over a search grid.

    candidates: the multiples max·i/candidates that are tried, i from 1; the largest is ``min_max``,
    so that the squared error is never above its.
    """

    candidates: int = 100

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise WalnutError(f"mse tries at least one candidate, not {self.candidates}")

    def __call__(self, rows: Float[Tensor, "r n"], levels: int) -> Float[Tensor, " r"]:
        """Return the best candidate of each row."""
        largest = min_max()(rows, levels)
        seen = _thinned(rows)
        best, error = largest.clone(), torch.full_like(largest, math.inf)
        for i in range(self.candidates, 0, -1):
            top = largest * (i / self.candidates)
            scale = torch.where(top > 0, top / levels, 1.0)[:, None]
            off = (seen - scale * (seen / scale).round().clamp_max(levels)).square().sum(1)
            best, error = torch.where(off < error, top, best), torch.minimum(off, error)
        return best


@dataclass(frozen=True)
class entropy:
    """t = argmin KL(P ‖ Q): the histogram of |x|, cut at t, against itself on ``levels`` steps.

    P is the histogram up to t, with all that is beyond it in its last bin; Q spreads the count of
    each of the ``levels`` groups of bins evenly over the group's bins that are not empty. Migacz 2017
    ("8-bit inference with TensorRT"). Exact zeros take no part: every grid holds them.

    bins: of the histogram. candidates: how many cuts are tried between ``levels`` bins and all.
    """

    bins: int = 2048
    candidates: int = 128

    def __post_init__(self) -> None:
        if self.bins < 2 or self.candidates < 1:
            raise WalnutError("entropy needs at least two bins and one candidate")

    def __call__(self, rows: Float[Tensor, "r n"], levels: int) -> Float[Tensor, " r"]:
        """Return the cut with the smallest divergence, for each row."""
        largest = min_max()(rows, levels)
        found = [
            self._row(r, float(t), levels) for r, t in zip(_thinned(rows), largest, strict=True)
        ]
        return torch.tensor(found, dtype=rows.dtype, device=rows.device)

    def _row(self, row: Tensor, largest: float, levels: int) -> float:
        row = row[row > 0].float().cpu()
        if largest == 0 or row.numel() == 0:
            return largest
        counts = torch.histc(row, self.bins, 0.0, largest).double()
        fewest = min(levels, self.bins)
        cuts = torch.linspace(fewest, self.bins, self.candidates).round().long().unique().tolist()
        divergences = [_divergence(counts, cut, levels) for cut in cuts]
        best = min(range(len(cuts)), key=lambda i: (divergences[i], -cuts[i]))
        return largest * cuts[best] / self.bins


def _divergence(counts: Tensor, cut: int, levels: int) -> float:
    """Return KL(P ‖ Q) of a histogram cut behind ``cut`` bins and put on ``levels`` steps."""
    inside = counts[:cut]
    p = inside.clone()
    p[-1] += counts[cut:].sum()
    group = torch.arange(cut) * min(levels, cut) // cut
    live = (inside > 0).double()
    sums = torch.zeros(int(group[-1]) + 1, dtype=torch.double)
    total = sums.index_add(0, group, inside)
    share = sums.index_add(0, group, live)
    q = (total / share.clamp_min(1))[group] * live
    if q.sum() == 0:
        return math.inf
    p, q = p / p.sum(), q / q.sum()
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen].clamp_min(1e-12)).log()).sum())


def _thinned(rows: Tensor) -> Tensor:
    """Return every n-th magnitude of each row, where there are more than a search needs."""
    return rows[:, :: max(1, rows.shape[1] // _SEEN)]
