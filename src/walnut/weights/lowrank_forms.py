"""The forms of a low-rank layer: which small layers stand for a large one, and their weights.

Each form is a frozen record of its rank. With ``moments`` the factors answer like the original on
data; without, they are close to the weight itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from . import decompose
from .lowrank_moments import Moments, of_patches
from .lowrank_parts import Form, Layers, Rank, conv, matrix_spectrum, refit, responding
from .lowrank_separable import separable


@dataclass(frozen=True)
class svd(Form):
    """Dense M×N → N→K, K→M: (M + N)·K weights for M·N.

    >>> from walnut.weights.lowrank import factorise
    >>> net = nn.Sequential(nn.Linear(100, 50))
    >>> factorise(net, {"0": svd(10)}).model
    Sequential(
      (0): Sequential(
        (0): Linear(in_features=100, out_features=10, bias=False)
        (1): Linear(in_features=10, out_features=50, bias=True)
      )
    )
    """

    layer: ClassVar[type[nn.Module]] = nn.Linear

    def limits(self, layer: Any) -> tuple[int, ...]:
        return (min(layer.in_features, layer.out_features),)

    def shapes(self, layer: Any, ranks: Sequence[int]) -> Layers:
        (k,) = ranks
        return [
            (nn.Linear, {"in_features": layer.in_features, "out_features": k}),
            (nn.Linear, {"in_features": k, "out_features": layer.out_features}),
        ]

    def spectra(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, ...]:
        return (matrix_spectrum(w, moments),)

    def factors(self, w: Tensor, ranks: Sequence[int], moments: Moments | None) -> list[Tensor]:
        if moments is None:
            p, q, _ = decompose.split(w, ranks[0])
        else:
            p, q = responding(w, ranks[0], moments)
        return [q, p]

    def whole(self, factors: Sequence[Tensor], inputs: int) -> Tensor:
        return factors[1] @ factors[0]


@dataclass(frozen=True)
class channel(Form):
    """Convolution k×k I→O → k×k I→K, 1×1 K→O: k²·I·K + K·O for k²·I·O (Zhang et al. 2015)."""

    def limits(self, layer: Any) -> tuple[int, ...]:
        return (min(layer.out_channels, layer.in_channels * math.prod(layer.kernel_size)),)

    def shapes(self, layer: Any, ranks: Sequence[int]) -> Layers:
        (k,) = ranks
        return [conv(layer, layer.in_channels, k), conv(layer, k, layer.out_channels, "")]

    def spectra(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, ...]:
        return (matrix_spectrum(w.flatten(1), moments),)

    def factors(self, w: Tensor, ranks: Sequence[int], moments: Moments | None) -> list[Tensor]:
        flat = w.flatten(1)
        if moments is None:
            p, q, _ = decompose.split(flat, ranks[0])
        else:
            p, q = responding(flat, ranks[0], moments)
        return [q.reshape(-1, *w.shape[1:]), p[..., None, None]]

    def whole(self, factors: Sequence[Tensor], inputs: int) -> Tensor:
        return torch.einsum("okyx,kihw->oihw", factors[1], factors[0])


@dataclass(frozen=True)
class spatial(Form):
    """Convolution k×k I→O → k×1 I→K, 1×k K→O: k·K·(I + O) for k²·I·O (Jaderberg et al. 2014).

    The SVD of the weight as a matrix (I·k rows) × (O·k columns), Tai et al. 2016, which is the
    optimum of Jaderberg's scheme 2.
    """

    def limits(self, layer: Any) -> tuple[int, ...]:
        h, w = layer.kernel_size
        return (min(layer.in_channels * h, layer.out_channels * w),)

    def shapes(self, layer: Any, ranks: Sequence[int]) -> Layers:
        (k,) = ranks
        return [
            conv(layer, layer.in_channels, k, "h"),
            conv(layer, k, layer.out_channels, "w"),
        ]

    def _matrix(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, Tensor]:
        """Return the weighted matrix (o·w, i·h), and what takes the weighting back (i·h, i·h)."""
        o, i, h, x = w.shape
        matrix = w.permute(0, 3, 1, 2).reshape(o * x, i * h)
        if moments is None:
            return matrix, torch.eye(i * h, dtype=w.dtype)
        root, back = decompose.roots(of_patches(moments.xx, (i, h, x), (0, 1)))
        return matrix @ root, back

    def spectra(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, ...]:
        return (torch.linalg.svdvals(self._matrix(w, moments)[0]).square(),)

    def factors(self, w: Tensor, ranks: Sequence[int], moments: Moments | None) -> list[Tensor]:
        o, i, h, x = w.shape
        (k,) = ranks
        matrix, back = self._matrix(w, moments)
        p, q, _ = decompose.split(matrix, k)
        first = q @ back
        last = p.reshape(o, x, k).transpose(1, 2)  # o, k, x
        if moments is not None:
            window = torch.eye(x, dtype=w.dtype)
            features = torch.einsum("ka,uv->kuav", first, window).reshape(k * x, i * h * x)
            last = refit(last.reshape(o, k * x), features, moments).reshape(o, k, x)
        return [first.reshape(k, i, h, 1), last.reshape(o, k, 1, x)]

    def whole(self, factors: Sequence[Tensor], inputs: int) -> Tensor:
        return torch.einsum("okyw,kihx->oihw", factors[1], factors[0])


def _weighted_channels(w: Tensor, moments: Moments | None) -> tuple[Tensor, Tensor]:
    """Return the kernel (o, i, h, w) with its inputs weighted, and what takes the weighting back."""
    if moments is None:
        return w, torch.eye(w.shape[1], dtype=w.dtype)
    root, back = decompose.roots(of_patches(moments.xx, tuple(w.shape[1:]), (0,)))
    return torch.einsum("ojhw,ji->oihw", w, root), back


@dataclass(frozen=True)
class tucker2(Form):
    """Convolution I→O → 1×1 I→A, k×k A→B, 1×1 B→O (Kim et al. 2016): ``rank`` is A, the inputs'."""

    rank_out: Rank = None

    modes: ClassVar[int] = 2

    @property
    def ranks(self) -> tuple[Rank, ...]:
        return (self.rank, self.rank_out)

    def limits(self, layer: Any) -> tuple[int, ...]:
        window = math.prod(layer.kernel_size)
        inputs, outputs = layer.in_channels, layer.out_channels
        return min(inputs, outputs * window), min(outputs, inputs * window)

    def shapes(self, layer: Any, ranks: Sequence[int]) -> Layers:
        a, b = ranks
        return [
            conv(layer, layer.in_channels, a, ""),
            conv(layer, a, b),
            conv(layer, b, layer.out_channels, ""),
        ]

    def spectra(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, ...]:
        weighted, _ = _weighted_channels(w, moments)
        inputs = decompose.energies(torch.einsum("oihw,ojhw->ij", weighted, weighted))
        return inputs, matrix_spectrum(w.flatten(1), moments)

    def factors(self, w: Tensor, ranks: Sequence[int], moments: Moments | None) -> list[Tensor]:
        a, b = ranks
        weighted, back = _weighted_channels(w, moments)
        p, core, q = decompose.tucker2(weighted.flatten(2), a, b)
        q = q @ back
        if moments is not None:
            features = torch.einsum("bas,ai->bis", core, q).flatten(1)
            p = refit(p, features, moments)
        return [
            q[..., None, None],
            core.reshape(core.shape[0], core.shape[1], *w.shape[2:]),
            p[..., None, None],
        ]

    def whole(self, factors: Sequence[Tensor], inputs: int) -> Tensor:
        q, core, p = factors
        return torch.einsum("obyx,bahw,aiyx->oihw", p, core, q)


@dataclass(frozen=True)
class cp(Form):
    """Convolution I→O → 1×1 I→R, k×1 and 1×k on each of R by itself, 1×1 R→O (Lebedev et al. 2015).

    A CP form has no spectrum to choose the rank from: give a number.
    """

    def limits(self, layer: Any) -> tuple[int, ...]:
        sizes = (layer.out_channels, layer.in_channels, *layer.kernel_size)
        return (math.prod(sizes) // max(sizes),)

    def shapes(self, layer: Any, ranks: Sequence[int]) -> Layers:
        (r,) = ranks
        return [
            conv(layer, layer.in_channels, r, ""),
            conv(layer, r, r, "h", groups=r),
            conv(layer, r, r, "w", groups=r),
            conv(layer, r, layer.out_channels, ""),
        ]

    def spectra(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, ...]:
        return ()

    def factors(self, w: Tensor, ranks: Sequence[int], moments: Moments | None) -> list[Tensor]:
        weighted, back = _weighted_channels(w, moments)
        a, b, c, d = decompose.cp(weighted, ranks[0])
        b = back.T @ b
        if moments is not None:
            features = torch.einsum("ir,yr,xr->riyx", b, c, d).flatten(1)
            a = refit(a, features, moments)
        return [
            b.T[..., None, None],
            c.T[:, None, :, None],
            d.T[:, None, None, :],
            a[..., None, None],
        ]

    def whole(self, factors: Sequence[Tensor], inputs: int) -> Tensor:
        b, c, d, a = factors
        return torch.einsum("oryx,riyx,rzhx,rzyw->oihw", a, b, c, d)


FORMS: dict[str, Form] = {
    form.name: form for form in (svd(), channel(), spatial(), tucker2(), cp(), separable())
}
