"""Fewer bits over a whole network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .calibrate import Reach, mse
from .mask import Masked
from .quantised import Along, Cast, Quantise, half, per_channel
from .represent import matrices, represent, representations, select, weights
from .representation import Part

FLOATS = {16: half()}
"""What stands for a number of bits that no grid has."""


def quantise(
    model: nn.Module,
    bits: int | Mapping[str, int],
    *,
    along: Along = per_channel(),
    reach: Reach = mse(),
) -> nn.Module:
    """Put weights on grids of few bits, in place, and return the network.

    Args:
        model: any network, pruned or not. Zeros stay exactly zero. A mask on a weight stays and
            comes before the grid.
        bits: of all weights of two axes or more, or of each weight that matches a pattern: 2 to 8,
            or 16 for half precision.
        along: which entries of a weight share a scale.
        reach: how a grid's largest value is found: ``mse()``, ``min_max()``, ``percentile()``,
            ``entropy()``.

    Biases and normalisation stay as they are. Gradients pass straight through, so that the network
    can be trained on; a trained scale is :class:`~walnut.weights.lsq.LearnedStep`.

    Raises:
        WalnutError: a pattern that matches nothing, bits that no grid has, weights that are NaN or
            infinite, tied weights.

    >>> import torch
    >>> net = quantise(nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 2)), {"0.*weight": 4, "1.weight": 8})
    >>> len(net[0].weight[0].unique()) <= 15
    True
    """
    if isinstance(bits, Mapping):
        chosen = select(weights(model), bits)
    else:
        chosen = dict.fromkeys(matrices(model), bits)
        if not chosen:
            raise WalnutError("this network has no weight of two axes or more to quantise")
    return put(model, {name: _part(b, along, reach) for name, b in chosen.items()})


def put(model: nn.Module, parts: Mapping[str, Part]) -> nn.Module:
    """Put a filter on each weight, in place, and keep the mask that it has in force before it.

    ``represent`` bakes what was there; a mask would then no longer hold while the network learns.
    """
    present = representations(model)
    masks = {n: [_Kept(s) for s in present.get(n, ()) if isinstance(s, Masked)] for n in parts}
    return represent(model, {name: (*masks[name], part) for name, part in parts.items()})


@dataclass(frozen=True)
class _Kept:
    """A mask that is there already, as a part."""

    mask: Masked
    source: ClassVar[bool] = False

    def build(self, w: Tensor) -> Masked:
        """Return it."""
        return self.mask


def _part(bits: int, along: Along, reach: Reach) -> Quantise | Cast:
    return FLOATS[bits] if bits in FLOATS else Quantise(bits, along, reach)
