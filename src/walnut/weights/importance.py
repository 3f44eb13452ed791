"""How much a unit matters: one score per unit of each group; the lowest go first.

Each is a frozen part, called as ``part(model, groups, example)``, and gives ``{group: scores (n,)}``.
Groups that it has nothing to say of are missing, and are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.objectives import cross_entropy
from walnut.core.types import Objective

from .groups import Group, Groups
from .trace import RECTIFIERS, named_tensors, operation, plain

Scores = dict[str, np.ndarray]


@runtime_checkable
class Importance(Protocol):
    """What scores units."""

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        """Return the scores of each group's units; the lowest go first."""
        ...


def _sums(values: Tensor, axis: int, rows: np.ndarray) -> Tensor:
    """Return the sum of ``values`` over the slices of each unit: (units, k) to (units,)."""
    others = [i for i in range(values.ndim) if i != axis]
    by_position = values.sum(others) if others else values
    return by_position[torch.from_numpy(rows).to(values.device)].sum(1)


def _norm(model: nn.Module, groups: Groups, power: int) -> Scores:
    """Return each unit's norm: over the matrices it has a part in, each relative to the mean there."""
    tensors, scores = named_tensors(model), {}
    for group in groups.all:
        found = []
        for place in group.places:
            w = tensors[place.tensor].detach()
            if w.ndim >= 2:
                size = _sums(w.abs().double() ** power, place.axis, place.rows) ** (1 / power)
                found.append((size / size.mean().clamp_min(1e-300)).cpu().numpy())
        if found:
            scores[group.name] = np.mean(found, axis=0)
    return scores


@dataclass(frozen=True)
class l1:
    """Σ |w| over the weights of a unit, in and out (Li et al. 2017).

    Where we differ: the mean over all matrices that a unit has a part in (Fang et al. 2023), each
    divided by its mean over the group, so that scores compare across layers.
    """

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        return _norm(model, groups, 1)


@dataclass(frozen=True)
class l2:
    """√Σ w² over the weights of a unit, in and out; else as :class:`l1`."""

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        return _norm(model, groups, 2)


def _gates(model: nn.Module, group: Group) -> dict[str, Tensor]:
    """Return the scales and shifts that a unit's output passes: those of its norms."""
    modules, tensors = dict(model.named_modules()), named_tensors(model)
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
    return {
        place.tensor: tensors[place.tensor]
        for place in group.places
        if isinstance(modules[place.tensor.rpartition(".")[0]], norms)
        and isinstance(tensors[place.tensor], nn.Parameter)
    }


@dataclass(frozen=True)
class norm_scale:
    """|γ|, the scale of the batch norm that a unit passes (Liu et al. 2017, "network slimming").

    The mean where it passes several. Groups without a batch norm are left alone.
    """

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        scores = {}
        for group in groups.all:
            found = [
                _sums(gate.detach().abs().double(), place.axis, place.rows).cpu().numpy()
                for place in group.places
                for name, gate in _gates(model, group).items()
                if name == place.tensor and name.endswith("weight")
            ]
            if found:
                scores[group.name] = np.mean(found, axis=0)
        return scores


@dataclass(frozen=True)
class taylor:
    """(Σ g·w)² of a unit's gates, averaged over batches: how much the loss moves without it.

    The gates are the scale and shift of its norm; where it has none, the weights and bias that make
    it. Molchanov et al. 2019, Eq. 8 ("Taylor-FO-BN"); g is the gradient of the mean objective.

    Args:
        batches: examples and labels, such as the first batches of the training data.
        objective: what is descended in training.
    """

    batches: Iterable[tuple[Tensor, Any]] = field(repr=False)
    objective: Objective = cross_entropy()

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        tensors = named_tensors(model)
        gates = {
            group.name: _gates(model, group) or _producers(group, tensors) for group in groups.all
        }
        wanted = {name: t for own in gates.values() for name, t in own.items()}
        scores = {group.name: np.zeros(len(group)) for group in groups.all if gates[group.name]}
        count = 0
        with frozen(model):
            for t in wanted.values():
                t.requires_grad_(True)
            for x, y in self.batches:
                loss = self.objective(model, x, y).mean()
                found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
                products = {
                    name: torch.zeros_like(t) if g is None else (g * t).detach()
                    for (name, t), g in zip(wanted.items(), found, strict=True)
                }
                count += 1
                for group in groups.all:
                    if group.name in scores:
                        scores[group.name] += _squares(group, gates[group.name], products)
        if count == 0:
            raise WalnutError("Taylor importance needs at least one batch of examples and labels")
        return {name: score / count for name, score in scores.items()}


def _producers(group: Group, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {p.tensor: tensors[p.tensor] for p in group.places if p.axis == 0}
    return {name: t for name, t in found.items() if isinstance(t, nn.Parameter)}


def _squares(group: Group, gates: dict[str, Tensor], products: dict[str, Tensor]) -> np.ndarray:
    """Return (Σ g·w)², the sum over the gates of one layer, added over layers."""
    by_layer: dict[str, Tensor] = {}
    for place in group.places:
        if place.tensor in gates:
            layer = place.tensor.rpartition(".")[0]
            part = _sums(products[place.tensor].double(), place.axis, place.rows)
            by_layer[layer] = by_layer.get(layer, torch.zeros_like(part)) + part
    return np.sum([part.square().cpu().numpy() for part in by_layer.values()], axis=0)


class _Silence(TorchDispatchMode):
    """Count zeros of rectified activations, in the order in which they were traced."""

    def __init__(self, axes: Sequence[Any]) -> None:
        super().__init__()
        self.axes, self.at = axes, 0
        self.zeros: dict[int, np.ndarray] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if operation(func) in RECTIFIERS and isinstance(out, Tensor):
            k, self.at = self.at, self.at + 1
            if k < len(self.axes) and self.axes[k] is not None:
                channel = -1 if out.ndim == 2 else 1
                rows = (out == 0).double().transpose(0, channel).flatten(1).mean(1)
                self.zeros[k] = self.zeros.get(k, 0.0) + rows.cpu().numpy()
        return out


@dataclass(frozen=True)
class apoz:
    """1 − the share of a unit's activations that are zero (Hu et al. 2016, Eq. 1, "APoZ").

    Where a unit is rectified in several places, the mean. Groups that pass no ReLU are left alone.

    Args:
        batches: examples, one tensor a batch.
    """

    batches: Iterable[Tensor] = field(repr=False)

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        found = groups.found
        mode, count = _Silence(found.activations), 0
        with frozen(model), plain():
            for x in self.batches:
                mode.at, count = 0, count + 1
                with mode:
                    model(x)
        if count == 0:
            raise WalnutError("the share of zeros needs at least one batch of examples")
        silent: dict[int, list[float]] = {}
        for k, zeros in mode.zeros.items():
            ids = found.activations[k]
            assert ids is not None
            for root, share in zip(found.units.roots(ids), zeros, strict=True):
                silent.setdefault(int(root), []).append(float(share) / count)
        return {
            group.name: np.array([1 - np.mean(silent[int(r)]) for r in group.roots])
            for group in groups.all
            if all(int(r) in silent for r in group.roots)
        }


@dataclass(frozen=True)
class random:
    """Chance, by ``seed``: the control that every other importance must beat."""

    seed: int = 0

    def __call__(self, model: nn.Module, groups: Groups, example: Tensor) -> Scores:
        draws = np.random.default_rng(self.seed)
        return {group.name: draws.random(len(group)) for group in groups.all}
