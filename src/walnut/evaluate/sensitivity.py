"""What each layer can spare: accuracy against the density of one layer at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.core.types import Progress
from walnut.weights import matrices, weights
from walnut.weights.mask import largest

from .accuracy import accuracy

DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Sensitivity:
    """Accuracies with one layer pruned and the others whole.

    ``accuracy[name][i]`` belongs to ``densities[i]`` (falling); ``dense`` is that of the network as
    it is; ``sizes`` the weights of each layer.
    """

    densities: tuple[float, ...]
    accuracy: dict[str, tuple[float, ...]]
    sizes: dict[str, int]
    dense: float
    examples: int

    def for_drop(self, drop: float) -> dict[str, float]:
        """Return each layer's smallest density whose accuracy, alone, falls by at most ``drop``.

        Only densities down to the first that costs more count: a curve that recovers is luck.
        drop: in accuracy, so 0.01 for a point. Losses add up over layers; retraining takes most
        of them back (Han et al. 2015, §3.2 choose their thresholds like this, by hand).
        """
        if not 0.0 <= drop <= 1.0:
            raise WalnutError(f"the drop is a share of accuracy in [0, 1]: {drop}")
        found = {}
        for name, curve in self.accuracy.items():
            found[name] = 1.0
            for density, value in zip(self.densities, curve, strict=True):
                if self.dense - value > drop + 1e-12:
                    break
                found[name] = density
        return found

    def total(self, chosen: dict[str, float]) -> float:
        """Return the density over all layers together."""
        kept = sum(self.sizes[name] * density for name, density in chosen.items())
        return kept / sum(self.sizes[name] for name in chosen)

    def for_density(self, density: float) -> dict[str, float]:
        """Return densities a layer that keep at most ``density`` of all, by the smallest drop.

        Every layer is let fall by the same drop, the smallest whose densities are few enough.

        Raises:
            WalnutError: the scan did not go as far; the message says how far it went.
        """
        drops = sorted({max(0.0, self.dense - v) for c in self.accuracy.values() for v in c})
        for drop in drops:
            chosen = self.for_drop(min(1.0, drop))
            if self.total(chosen) <= density:
                return chosen
        least = self.total({name: self.densities[-1] for name in self.accuracy})
        raise WalnutError(
            f"the scan goes down to a density of {least:.3g} and no further: "
            f"scan smaller densities to reach {density:.3g}"
        )

    def json(self) -> list[dict[str, Any]]:
        """Return a record a layer, as a page draws it."""
        return [
            {
                "layer": name,
                "weights": self.sizes[name],
                "density": [1.0, *self.densities],
                "accuracy": [self.dense, *curve],
                "examples": self.examples,
            }
            for name, curve in self.accuracy.items()
        ]


def sensitivity(
    model: nn.Module,
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    *,
    densities: Iterable[float] = DENSITIES,
    names: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Prune one layer at a time by magnitude, without retraining, and measure.

    Args:
        model: network; left as it was.
        x, y: validation examples; never the test set, since ratios are picked by them.
        densities: shares that stay, in (0, 1].
        names: the weights to scan; those of two axes or more by default.
        progress: called after each measurement.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.1, 2.0]]))
    >>> scan = sensitivity(net, torch.eye(2), torch.tensor([0, 1]), densities=(0.5, 0.25))
    >>> scan.accuracy, scan.for_drop(0.0)
    ({'weight': (1.0, 0.5)}, {'weight': 0.5})
    """
    steps = tuple(sorted(set(densities), reverse=True))
    if not steps or not all(0.0 < d <= 1.0 for d in steps):
        raise WalnutError(f"densities are shares that stay, above 0 and at most 1: {steps}")
    chosen = tuple(matrices(model) if names is None else names)
    known = weights(model)
    if unknown := [name for name in chosen if name not in known]:
        raise WalnutError(f"no weight is called {unknown[0]!r}; there are {', '.join(known)}")
    if not chosen:
        raise WalnutError("this network has no weight of two axes or more to scan")
    dense, found = accuracy(model, x, y).value, {}
    for at, name in enumerate(chosen):
        curve = []
        for step, density in enumerate(steps):
            curve.append(_without(model, name, density, x, y))
            if progress is not None:
                progress(f"scan {name}", at * len(steps) + step + 1, len(chosen) * len(steps))
        found[name] = tuple(curve)
    sizes = {name: known[name].numel() for name in chosen}
    return Sensitivity(steps, found, sizes, dense, len(y))


def _without(model: nn.Module, name: str, density: float, x: Tensor, y: Tensor) -> float:
    """Return the accuracy with one weight pruned; the weight is put back."""
    w = weights(model)[name]
    pruned = torch.where(largest(w, density), w, w.new_zeros(()))
    place, _, key = name.rpartition(".")
    module = model.get_submodule(place)
    carrier = _carrier(module, key)
    kept = carrier.detach().clone()
    try:
        with torch.no_grad():
            carrier.copy_(pruned)
        return accuracy(model, x, y).value
    finally:
        with torch.no_grad():
            carrier.copy_(kept)


def _carrier(module: nn.Module, key: str) -> Tensor:
    """Return the parameter that carries a weight; a source's latents carry no single entries."""
    from torch.nn.utils import parametrize

    if not parametrize.is_parametrized(module, key):
        plain: Tensor = module._parameters[key]  # type: ignore[assignment]
        return plain
    chain = module.parametrizations[key]  # type: ignore[index]
    original = getattr(chain, "original", None)
    if not isinstance(original, Tensor):
        raise WalnutError(f"{key} is made of other numbers: bake the network before scanning it")
    return original
