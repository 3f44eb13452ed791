"""What a low-rank form is made of: its rank, and least squares on weights or on responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from . import decompose
from .lowrank_moments import Moments

_ROUNDED = 1e-6  # share of the energy that is within what float32 weights are rounded by
_RIDGE = 1e-3  # of the mean variance: how strongly least squares holds to what it starts from


@dataclass(frozen=True, eq=False)
class energy:
    """A rank that keeps a share of the energy: the least k with Σ_{i≤k} σ_i² ≥ share · Σ σ_i².

    The base of :class:`weight_energy` and :class:`response_energy`.
    """

    share: float

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not 0 < self.share <= 1:
            raise WalnutError(f"a share of the energy is above 0 and at most 1, not {self.share}")

    def rank(self, spectrum: Float[Tensor, " s"]) -> int:
        """Return the rank for a spectrum of energies σ², the largest first."""
        kept = spectrum.cumsum(0)
        need = self.share * kept[-1] * (1 - _ROUNDED)
        return min(int((kept < need).sum()) + 1, len(spectrum))


@dataclass(frozen=True, eq=False)
class weight_energy(energy):
    """The rank that keeps a share of the weight's own energy Σ σ²."""


@dataclass(frozen=True, eq=False)
class response_energy(energy):
    """The rank that keeps a share of the responses' variance on data x (Zhang et al. 2016, §2.4).

    Args:
        share: of the variance, in (0, 1].
        x: examples as the network takes them; a few hundred are enough.
    """

    x: Tensor = field(repr=False)


Rank = int | energy | None

Layers = list[tuple[type[nn.Module], dict[str, Any]]]
"""Each small layer's class and arguments, the bias left out."""


@dataclass(frozen=True)
class Form:
    """What one layer becomes. The rank is a number, a share of the energy, or None: a budget's."""

    rank: Rank = None

    modes: ClassVar[int] = 1
    layer: ClassVar[type[nn.Module]] = nn.Conv2d

    @property
    def name(self) -> str:
        """Return the form's name, as a file calls it."""
        return type(self).__name__

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """Return the rank of each mode."""
        return (self.rank,)

    def limits(self, layer: Any) -> tuple[int, ...]:
        """Return the largest rank of each mode that makes sense: there the form is exact."""
        raise NotImplementedError

    def shapes(self, layer: Any, ranks: Sequence[int]) -> Layers:
        """Return the small layers for the given ranks."""
        raise NotImplementedError

    def spectra(self, w: Tensor, moments: Moments | None) -> tuple[Tensor, ...]:
        """Return the energies of each mode, of the weight or of the responses."""
        raise NotImplementedError

    def factors(self, w: Tensor, ranks: Sequence[int], moments: Moments | None) -> list[Tensor]:
        """Return the weights of the small layers in their order."""
        raise NotImplementedError

    def whole(self, factors: Sequence[Tensor], inputs: int) -> Tensor:
        """Return the one weight (o, inputs, ...) that the small layers together amount to."""
        raise NotImplementedError


def refit(start: Tensor, features: Tensor, moments: Moments) -> Tensor:
    """Return the last layer (o, f) that answers best, given features (f, p) @ patch.

    min_A E‖y − A f‖² + λ‖A − start‖², λ = _RIDGE × the features' mean variance.
    """
    ff, yf = features @ moments.xx @ features.T, moments.yx @ features.T
    lift = _RIDGE * ff.diagonal().mean() + 1e-30
    ff = ff + lift * torch.eye(len(ff), dtype=ff.dtype)
    return torch.linalg.solve(ff, (yf + lift * start).T).T


def responding(w: Tensor, rank: int, moments: Moments) -> tuple[Tensor, Tensor]:
    """Return P (o, k), Q (k, p): generalised low-rank regression of y on ŷ = w x̂.

    min over M of rank k of E‖y − M ŷ‖² (Zhang et al. 2016, Eq. 5 without the ReLU): the best M of
    full rank, then the k leading directions of what it predicts. Where we differ: M is held to the
    identity by a small ridge, so that few data cannot do harm.
    """
    aa, ya = w @ moments.xx @ w.T, moments.yx @ w.T
    lift = _RIDGE * aa.diagonal().mean() + 1e-30
    eye = torch.eye(len(aa), dtype=aa.dtype)
    full = torch.linalg.solve(aa + lift * eye, (ya + lift * eye).T).T
    p = decompose.leading(full @ aa @ full.T, rank)
    return p, p.T @ full @ w


def matrix_spectrum(w: Tensor, moments: Moments | None) -> Tensor:
    if moments is None:
        return torch.linalg.svdvals(w).square()
    return decompose.energies(w @ moments.xx @ w.T)[: min(w.shape)]


def conv(layer: Any, inputs: int, outputs: int, axes: str = "hw", groups: int = 1) -> Any:
    """Return a convolution over some axes of the original's window: "hw", "h", "w" or "" (1×1)."""
    pick = [axis in axes for axis in "hw"]

    def only(values: Sequence[int], otherwise: int) -> tuple[int, ...]:
        return tuple(v if p else otherwise for v, p in zip(values, pick, strict=True))

    padding = layer.padding
    if not isinstance(padding, str):
        padding = only(padding, 0)
    return nn.Conv2d, {
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": only(layer.kernel_size, 1),
        "stride": only(layer.stride, 1),
        "padding": padding,
        "dilation": only(layer.dilation, 1),
        "groups": groups,
        "padding_mode": layer.padding_mode,
    }
