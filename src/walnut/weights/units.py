"""Which channels are one: sets of positions that are removed together, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Ids = np.ndarray | None
"""One id for each position along an axis; None is a rigid axis, of which nothing can be removed."""

Axes = tuple[Ids, ...]
"""What is known of a tensor: the ids along each axis. Removing an id removes its whole slices."""

PINNED = 0
"""The id of everything that stays."""


class Units:
    """A union-find over ids. Ids that meet in an addition, a product, a norm become one unit.

    >>> units = Units()
    >>> a, b = units.fresh(3), units.fresh(3)
    >>> units.join(a, b)
    >>> units.pin(b[:1], "the output")
    >>> units.roots(a).tolist() == units.roots(b).tolist(), units.loose(a).tolist()
    (True, [False, True, True])
    """

    def __init__(self) -> None:
        self.parent: list[int] = [PINNED]
        self.reasons: dict[int, str] = {}

    def fresh(self, count: int) -> np.ndarray:
        """Return ``count`` ids that nothing is known of."""
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, i: int) -> int:
        """Return the id that stands for the unit of ``i``."""
        parent = self.parent
        while parent[i] != i:
            above = parent[i]
            parent[i] = parent[above]
            if parent[i] == PINNED and above != PINNED and above in self.reasons:
                self.reasons.setdefault(i, self.reasons[above])  # the path is shorter: keep why
            i = parent[i]
        return i

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """Return the ids that stand for the units of ``ids``, shaped alike."""
        return np.array([self.root(int(i)) for i in ids.reshape(-1)], dtype=np.int64).reshape(
            ids.shape
        )

    def loose(self, ids: np.ndarray) -> np.ndarray:
        """Say which ids are not pinned."""
        return self.roots(ids) != PINNED

    def join(self, a: Ids, b: Ids, why: str = "an axis that cannot shrink") -> None:
        """Make the units of two axes one, position by position; a rigid axis pins the other."""
        if a is None or b is None:
            self.pin(b if a is None else a, why)
        elif a is not b:
            for i, j in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True):
                self._join(i, j)

    def _join(self, i: int, j: int) -> None:
        a, b = self.root(i), self.root(j)
        if a == b:
            return
        low, high = (a, b) if a < b else (b, a)
        self.parent[high] = low
        if low == PINNED:
            self.reasons.setdefault(high, self.why(i if a == PINNED else j))

    def pin(self, ids: Ids, why: str) -> None:
        """Let nothing of an axis be removed, and note why."""
        if ids is None:
            return
        for i in {self.root(int(i)) for i in ids.reshape(-1)} - {PINNED}:
            self.reasons[i] = why
            self.parent[i] = PINNED

    def pin_all(self, axes: Iterable[Ids], why: str) -> None:
        """Pin every axis."""
        for ids in axes:
            self.pin(ids, why)

    def why(self, i: int) -> str:
        """Return why the unit of ``i`` is pinned."""
        while self.parent[i] != i:
            if i in self.reasons:
                return self.reasons[i]
            i = self.parent[i]
        return "it meets what cannot shrink"


def joined(units: Units, ids: np.ndarray, axis: int) -> np.ndarray:
    """Make all of ``ids`` (n, m) one unit along ``axis``, and return one id each for the rest."""
    rows = np.moveaxis(ids, axis, 0)
    for row in rows[1:]:
        units.join(rows[0], row)
    return rows[0]


def cut(sizes: tuple[int, ...], into: tuple[int, ...]) -> list[tuple[range, range]]:
    """Return the smallest runs of axes of ``sizes`` and of ``into`` that hold the same numbers.

    >>> cut((2, 6, 5), (2, 3, 2, 5))
    [(range(0, 1), range(0, 1)), (range(1, 2), range(1, 3)), (range(2, 3), range(3, 4))]
    """
    runs, i, j = [], 0, 0
    while i < len(sizes) or j < len(into):
        start, goal = i, j
        a, b = 1, 1
        if i < len(sizes):
            a, i = sizes[i], i + 1
        if j < len(into):
            b, j = into[j], j + 1
        while a != b:
            if a < b and i < len(sizes):
                a, i = a * sizes[i], i + 1
            else:
                b, j = b * into[j], j + 1
        runs.append((range(start, i), range(goal, j)))
    return runs


def reshape(units: Units, axes: Axes, sizes: tuple[int, ...], into: tuple[int, ...]) -> Axes:
    """Return the axes of a tensor of ``sizes`` after it is seen as ``into``."""
    if 0 in sizes:
        return tuple(None for _ in into)
    found: list[Ids] = []
    for old, new in cut(sizes, into):
        merged = _merged(units, [axes[i] for i in old], [sizes[i] for i in old])
        found += _split(units, merged, [into[j] for j in new])
    return tuple(found)


def _merged(units: Units, axes: list[Ids], sizes: list[int]) -> Ids:
    live = [i for i, ids in enumerate(axes) if ids is not None and units.loose(ids).any()]
    for i in live[:-1]:
        units.pin(axes[i], "two axes of channels are laid into one")
    if not live:
        return None
    one = live[-1]
    ids = axes[one]
    assert ids is not None
    shape = [len(ids) if i == one else 1 for i in range(len(axes))]
    return np.broadcast_to(ids.reshape(shape), sizes).reshape(-1)


def _split(units: Units, ids: Ids, sizes: list[int]) -> list[Ids]:
    """Choose the axis that carries the ids: one on which the others agree already, else the last."""
    wide = [i for i, size in enumerate(sizes) if size > 1]
    found: list[Ids] = [None] * len(sizes)
    if ids is None or not wide:
        return found
    grid = ids.reshape(sizes)
    roots = units.roots(grid)
    agreeing = [i for i in wide if (roots == _first(roots, i)).all()]
    axis = agreeing[-1] if agreeing else wide[-1]
    others = int(grid.size // sizes[axis])
    rows = np.moveaxis(grid, axis, 0).reshape(sizes[axis], others)
    found[axis] = joined(units, rows, axis=1)
    return found


def _first(grid: np.ndarray, axis: int) -> np.ndarray:
    """Return what ``grid`` would be if it depended on ``axis`` alone."""
    corner = [slice(0, 1)] * grid.ndim
    corner[axis] = slice(None)
    return grid[tuple(corner)]
