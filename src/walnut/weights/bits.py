"""Bits for each layer: the least distortion that a number of bytes allows."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.types import Objective, Progress

from .activations import run
from .calibrate import Reach, mse
from .pack import pack
from .quantise import quantise
from .quantised import Along, per_channel
from .represent import matrices, weights

Distortions = Mapping[str, Mapping[int, float]]
"""``{weight: {bits: what the network loses}}``."""

CHOICES = (2, 3, 4, 5, 6, 8)
_MOST = 1 << 14


@dataclass(frozen=True)
class Allocation:
    """Bits for each weight, what they cost and what is lost.

    ``bytes`` are Σ bits · entries / 8, the payload before any entropy coding; a file has scales,
    biases and a header besides, and its coder saves some of the payload.
    """

    bits: dict[str, int]
    bytes: float
    distortion: float


def distortions(
    model: nn.Module,
    x: Tensor,
    bits: Sequence[int] = CHOICES,
    *,
    objective: Objective | None = None,
    y: Tensor | None = None,
    names: Iterable[str] | None = None,
    along: Along = per_channel(),
    reach: Reach = mse(),
    progress: Progress | None = None,
) -> dict[str, dict[int, float]]:
    """Measure what the network loses when one weight alone is put on few bits.

    The loss is the mean squared change of the logits, or, with an ``objective``, its mean's increase.
    Layers are taken one at a time: errors of several add up nearly, as they are small and unrelated.

    Args:
        model: any network; it stays as it is.
        x: examples (n, ...); some hundreds do.
        bits: to be measured, from 2 to 8.
        objective, y: ``(model, x, y) -> (n,)`` in place of the logits' change.
        names: weights to measure; those of two axes or more by default.
        along, reach: as :func:`~walnut.weights.quantise.quantise` takes them.

    Returns:
        ``{weight: {bits: loss}}``, for :func:`allocate`.
    """
    chosen = tuple(names or matrices(model))
    if not chosen or not bits:
        raise WalnutError("nothing to measure: name weights of two axes or more, and bits")
    with torch.no_grad(), frozen(model):
        before = run(model, x)
        base = 0.0 if objective is None else float(objective(model, x, y).mean())
    found: dict[str, dict[int, float]] = {}
    for done, name in enumerate(chosen):
        found[name] = {}
        for b in bits:
            twin = quantise(copy.deepcopy(model), {name: b}, along=along, reach=reach)
            with torch.no_grad(), frozen(twin):
                if objective is None:
                    found[name][b] = float((run(twin, x) - before).square().mean())
                else:
                    found[name][b] = float(objective(twin, x, y).mean()) - base
        if progress:
            progress("measuring bits", done + 1, len(chosen))
    return found


def sizes(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, int]:
    """Return how many entries each weight has that is not zero: zeros cost a mask, no bits."""
    tensors = weights(model)
    return {name: int(tensors[name].count_nonzero()) for name in (names or matrices(model))}


def allocate(lost: Distortions, entries: Mapping[str, int], budget: float) -> Allocation:
    """Return bits for each weight: min Σ lost  subject to  Σ bits · entries ≤ 8 · budget.

    Exact: of all sums that can be reached the undominated ones are kept, weight by weight. So more
    bytes never lose more. (The usual Lagrangian, Shoham & Gersho 1988, finds their convex hull.)

    Args:
        lost: of each weight at each number of bits.
        entries: of each weight.
        budget: bytes for the payload.

    Raises:
        WalnutError: the budget is below the least that can be had, which the message names.

    >>> allocate({"a": {2: 9.0, 8: 0.0}, "b": {2: 1.0, 8: 0.0}}, {"a": 8, "b": 8}, budget=10).bits
    {'a': 8, 'b': 2}
    """
    frontier = Frontier(lost, entries)
    fitting = [i for i in range(len(frontier)) if frontier.bits[i] <= 8 * budget]
    if not fitting:
        least = frontier[0]
        raise WalnutError(
            f"{budget:g} bytes are below the least that these bits need, {math.ceil(least.bytes)} "
            f"bytes ({', '.join(f'{n}: {b}' for n, b in least.bits.items())}): share or prune "
            "weights, or raise the budget"
        )
    return frontier[fitting[-1]]


class Frontier:
    """All allocations that no other beats in both bits and loss, the fewest bits first.

    Where there are more than 2^14 they are thinned evenly; the first and the last stay.
    """

    def __init__(self, lost: Distortions, entries: Mapping[str, int]) -> None:
        self.names = tuple(lost)
        self.bits = np.zeros(1, np.int64)
        self.losses = np.zeros(1)
        self._steps: list[tuple[np.ndarray, np.ndarray]] = []
        for name in self.names:
            self._add(lost[name], entries[name])

    def _add(self, of: Mapping[int, float], count: int) -> None:
        """Combine what is kept with every number of bits of one more weight."""
        if not of or not all(math.isfinite(value) for value in of.values()):
            raise WalnutError("bits are chosen by finite losses, at least one for each weight")
        options = np.array(sorted(of), np.int64)
        worth = np.array([of[int(b)] for b in options])
        bits = (self.bits[:, None] + options * count).reshape(-1)
        losses = (self.losses[:, None] + worth).reshape(-1)
        order = np.lexsort((losses, bits))
        best = np.minimum.accumulate(losses[order])
        better = np.append(True, best[1:] < best[:-1])
        kept = order[better]
        if len(kept) > _MOST:
            kept = kept[np.linspace(0, len(kept) - 1, _MOST).round().astype(int)]
        self.bits, self.losses = bits[kept], losses[kept]
        self._steps.append((kept // len(options), options[kept % len(options)]))

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, index: int) -> Allocation:
        """Return an allocation by its place."""
        chosen: dict[str, int] = {}
        at = index
        for name, (parent, options) in zip(self.names[::-1], self._steps[::-1], strict=True):
            chosen[name] = int(options[at])
            at = int(parent[at])
        ordered = {name: chosen[name] for name in self.names}
        return Allocation(ordered, float(self.bits[index]) / 8, float(self.losses[index]))


def fit_bytes(
    model: nn.Module,
    budget: int,
    lost: Distortions,
    *,
    along: Along = per_channel(),
    reach: Reach = mse(),
) -> Allocation:
    """Put weights on the bits that a file of ``budget`` bytes allows, in place; say which they are.

    The file is written and its length taken, scales, biases, header and coder included: some 14
    files, for a binary search along the :class:`Frontier`.

    Args:
        model: any network, pruned or not.
        budget: the most that the file may weigh, in bytes.
        lost: what :func:`distortions` measured.
        along, reach: as they were measured with.

    Raises:
        WalnutError: no allocation is that small; the message names the smallest file.
    """
    frontier = Frontier(lost, sizes(model, lost))

    def length(found: Allocation) -> int:
        twin = quantise(copy.deepcopy(model), found.bits, along=along, reach=reach)
        description = getattr(model, "description", None) or {"net": "", "arguments": {}}
        with tempfile.TemporaryDirectory() as folder:
            return pack(twin, f"{folder}/trial.walnut", description).bytes

    smallest = length(frontier[0])
    if smallest > budget:
        raise WalnutError(
            f"{budget} bytes cannot be reached: the smallest file with these bits is {smallest} bytes; "
            "prune or share weights, or raise the budget"
        )
    fits, over = 0, len(frontier)
    while over - fits > 1:
        middle = (fits + over) // 2
        fits, over = (middle, over) if length(frontier[middle]) <= budget else (fits, middle)
    quantise(model, frontier[fits].bits, along=along, reach=reach)
    return frontier[fits]
