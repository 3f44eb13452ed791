"""A shallow network of Gaussian units: the "template matcher" that resists where it is not sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from walnut.core.errors import WalnutError

from .normalize import Normalize, Shape, Statistics

_SIGMA = (
    0.3  # of a fresh unit, relative to √d in input units: about as far as two pictures lie apart
)


class Rbf(nn.Module):
    """z_c = w_c · h + b_c with h_j = exp(−β_j ‖x − μ_j‖²): one layer of Gaussian units.

    Far from every centre all units are silent and the answer falls back to b, so that such a network
    is less sure where it is fooled (Goodfellow et al. 2015, §7). Where we differ: their unit is
    exp((x − μ)ᵀβ(x − μ)), one a class; here there are ``units`` with one width each, below a linear
    layer.

    Args:
        units: number of centres; uniform in [0, 1]^d, with β = 1 / (2 · 0.09 d), until
            :func:`centred` puts them on data. With ``mean`` and ``std`` they are in normalised units.
    """

    def __init__(
        self,
        *,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        mean: Statistics = None,
        std: Statistics = None,
        units: int = 100,
    ) -> None:
        super().__init__()
        d = math.prod(shape)
        self.normalize = Normalize(shape, mean, std)
        drawn = torch.rand(units, *shape)
        if not drawn.is_meta:
            drawn = self.normalize(drawn)
        self.centres = nn.Parameter(drawn.flatten(1))
        wide = 2 * d * (_SIGMA / float(self.normalize.std.mean())) ** 2
        self.log_beta = nn.Parameter(torch.full((units,), -math.log(wide)))
        self.linear = nn.Linear(units, classes)

    def forward(self, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b k"]:
        """Return logits (b, classes) of x (b, *shape)."""
        flat = self.normalize(x).flatten(1)
        if flat.shape[1] != self.centres.shape[1]:
            raise ValueError(
                f"the centres have {self.centres.shape[1]} numbers, not {flat.shape[1]}"
            )
        gap = (
            flat.square().sum(1)[:, None] + self.centres.square().sum(1) - 2 * flat @ self.centres.T
        )
        return self.linear(torch.exp(-self.log_beta.exp() * gap.clamp_min(0)))


def centred(
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    *,
    classes: int,
    units: int = 100,
    overlap: float = 1.0,
    examples: int = 10_000,
    seed: int = 0,
) -> Rbf:
    """Return a network whose centres are k-means of each class' examples; train it with ``fit``.

    Every class gets units in the measure of its share. Widths: 2σ_j² is ``overlap`` times the mean
    squared distance from centre j to the examples nearest to it. First weights: +1 to the class of a
    unit's examples, −1/(classes − 1) to others, times 4.

    Args:
        x: examples to put centres on (n, ...), y: labels (n,).
        units: centres in all, at least one a class.
        overlap: how wide units are; larger is smoother.
        examples: at most so many are looked at, the first of them.
        seed: of k-means.
    """
    from sklearn.cluster import KMeans  # a second to import

    flat, y = x[:examples].detach().flatten(1).cpu().double(), y[:examples].cpu()
    counts = y.bincount(minlength=classes)
    if len(counts) != classes or units < int((counts > 0).sum()) or len(flat) < units:
        raise WalnutError(
            f"{units} units need as many examples, labels below {classes} and at least one unit a class"
        )
    shares = _shared(counts, units)
    parts = [
        KMeans(k, n_init=1, random_state=seed).fit(flat[y == label].numpy()).cluster_centers_
        for label, k in enumerate(shares)
        if k
    ]
    middle = torch.cat([torch.from_numpy(part) for part in parts])
    owners = torch.arange(classes).repeat_interleave(torch.tensor(shares))
    near, nearest = torch.cdist(flat, middle).square().min(1)
    spread = torch.zeros(units, dtype=torch.float64).index_add_(0, nearest, near)
    members = nearest.bincount(minlength=units)
    typical = float(near.mean())
    spread = torch.where(members > 1, spread / members.clamp_min(1), typical).clamp_min(
        0.1 * typical
    )
    weight = torch.full((classes, units), -4.0 / max(classes - 1, 1))
    weight[owners, torch.arange(units)] = 4.0
    with torch.random.fork_rng([]):  # its first centres, replaced at once
        shape = [int(side) for side in x.shape[1:]]
        model = Rbf(shape=shape, classes=classes, units=units)
    arguments = {"shape": shape, "classes": classes, "mean": None, "std": None, "units": units}
    model.description = {"net": "rbf", "arguments": arguments}  # type: ignore[assignment]
    with torch.no_grad():
        model.centres.copy_(middle)
        model.log_beta.copy_(-torch.log(overlap * spread.clamp_min(1e-6)))
        model.linear.weight.copy_(weight)
        model.linear.bias.zero_()
    return model


def _shared(counts: Tensor, units: int) -> list[int]:
    """Share units out by class sizes: at least one where there are examples, no more than those."""
    found = [min(1, int(c)) for c in counts]
    while sum(found) < units:  # always to the class with the most examples a unit
        ratio = [
            int(c) / k if k and int(c) > k else 0.0 for c, k in zip(counts, found, strict=True)
        ]
        found[max(range(len(ratio)), key=ratio.__getitem__)] += 1
    return found


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments that the shapes of a state dict show."""
    units, features = shapes["centres"]
    return {"classes": shapes["linear.weight"][0], "features": features, "units": units}
