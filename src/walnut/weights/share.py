"""Weight sharing over a whole network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .codebook import Codebook
from .entropy_aware import Coded, quantise
from .kmeans import Clustering, Clusters, kmeans
from .represent import matrices, represent, select, weights


def share(
    model: nn.Module, bits: int | Mapping[str, int], *, cluster: Clustering = kmeans
) -> nn.Module:
    """Replace weights by codebooks of ``2**bits`` values each, in place, and return the network.

    Args:
        model: any network, pruned or not. Zeros stay exactly zero and cost no value.
        bits: of all weights of two axes or more, or of each weight that matches a pattern.
        cluster: how the values are found.

    The network then learns the shared values. Build the optimiser afterwards. Han et al. 2016,
    section 3; there a codebook's start is linear, here it is optimal.
    """
    if isinstance(bits, Mapping):
        chosen = select(weights(model), bits)
    else:
        chosen = dict.fromkeys(matrices(model), bits)
    return represent(model, {name: Codebook(b, cluster) for name, b in chosen.items()})


@dataclass(frozen=True, eq=False)
class Rated:
    """What sharing at a rate came to: one price for a bit, and what each weight tensor pays.

    ``price``: of a bit, in units of the distortion; ``rate``: bits a weight, over all tensors;
    ``rates``: of each. All are entropies: a file takes less where its coder finds contexts.
    """

    price: float
    rate: float
    rates: dict[str, float]


def share_at_rate(
    model: nn.Module,
    rate: float,
    *,
    bits: int = 5,
    importance: Mapping[str, Tensor] | None = None,
    names: Iterable[str] | None = None,
) -> Rated:
    """Share weights so that all together take ``rate`` bits a weight, in place.

    Every tensor pays the same price for a bit (:func:`~walnut.weights.entropy_aware.quantise`), so
    the bits go where they save most distortion: that is the optimal allocation (Shoham & Gersho
    1988). The price is found by bisection. Zero is one of the values: weights become exactly zero
    where that is cheapest.

    Args:
        model: any network.
        rate: bits a weight, above 0.
        bits: of the largest codebook, from 1 to 12.
        importance: what a squared error of each weight costs, by name, for all names;
            :func:`~walnut.weights.curvature.squared_gradients` of the loss makes errors
            comparable between tensors. By default 1: the distortion is that of the weights.
        names: which weights; by default all of two axes or more.

    Raises:
        WalnutError: a rate that is not above 0, an importance that is missing or does not fit.

    >>> net = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
    >>> share_at_rate(net, 1.5).rate <= 1.5
    True
    """
    held = weights(model)
    chosen = matrices(model) if names is None else tuple(names)
    unknown = [n for n in chosen if n not in held or (importance and n not in importance)]
    if not chosen or unknown or not rate > 0 or not 1 <= bits <= 12:
        raise WalnutError(
            f"sharing at {rate} bits a weight needs a rate above 0, 1 to 12 bits, and weights by "
            f"name with an importance each (missing: {', '.join(unknown) or 'all'})"
        )
    felt = {n: importance[n] if importance else torch.ones_like(held[n]) for n in chosen}

    def coded(price: float, iterations: int) -> dict[str, Coded]:
        return {
            n: quantise(
                held[n], 1 << bits, price, importance=felt[n], anchor=0.0, iterations=iterations
            )
            for n in chosen
        }

    total = sum(held[n].numel() for n in chosen)
    price = _price(lambda p: sum(c.bits for c in coded(p, 3).values()) / total, rate)
    found = coded(price, 30)
    while sum(c.bits for c in found.values()) > rate * total:  # more rounds may take a little more
        price *= 1.02
        found = coded(price, 30)
    for name, code in found.items():
        represent(model, {name: Codebook(bits, _settled(code, held[name]))})
    rates = {n: c.bits / held[n].numel() for n, c in found.items()}
    return Rated(price, sum(c.bits for c in found.values()) / total, rates)


def _price(rate_at: Callable[[float], float], wanted: float) -> float:
    """Return the least price found at which the rate is no more than wanted."""
    low, high = 1e-12, 1e-12
    while rate_at(high) > wanted:
        low, high = high, high * 32
        if high > 1e30:
            raise WalnutError(f"no price of a bit brings these weights to {wanted} bits")
    for _ in range(12):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if rate_at(middle) > wanted else (low, middle)
    return high


def _settled(code: Coded, w: Tensor) -> Clustering:
    """Return a clustering that answers with what was found for the weights that are not zero.

    A codebook keeps zeros apart; weights that were put on zero are clustered with the value 0.
    """
    live = (w != 0).reshape(-1)
    index = code.index.reshape(-1).to(live.device)[live]
    return lambda values, k: Clusters(code.levels, code.distortion, math.inf, index)
