"""Dense layers that are nearly empty, as sparse products: fewer multiplications, and fewer seconds."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core.errors import WalnutError
from walnut.weights import bake


class CsrLinear(nn.Module):
    """y = x Wᵀ + b with the non-zeros of W (outputs, inputs) in compressed sparse rows.

    It pays where the layer is large and nearly empty: 4096×4096 gains from a tenth of non-zeros for a
    batch and a twentieth for one example, 1024×1024 alike, 300×784 for batches of 64 only
    (``benchmarks/speed.py`` has the table). The sums are the dense layer's in another order, so that
    answers agree to rounding. It is a form to run, not one to train or to store.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        w = layer.weight.detach()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its sparse rows a beta, at every use
            rows = w.to_sparse_csr()
        self.rows: Tensor = rows
        self.bias: Tensor | None = None if layer.bias is None else layer.bias.detach().clone()

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: torch cannot copy sparse rows themselves."""
        rows = self.rows
        parts = (rows.crow_indices(), rows.col_indices(), rows.values())
        return {**self.__dict__, "rows": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape = (self.out_features, self.in_features)
            starts, columns, values = state["rows"]
            self.rows = torch.sparse_csr_tensor(starts, columns, values, shape)

    @property
    def density(self) -> float:
        """Return the share of W that is not zero."""
        return self.rows.values().numel() / max(1, self.in_features * self.out_features)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Return (..., outputs)."""
        flat = x.reshape(-1, self.in_features)
        out = (self.rows @ flat.T).T
        out = out if self.bias is None else out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Say how large and how empty it is."""
        return f"{self.in_features}, {self.out_features}, density={self.density:.3f}"


def to_csr(model: nn.Module, density_below: float = 0.05) -> nn.Module:
    """Return a copy of a network, its nearly empty dense layers as sparse products.

    Args:
        model: any network; its represented weights count as they are used.
        density_below: layers with a smaller share of non-zeros than this are replaced.

    Convolutions stay as they are, however empty: no kernel for them gains by zeros. Where no layer is
    empty enough, the copy is the network.

    >>> net = nn.Sequential(nn.Linear(100, 10), nn.ReLU(), nn.Linear(10, 3))
    >>> _ = net[0].weight.data.mul_(torch.rand(10, 100) < 0.01)
    >>> [type(layer).__name__ for layer in to_csr(net)]
    ['CsrLinear', 'ReLU', 'Linear']
    """
    if not 0.0 < density_below <= 1.0:
        raise WalnutError(f"density_below is a share of non-zeros in (0, 1], not {density_below}")
    twin = bake(copy.deepcopy(model)).eval()
    if isinstance(twin, nn.Linear):
        return CsrLinear(twin) if _density(twin) < density_below else twin
    made: dict[int, CsrLinear] = {}  # by layer, so that one that is shared stays shared
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            # type and not isinstance: a user's own kind of dense layer may do more than multiply
            if type(child) is nn.Linear and _density(child) < density_below:
                made.setdefault(id(child), CsrLinear(child))
                setattr(module, name, made[id(child)])
    return twin


def _density(layer: nn.Linear) -> float:
    return int(layer.weight.count_nonzero()) / max(1, layer.weight.numel())
