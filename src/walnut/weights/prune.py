"""Which weights stay: magnitude pruning, by a density per layer or for the whole network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .mask import Mask, Masked, largest
from .represent import matrices, represent, representations, select, weights

Score = Callable[[Tensor], Tensor]
"""``w -> scores`` shaped like it; across layers, the entries with the largest scores stay.

Within a layer scores must grow with magnitude: what differs between scores is the share of a layer.
"""


def magnitude(w: Float[Tensor, "*w"]) -> Float[Tensor, "*w"]:
    """Return |w|: one threshold for the whole network. Layers of small weights may vanish."""
    return w.abs()


def lamp(w: Float[Tensor, "*w"]) -> Float[Tensor, "*w"]:
    """Return w² / Σ of all squares in the layer that are not smaller, in [0, 1].

    Normalised by layer, so that a threshold for the whole network leaves small and narrow layers
    denser, with nothing to set by hand; a layer's largest weight scores 1 and stays.
    Lee et al. 2021, Eq. 3 ("Layer-adaptive sparsity for the magnitude-based pruning").

    >>> lamp(torch.tensor([3.0, 0.0, 1.0]))
    tensor([1.0000, 0.0000, 0.1000], dtype=torch.float64)
    """
    flat = w.detach().double().reshape(-1).square()
    value, order = flat.sort()
    rest = value.flip(0).cumsum(0).flip(0)
    score = torch.where(value > 0, value / rest.clamp_min(1e-300), 0.0)
    return torch.empty_like(flat).scatter_(0, order, score).reshape(w.shape)


def densities(
    model: nn.Module, density: float, *, score: Score = lamp, names: Iterable[str] | None = None
) -> dict[str, float]:
    """Return the density each weight gets when ``density`` of all stay, by their scores.

    density: in (0, 1]. names: the weights that take part; those of two axes or more by default.
    """
    if not 0.0 < density <= 1.0:
        raise WalnutError(f"density is the share that stays, above 0 and at most 1: {density}")
    tensors = weights(model)
    scores = {n: score(tensors[n]).reshape(-1) for n in (names or matrices(model))}
    if not scores:
        raise WalnutError("this network has no weight of two axes or more to prune")
    every = torch.cat([s.double() for s in scores.values()])
    keep = max(1, round(density * len(every)))
    chosen = torch.zeros(len(every), dtype=torch.bool)
    chosen[every.topk(keep, sorted=False).indices] = True
    parts = chosen.split([len(s) for s in scores.values()])
    return {
        name: max(float(part.double().mean()), 1 / len(part))
        for name, part in zip(scores, parts, strict=True)
    }


def prune(
    model: nn.Module, density: float | Mapping[str, float], *, score: Score = lamp
) -> nn.Module:
    """Mask all but the largest weights, in place, and return the network.

    Args:
        model: any network. What is masked already stays masked while densities fall.
        density: the share that stays, in (0, 1]: of all weights of two axes or more together, each
            layer's share by ``score``; or of each weight that matches a pattern, by itself.
        score: how layers share one density.

    Masks of an earlier call are updated where they are, so an optimiser stays valid.

    >>> net = prune(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), 0.25)
    >>> int(net[0].weight.count_nonzero() + net[1].weight.count_nonzero())
    24
    """
    if isinstance(density, Mapping):
        chosen = select(weights(model), density)
    else:
        chosen = densities(model, density, score=score)
    fresh: dict[str, Mask] = {}
    present = representations(model)
    for name, share in chosen.items():
        chain = present.get(name, ())
        if chain and isinstance(chain[-1], Masked):
            chain[-1].mask = largest(weights(model)[name], Mask(share).density)
        else:
            fresh[name] = Mask(share)
    return represent(model, fresh) if fresh else model


def density_schedule(final: float, rounds: int) -> list[float]:
    """Return falling densities d^(1/r), d^(2/r), ..., d: each round prunes the same share.

    >>> [round(d, 3) for d in density_schedule(0.125, 3)]
    [0.5, 0.25, 0.125]
    """
    if not 0.0 < final <= 1.0 or rounds < 1:
        raise WalnutError(f"pruning to {final} in {rounds} rounds cannot be done")
    return [final ** (i / rounds) for i in range(1, rounds + 1)]
