"""Weight sharing over a whole network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .codebook import Codebook
from .kmeans import Clustering, kmeans
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
