"""Structured removal: units go, and the network's tensors really become smaller."""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .couple import compared, couple, masked, take_out
from .groups import Group, Groups, Removal
from .importance import Importance, Scores, l2
from .represent import select


@dataclass(frozen=True)
class budget:
    """Remove until the network's multiply-adds are ``multiply_adds`` of what they were, in (0, 1).

    Units of all groups go in the order of score / multiply-adds saved.
    """

    multiply_adds: float

    def __post_init__(self) -> None:
        if not 0.0 < self.multiply_adds < 1.0:
            raise WalnutError(
                f"a budget is the share of multiply-adds that is left, in (0, 1): {self.multiply_adds}"
            )


Plan = float | Mapping[str, float] | budget
"""Which share of each group goes: one for all, one by pattern of the groups' names; or a budget."""


@dataclass(frozen=True)
class Shrunk:
    """What was removed: units left of each group (before, after), and what was left alone and why.

    ``difference`` is the largest difference of a logit between the smaller network and the old one
    with the removed units' weights at zero; ``multiply_adds`` are (before, after), for the example.
    """

    units: dict[str, tuple[int, int]]
    left: dict[str, str]
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int]
    difference: float


def shrink(
    model: nn.Module,
    example: Tensor,
    plan: Plan,
    *,
    importance: Importance | None = None,
    only: Iterable[str] = ("*",),
    least: int = 1,
    multiple: int = 1,
) -> Shrunk:
    """Remove the least important units of a network, in place; its tensors become smaller.

    Every layer that a unit has a part in loses its slice: the producing layer, norms, what reads it,
    everything that is added to it. The smaller network is compared with the old one, the removed
    units' weights at zero, on ``example``; where they differ the network is left as it was.

    Args:
        model: any network; layers that cannot be followed are left alone and named.
        example: a batch (b, ...) to run it on.
        plan: the share of units that goes, in [0, 1), of each group or of those matching a pattern;
            or ``budget(multiply_adds=0.5)``.
        importance: scores units, ``l2()`` by default.
        only: patterns of the groups that may lose units.
        least: units that stay in every group.
        multiple: units left are rounded up to a multiple of this (8 suits vector units).

    Raises:
        WalnutError: a budget that cannot be reached (the nearest is named), a pattern without a
            group, represented weights.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> shrink(net, torch.rand(2, 4), 0.5).units
    {'0': (8, 4)}
    >>> net[2]
    Linear(in_features=4, out_features=3, bias=True)
    """
    if least < 1 or multiple < 1:
        raise WalnutError("least and multiple are at least 1")
    groups = couple(model, example)
    chosen = groups.select(only) if groups.all else ()
    scores = (importance or l2())(model, groups, example)
    _check_scores(scores, groups)
    able = [g for g in chosen if g.name in scores]
    if isinstance(plan, budget):
        removal = _to_budget(groups, able, scores, plan.multiply_adds, least, multiple)
    else:
        removal = _by_share(able, scores, plan, least, multiple)
    return remove(model, example, removal, groups)


def remove(
    model: nn.Module, example: Tensor, removal: Removal, groups: Groups | None = None
) -> Shrunk:
    """Remove chosen units of a network, in place, and compare with the network that had them at zero.

    Args:
        removal: ``{group's name: bool (units,)}``, as ``couple(model, example)`` names them.

    Raises:
        WalnutError: the smaller network differs; the network is then as it was.
    """
    groups = couple(model, example) if groups is None else groups
    for name, which in removal.items():
        if len(which) != len(groups[name]) or bool(np.all(which)):
            raise WalnutError(f"{name} has {len(groups[name])} units, of which at least one stays")
    old = masked(model, groups, removal)
    before = (_parameters(model), groups.multiply_adds())
    smaller = copy.deepcopy(model)
    take_out(smaller, groups, removal)
    difference, scale = compared(old, smaller, example)
    if not difference <= 1e-5 * max(1.0, scale):
        raise WalnutError(
            f"without {', '.join(n for n, w in removal.items() if w.any())} the network answers "
            f"otherwise (by {difference:.2g}) than with these units at zero; it is left as it was"
        )
    take_out(model, groups, removal)
    after = (_parameters(model), groups.multiply_adds(groups.gone(removal)))
    return Shrunk(
        units={n: (len(w), int((~w).sum())) for n, w in removal.items() if w.any()},
        left=dict(groups.left),
        parameters=(before[0], after[0]),
        multiply_adds=(before[1], after[1]),
        difference=difference,
    )


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _check_scores(scores: Scores, groups: Groups) -> None:
    for name, score in scores.items():
        if len(score) != len(groups[name]) or not np.isfinite(score).all():
            raise WalnutError(f"the importance of {name} is not one finite number per unit")


def _rounded(group: Group, keep: int, least: int, multiple: int) -> int:
    """Return how many units stay: at least ``least``, a multiple, no more than there are."""
    keep = max(keep, least, 1)
    return min(len(group), math.ceil(keep / multiple) * multiple)


def _lowest(score: np.ndarray, count: int) -> np.ndarray:
    which = np.zeros(len(score), dtype=bool)
    which[np.argsort(score, kind="stable")[:count]] = True
    return which


def _by_share(
    able: Sequence[Group],
    scores: Scores,
    plan: float | Mapping[str, float],
    least: int,
    multiple: int,
) -> dict[str, np.ndarray]:
    shares = (
        select([g.name for g in able], plan)
        if isinstance(plan, Mapping)
        else {g.name: plan for g in able}
    )
    removal = {}
    for group in able:
        share = shares.get(group.name, 0.0)
        if not 0.0 <= share < 1.0:
            raise WalnutError(f"the share of units that goes is in [0, 1), not {share}")
        keep = _rounded(group, len(group) - round(share * len(group)), least, multiple)
        removal[group.name] = _lowest(scores[group.name], len(group) - keep)
    return removal


def _to_budget(
    groups: Groups, able: Sequence[Group], scores: Scores, share: float, least: int, multiple: int
) -> dict[str, np.ndarray]:
    """Remove the cheapest units for what they save, until the multiply-adds fit."""
    meter = _Meter(groups)
    start = meter.total()
    goal = share * start
    removal = {g.name: np.zeros(len(g), dtype=bool) for g in able}
    queue: list[tuple[float, int, int]] = []
    orders = [np.argsort(scores[g.name], kind="stable") for g in able]
    for k, group in enumerate(able):
        _queue(queue, k, 0, group, orders[k], scores[group.name], meter, least, multiple)
    while queue and meter.total() > goal:
        _, k, done = heapq.heappop(queue)
        group = able[k]
        end = done + _chunk(group, done, multiple)
        for unit in orders[k][done:end]:
            removal[group.name][unit] = True
            meter.drop(int(group.roots[unit]))
        _queue(queue, k, end, group, orders[k], scores[group.name], meter, least, multiple)
    if meter.total() > goal:
        raise WalnutError(
            f"{share:.0%} of the multiply-adds cannot be reached: with all removed that can be, "
            f"{meter.total() / start:.0%} are left"
        )
    return removal


def _chunk(group: Group, done: int, multiple: int) -> int:
    """Return how many units go next, so that what stays is a multiple."""
    return (len(group) - done) % multiple or multiple


def _queue(
    queue: list[tuple[float, int, int]], k: int, done: int, group: Group, order: np.ndarray,
    score: np.ndarray, meter: _Meter, least: int, multiple: int,
) -> None:  # fmt: skip
    """Put a group's next chunk in line, by its score for what it saved in the whole network."""
    size = _chunk(group, done, multiple)
    if len(group) - done - size < max(1, least):
        return
    units = order[done : done + size]
    saved = sum(meter.saving[int(group.roots[u])] for u in units)
    heapq.heappush(queue, (float(score[units].sum()) / max(saved, 1e-9), k, done))


class _Meter:
    """Multiply-adds as units go, kept up to date."""

    def __init__(self, groups: Groups) -> None:
        self.constants: list[int] = []
        self.lengths: list[list[int]] = []
        self.parts: dict[int, list[tuple[int, int, int]]] = {}
        for product in groups.found.products:
            row = len(self.lengths)
            self.constants.append(product.constant)
            self.lengths.append([size for size, _ in product.axes])
            for axis, (_, ids) in enumerate(product.axes):
                if ids is not None:
                    roots, counts = np.unique(groups.found.units.roots(ids), return_counts=True)
                    for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
                        self.parts.setdefault(root, []).append((row, axis, count))
        self.saving = {int(r): self._saved(int(r)) for group in groups.all for r in group.roots}

    def total(self) -> int:
        """Return the multiply-adds that are left."""
        return sum(c * math.prod(n) for c, n in zip(self.constants, self.lengths, strict=True))

    def drop(self, root: int) -> None:
        """Take a unit out."""
        for row, axis, count in self.parts.get(root, ()):
            self.lengths[row][axis] -= count

    def _saved(self, root: int) -> int:
        own = self.parts.get(root, ())
        rows = {row for row, _, _ in own}
        before = sum(self.constants[r] * math.prod(self.lengths[r]) for r in rows)
        self.drop(root)
        after = sum(self.constants[r] * math.prod(self.lengths[r]) for r in rows)
        for row, axis, count in own:
            self.lengths[row][axis] += count
        return before - after
