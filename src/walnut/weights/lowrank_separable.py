"""A convolution as depthwise then pointwise: a form of low rank, each input channel by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .lowrank_moments import Moments
from .lowrank_parts import Form, Layers, conv, refit

_SWEEPS = 5  # of alternating least squares on data
_LARGEST = 3000  # unknowns of the depthwise step; above it only the pointwise layer sees data
_RIDGE = 1e-3


@dataclass(frozen=True)
class separable(Form):
    """Convolution I→O → depthwise k×k I→I·m, pointwise I·m→O: k²·I·m + I·m·O for k²·I·O.

        W[o, i, :, :] ≈ Σ_{j<m} p[o, i, j] · d[i, j, :, :],    m: ``rank``, windows a channel

    m = 1 is the layer of MobileNet (Howard et al. 2017). Without data the best windows are the m
    leading right singular vectors of each channel's matrix (O, k²), Guo et al. 2018 ("Network
    decoupling"); with data both layers are found by least squares in turn, from there. A trained
    convolution is far from separable: m = k² is exact, and larger than the original.
    """

    def limits(self, layer: Any) -> tuple[int, ...]:
        return (min(math.prod(layer.kernel_size), layer.out_channels),)

    def shapes(self, layer: Any, ranks: Sequence[int]) -> Layers:
        (m,) = ranks
        inputs = layer.in_channels
        return [
            conv(layer, inputs, inputs * m, groups=inputs),
            conv(layer, inputs * m, layer.out_channels, ""),
        ]

    def spectra(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, ...]:
        by_channel = w.flatten(2).transpose(0, 1)  # i, o, s
        if moments is not None:
            inputs, _, window = by_channel.shape
            whole = moments.xx.reshape(inputs, window, inputs, window)
            values, vectors = torch.linalg.eigh(torch.einsum("isit->ist", whole))
            by_channel = by_channel @ (vectors * values.clamp_min(0).sqrt()[:, None])
        return (torch.linalg.svdvals(by_channel).square().sum(0),)

    def factors(self, w: Tensor, ranks: Sequence[int], moments: Moments | None) -> list[Tensor]:
        (m,) = ranks
        outputs, inputs, *window = w.shape
        u, s, v = torch.linalg.svd(w.flatten(2).transpose(0, 1), full_matrices=False)
        root = s[:, :m].sqrt()
        d = v[:, :m] * root[:, :, None]  # i, m, s
        p = (u[:, :, :m] * root[:, None]).transpose(0, 1).reshape(outputs, -1)  # o, (i m)
        if moments is not None:
            for sweep in range(_SWEEPS):
                p = refit(p, _features(d), moments)
                if d.numel() > _LARGEST or sweep == _SWEEPS - 1:
                    break
                d = _windows(d, p, moments)
        return [d.reshape(inputs * m, 1, *window), p[..., None, None]]

    def whole(self, factors: Sequence[Tensor], inputs: int) -> Tensor:
        d, p = factors
        p = p.reshape(len(p), inputs, -1)
        return torch.einsum("oij,ijyx->oiyx", p, d.reshape(inputs, -1, *d.shape[2:]))


def _features(d: Tensor) -> Tensor:
    """Return the matrix (i·m, i·s) that depthwise windows (i, m, s) are."""
    eye = torch.eye(len(d), dtype=d.dtype)
    return torch.einsum("ims,ik->imks", d, eye).reshape(d.shape[0] * d.shape[1], -1)


def _windows(d: Tensor, p: Tensor, moments: Moments) -> Tensor:
    """Return the windows (i, m, s) that answer best for a given pointwise layer (o, i·m)."""
    inputs, m, s = d.shape
    together = (p.T @ p).reshape(inputs, m, inputs, m)
    xx = moments.xx.reshape(inputs, s, inputs, s)
    normal = torch.einsum("imkn,iskt->imsknt", together, xx).reshape(d.numel(), d.numel())
    right = torch.einsum(
        "oim,ois->ims", p.reshape(-1, inputs, m), moments.yx.reshape(-1, inputs, s)
    )
    lift = _RIDGE * normal.diagonal().mean() + 1e-30
    normal = normal + lift * torch.eye(len(normal), dtype=d.dtype)
    return torch.linalg.solve(normal, right.reshape(-1) + lift * d.reshape(-1)).reshape(d.shape)
