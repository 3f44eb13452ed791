"""Pruning: a filter that lets some weights through and holds the others at zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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


def largest(w: Float[Tensor, "*w"], density: float) -> Bool[Tensor, "*w"]:
    """Return a mask of the share ``density`` of the weights with the largest magnitude.

    >>> largest(torch.tensor([0.1, -3.0, 2.0, 0.0]), 0.5)
    tensor([False,  True,  True, False])
    """
    size = w.detach().abs().reshape(-1)
    keep = min(len(size), max(0, round(density * len(size))))
    mask = torch.zeros(len(size), dtype=torch.bool, device=w.device)
    mask[size.topk(keep, sorted=False).indices] = True
    return mask.reshape(w.shape)


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
