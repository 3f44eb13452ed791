"""Units found, tried out, zeroed and taken out of a network."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen

from . import edits
from .groups import Groups, Removal, gather
from .shrink_edit import describe, replace
from .trace import Plumbing, named_tensors, plain, trace

_CLOSE = 1e-5  # of a logit, relative to the largest or to 1, in double precision


def couple(model: nn.Module, example: Tensor) -> Groups:
    """Return the groups of units that a network can lose, each tried out by removing one unit.

    A group whose removal breaks the network (a number of channels written into its code, say) is
    left alone, and ``groups.left`` says so.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> groups = couple(net, torch.rand(1, 4))
    >>> [(g.name, len(g)) for g in groups.all], groups.left
    ([('0', 8)], {'2': 'it is an output of the network'})
    """
    groups = gather(trace(model, example))
    small = {g.name: "it has one unit, and one stays" for g in groups.all if len(g) < 2}
    groups = groups.without(small)
    first = {g.name: np.arange(len(g)) == 0 for g in groups.all}
    if not first or _tried(model, example, groups, first) is None:
        return groups
    broken = {}
    for name, which in first.items():
        said = _tried(model, example, groups, {name: which})
        if said is not None:
            broken[name] = said
    groups = groups.without(broken)
    rest = {name: which for name, which in first.items() if name not in broken}
    said = _tried(model, example, groups, rest) if rest else None
    if said is not None:
        raise WalnutError(f"this network's units cannot be removed: {said}")
    return groups


def _tried(model: nn.Module, example: Tensor, groups: Groups, removal: Removal) -> str | None:
    """Return what goes wrong without some units, or None."""
    smaller = copy.deepcopy(model)
    try:
        take_out(smaller, groups, removal, told=False)
        difference, scale = compared(masked(model, groups, removal), smaller, example)
    except Exception as error:  # a forward may raise anything
        return f"its code does not run with fewer channels ({error!s:.120})"
    if difference <= _CLOSE * max(1.0, scale):
        return None
    return f"without it the others change (by {difference:.2g})"


def same(old: nn.Module, new: nn.Module, example: Tensor) -> tuple[float, float]:
    """Return the largest difference between two networks' outputs, and the largest output.

    In double precision, where the networks can be run so.
    """
    return compared(copy.deepcopy(old), copy.deepcopy(new), example)


def compared(old: nn.Module, new: nn.Module, example: Tensor) -> tuple[float, float]:
    """Do as :func:`same` with networks that nobody needs afterwards: their weights change width."""
    try:
        return _outputs(old.double(), new.double(), example.double())
    except (RuntimeError, TypeError):
        kind = example.dtype
        return _outputs(old.to(kind), new.to(kind), example)


def _outputs(a: nn.Module, b: nn.Module, x: Tensor) -> tuple[float, float]:
    with frozen(a), frozen(b), plain():
        left, right = _flat(a(x)), _flat(b(x))
    difference = float((left - right).abs().max()) if len(left) == len(right) else float("inf")
    return difference, float(left.abs().max())


def _flat(out: Any) -> Tensor:
    parts = [out] if isinstance(out, Tensor) else [p for p in out if isinstance(p, Tensor)]
    return torch.cat([p.detach().flatten() for p in parts])


def _lost(groups: Groups, removal: Removal) -> dict[str, dict[int, np.ndarray]]:
    """Return the positions that go, by tensor and axis."""
    found: dict[str, dict[int, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for name, which in removal.items():
        for place in groups[name].places:
            found[place.tensor][place.axis].append(place.rows[which].reshape(-1))
    return {
        name: {axis: np.concatenate(rows) for axis, rows in axes.items()}
        for name, axes in found.items()
    }


def masked(model: nn.Module, groups: Groups, removal: Removal) -> nn.Module:
    """Return a copy of a network in which the removed units' weights are zero."""
    old = copy.deepcopy(model)
    tensors = named_tensors(old)
    with torch.no_grad():
        for name, axes in _lost(groups, removal).items():
            for axis, positions in axes.items():
                tensors[name].index_fill_(
                    axis, torch.from_numpy(positions).to(tensors[name].device), 0
                )
    return old


def take_out(model: nn.Module, groups: Groups, removal: Removal, *, told: bool = True) -> None:
    """Make a network's tensors smaller, in place, and record the edit in its description."""
    tensors = named_tensors(model)
    new: dict[str, Tensor] = {}
    for name, axes in _lost(groups, removal).items():
        t = tensors[name].detach()
        for axis, positions in axes.items():
            stays = np.setdiff1d(np.arange(t.shape[axis]), positions)
            t = t.index_select(axis, torch.from_numpy(stays).to(t.device))
        if t.numel() < tensors[name].numel():
            new[name] = t.contiguous()
    gone, modules = groups.gone(removal), dict(model.named_modules())
    plumbing = {}
    for path, (inputs, outputs) in groups.found.plumbing.items():
        numbers = _numbers(groups, modules[path], inputs, outputs, gone)
        if numbers is not None:
            plumbing[path] = numbers
    if not new:
        return
    shapes = describe(tensors, {name: tuple(t.shape) for name, t in new.items()})
    replace(model, new)
    for path, numbers in plumbing.items():
        modules[path].resize(numbers)
    if told:
        edit = {"kind": "resize", "shapes": shapes}
        edits.record(model, {**edit, "plumbing": plumbing} if plumbing else edit)


def _numbers(
    groups: Groups, module: nn.Module, inputs: Any, outputs: Any, gone: set[int]
) -> dict[str, Any] | None:
    """Return what a module without weights is told, or None where it loses nothing."""
    assert isinstance(module, Plumbing)
    left = [None if ids is None else groups.stays(ids, gone, len(ids)) for ids in (inputs, outputs)]
    if any(stays is None for stays in left):
        return None
    before, after = (stays.tolist() for stays in left if stays is not None)
    return None if all(before) and all(after) else module.recount(before, after)
