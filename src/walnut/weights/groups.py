"""Groups of units that a network can lose: what each one is made of, and which are left alone."""

from __future__ import annotations

import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from walnut.core.errors import WalnutError

from .trace import Trace
from .units import PINNED, Ids

Removal = Mapping[str, np.ndarray]
"""``{group's name: bool (units,)}``: which units go."""


@dataclass(frozen=True)
class Place:
    """Where the units of a group stand in one tensor: ``rows`` (units, k) are positions on ``axis``."""

    tensor: str
    axis: int
    rows: np.ndarray


@dataclass(frozen=True)
class Group:
    """Units that play the same part in the same tensors: the output channels of a layer, mostly.

    ``name`` is that of the first layer that produces them; ``roots`` are the units' ids.
    """

    name: str
    roots: np.ndarray
    places: tuple[Place, ...]

    def __len__(self) -> int:
        return len(self.roots)


@dataclass(frozen=True)
class Groups:
    """What a network can lose, and what it cannot: ``left`` maps a layer to the reason.

    ``found`` is the run that showed it.
    """

    all: tuple[Group, ...]
    left: dict[str, str]
    found: Trace = field(repr=False)

    def __getitem__(self, name: str) -> Group:
        for group in self.all:
            if group.name == name:
                return group
        raise WalnutError(
            f"there is no group of units {name!r}; there are {', '.join(g.name for g in self.all)}"
        )

    def select(self, patterns: Iterable[str]) -> tuple[Group, ...]:
        """Return the groups whose names match a shell-style pattern, or say which pattern is idle."""
        patterns, names = list(patterns), [g.name for g in self.all]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise WalnutError(
                    f"no group of units is called {pattern!r}; there are {', '.join(names)}"
                )
        return tuple(g for g in self.all if any(fnmatch.fnmatchcase(g.name, p) for p in patterns))

    def without(self, names: Mapping[str, str]) -> Groups:
        """Return the groups but those named, which are left alone for the reasons given."""
        return Groups(
            tuple(g for g in self.all if g.name not in names), {**self.left, **names}, self.found
        )

    def gone(self, removal: Removal) -> set[int]:
        """Return the ids of the units that go."""
        return {int(r) for name, which in removal.items() for r in self[name].roots[which]}

    def stays(self, ids: Ids, gone: set[int], size: int) -> np.ndarray:
        """Say which positions of an axis stay."""
        if ids is None or not gone:
            return np.ones(size, dtype=bool)
        return np.array([int(r) not in gone for r in self.found.units.roots(ids)])

    def multiply_adds(self, gone: Iterable[int] = ()) -> int:
        """Return the multiply-adds of one run of the example, without the units that are gone."""
        lost = set(gone)
        total = 0
        for product in self.found.products:
            count = product.constant
            for size, ids in product.axes:
                count *= int(self.stays(ids, lost, size).sum())
            total += count
        return total


def gather(found: Trace) -> Groups:
    """Sort the units of a run into groups."""
    entries: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for name, axes in found.tensors.items():
        for axis, ids in enumerate(axes):
            if ids is None:
                continue
            for position, root in enumerate(found.units.roots(ids).tolist()):
                if root != PINNED:
                    entries[root].append((name, axis, position))
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for root, own in entries.items():
        alike[tuple(sorted(Counter((n, a) for n, a, _ in own).items()))].append(root)
    groups, taken = [], Counter[str]()
    for roots in alike.values():
        name = _name(entries[roots[0]])
        taken[name] += 1
        name = name if taken[name] == 1 else f"{name}#{taken[name]}"
        groups.append(Group(name, np.array(roots), _places(roots, entries)))
    return Groups(tuple(groups), _left(found), found)


def _name(entries: list[tuple[str, int, int]]) -> str:
    """Return the layer that a unit comes from: the first with it on a matrix's first axis."""
    producers = [n for n, axis, _ in entries if axis == 0 and n.rpartition(".")[2][:6] == "weight"]
    name = (producers or [entries[0][0]])[0]
    return name.removesuffix(".weight")


def _places(
    roots: list[int], entries: Mapping[int, list[tuple[str, int, int]]]
) -> tuple[Place, ...]:
    where: dict[tuple[str, int], list[list[int]]] = defaultdict(list)
    for root in roots:
        own: dict[tuple[str, int], list[int]] = defaultdict(list)
        for name, axis, position in entries[root]:
            own[name, axis].append(position)
        for key, positions in own.items():
            where[key].append(positions)
    return tuple(Place(n, a, np.array(rows)) for (n, a), rows in where.items())


def _left(found: Trace) -> dict[str, str]:
    """Return the layers with outputs that stay, and why."""
    left = {}
    for name, axes in found.tensors.items():
        ids = axes[0] if axes else None
        if not name.endswith("weight") or len(axes) < 2 or ids is None:
            continue
        if not found.units.loose(ids).any():
            left[name.removesuffix(".weight")] = found.units.why(int(ids[0]))
    return {**left, **found.unknown}
