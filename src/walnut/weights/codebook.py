"""Weight sharing: every non-zero weight is one of a few values, learned as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from walnut.core.errors import WalnutError

from .kmeans import Clustering, assign, kmeans
from .representation import Representation


def _index_dtype(levels: int) -> torch.dtype:
    return torch.uint8 if levels < 256 else torch.int16 if levels < 1 << 15 else torch.int32


class Shared(Representation):
    """w = table[index], table = (0, centroids): zeros stay exactly zero, the rest is shared.

    The one latent is ``centroids`` (k,). Its gradient is the sum of the gradients of all weights
    that share the centroid: ∂L/∂c_k = Σ ∂L/∂w_ij · 1(I_ij = k), Eq. 3 of Han et al. 2016.
    """

    source: ClassVar[bool] = True
    index: Tensor

    def __init__(self, shape: torch.Size, levels: int, cluster: Clustering) -> None:
        super().__init__()
        self.levels = levels
        self.cluster = cluster
        self.register_buffer("index", torch.zeros(shape, dtype=_index_dtype(levels)))

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight of the centroids (k,)."""
        (centroids,) = latents
        table = torch.cat([centroids.new_zeros(1), centroids])
        # index_select with 32-bit indices: twice the speed of table[index], forward and backward.
        return table.index_select(0, self.index.reshape(-1).int()).reshape(self.index.shape)

    def right_inverse(self, w: Tensor) -> tuple[Tensor, ...]:
        """Cluster the non-zeros of ``w``, remember who belongs where, and return the centroids."""
        live = w.detach() != 0
        values = w.detach()[live]
        index = torch.zeros(w.shape, dtype=torch.int64, device=w.device)
        centroids = torch.zeros(self.levels, dtype=w.dtype, device=w.device)
        if values.numel():
            clusters = self.cluster(values, self.levels)
            found, own = clusters.centroids.to(w.device), clusters.index
            index[live] = 1 + (assign(values, found) if own is None else own.to(w.device))
            centroids[: len(found)] = found
            centroids[len(found) :] = found[-1]
        self.index = index.to(self.index.dtype)
        return (centroids,)


@dataclass(frozen=True)
class Codebook:
    """Share ``2**bits`` values among the non-zeros of a weight, found by k-means.

    bits: from 1 to 16. cluster: :func:`~walnut.weights.kmeans.kmeans` (optimal), or
    ``lloyd(start=linear)``, the choice of Han et al. 2016.
    """

    bits: int
    cluster: Clustering = kmeans
    source: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise WalnutError(f"a shared weight takes 1 to 16 bits, not {self.bits}")

    def build(self, w: Tensor) -> Shared:
        """Return the source for the weight ``w``."""
        if not w.is_floating_point():
            raise WalnutError(f"weights to share must be floating-point, not {w.dtype}")
        return Shared(w.shape, 1 << self.bits, self.cluster)
