"""Pruning: a filter that lets some weights through and holds the others at zero."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from walnut.core.errors import WalnutError

from .representation import Representation


class Masked(Representation):
    """w where ``mask`` is true, else exactly +0; the gradient is zero there too.

    The filtered weight is selected and not multiplied: −1 · 0 would be −0, a second kind of zero.
    """

    mask: Bool[Tensor, "*w"]

    def __init__(self, mask: Bool[Tensor, "*w"]) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, *latents: Tensor) -> Tensor:
        """Return the weight, filtered."""
        (w,) = latents
        return torch.where(self.mask, w, w.new_zeros(()))

    def right_inverse(self, w: Tensor) -> Tensor:
        """Return the weight, filtered."""
        return self.forward(w)


_HUGE = 1 << 22  # scores from which on memory counts


def largest(w: Float[Tensor, "*w"], density: float) -> Bool[Tensor, "*w"]:
    """Return a mask of the share ``density`` of the weights with the largest magnitude.

    >>> largest(torch.tensor([0.1, -3.0, 2.0, 0.0]), 0.5)
    tensor([False,  True,  True, False])
    """
    return best(w.detach().abs(), density)


def best(scores: Float[Tensor, "*w"], density: float) -> Bool[Tensor, "*w"]:
    """Return a mask of the share ``density`` of the entries with the largest scores."""
    flat = scores.detach().reshape(-1)
    keep = min(len(flat), max(0, round(density * len(flat))))
    if len(flat) > _HUGE and flat.dtype == torch.float32 and 0 < keep < len(flat):
        return _above(flat, keep).reshape(scores.shape)
    mask = torch.zeros(len(flat), dtype=torch.bool, device=scores.device)
    mask[flat.topk(keep, sorted=False).indices] = True
    return mask.reshape(scores.shape)


def _above(flat: Float[Tensor, " n"], keep: int) -> Bool[Tensor, " n"]:
    """Return a mask of the ``keep`` largest, by a threshold: in a quarter of the memory of ``topk``.

    Among those at the threshold the first are kept; NaN counts as the largest, as in ``topk``.
    """
    threshold = float(np.partition(flat.cpu().numpy(), len(flat) - keep)[len(flat) - keep])
    if math.isnan(threshold):
        mask, level = torch.zeros_like(flat, dtype=torch.bool), flat.isnan()
    else:
        mask, level = (flat <= threshold).logical_not_(), flat == threshold
    mask[level.nonzero()[: keep - int(mask.count_nonzero()), 0]] = True
    return mask


@dataclass(frozen=True)
class Mask:
    """Keep the share ``density`` of a weight's entries that are largest in magnitude.

    density: in (0, 1]. Han et al. 2015 ("Learning both weights and connections"), with the
    threshold given by the density in place of a multiple of the standard deviation.
    """

    density: float
    source: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise WalnutError(
                f"density is the share that stays, above 0 and at most 1: {self.density}"
            )

    def build(self, w: Tensor) -> Masked:
        """Return the filter for the weight ``w``."""
        return Masked(largest(w, self.density))


@dataclass(frozen=True, eq=False)
class Fixed:
    """Keep the entries that a given mask says."""

    mask: Bool[Tensor, "*w"] = field(repr=False)
    source: ClassVar[bool] = False

    def build(self, w: Tensor) -> Masked:
        """Return the filter for the weight ``w``.

        Raises:
            WalnutError: the mask has another shape.
        """
        if self.mask.shape != w.shape:
            raise WalnutError(
                f"a mask of shape {tuple(self.mask.shape)} does not fit a weight of {tuple(w.shape)}"
            )
        return Masked(self.mask.detach().clone().to(w.device))


@dataclass(frozen=True)
class NofM:
    """Keep the ``n`` largest of every ``m`` consecutive weights along the input axis.

    2:4 is what NVIDIA's sparse tensor cores take (Mishra et al. 2021, "Accelerating sparse deep
    neural networks", §3): every row of m inputs of an output has at most n that are not zero. For a
    convolution (out, in, height, width) the groups run along ``in``, at each place of the kernel.

    Args:
        n, m: 1 ≤ n ≤ m.

    >>> from walnut.weights import represent
    >>> net = represent(torch.nn.Linear(8, 3), {"weight": NofM(2, 4)})
    >>> (net.weight.reshape(3, 2, 4) != 0).sum(2).unique().tolist()
    [2]
    """

    n: int = 2
    m: int = 4
    source: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise WalnutError(f"{self.n} of {self.m} weights cannot be kept: 1 ≤ n ≤ m")

    def fits(self, w: Tensor) -> bool:
        """Say whether a weight's inputs are whole groups."""
        return w.ndim >= 2 and w.shape[1] % self.m == 0

    def build(self, w: Tensor) -> Masked:
        """Return the filter for the weight ``w``.

        Raises:
            WalnutError: its number of inputs is no multiple of m.
        """
        if not self.fits(w):
            raise WalnutError(
                f"a weight of shape {tuple(w.shape)} has no whole groups of {self.m} inputs: "
                f"leave it out of {self.n}:{self.m} pruning"
            )
        size = w.detach().abs().movedim(1, -1)
        groups = size.reshape(*size.shape[:-1], -1, self.m)
        mask = torch.zeros_like(groups, dtype=torch.bool)
        mask.scatter_(-1, groups.topk(self.n, dim=-1).indices, True)
        return Masked(mask.reshape(size.shape).movedim(-1, 1).contiguous())
