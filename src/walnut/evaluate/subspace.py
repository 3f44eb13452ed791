"""The dimension of the adversarial subspace: how many orthogonal directions fool a network.

Gradient-aligned adversarial subspaces (GAAS; Tramèr et al. 2017, "The space of transferable
adversarial examples", §3 and Lemma 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.gradients import plain
from walnut.core.objectives import cross_entropy
from walnut.core.queried import Queried
from walnut.core.types import Objective

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of directions that are tried unless others are given; those above d are left out."""


@dataclass(frozen=True)
class Subspace:
    """How many orthogonal directions fool a network, per example.

    Attributes:
        eps: Euclidean length of every direction.
        tried: the numbers k of directions that were tried.
        fooled: (n, len(tried)), how many of the k directions fool the source.
        transferred: (target, n, len(tried)), how many of those fool each target as well.
        targets: the names of the targets.
        right: (n,) whether the source gets the example right; where not, nothing is counted.
        outside: share of the points tried that lie outside [0, 1]; 0 where they were clipped.
        forward: forward passes an example on the source.
    """

    eps: float
    tried: tuple[int, ...]
    fooled: Int[Tensor, " n k"]
    transferred: dict[str, Int[Tensor, " n k"]] = field(repr=False)
    right: Bool[Tensor, " n"]
    outside: float
    forward: int

    @property
    def complete(self) -> Int[Tensor, " n"]:
        """Return the largest k tried whose k directions all fool the source (0: none does)."""
        k = torch.tensor(self.tried, device=self.fooled.device)
        return torch.where(self.fooled == k, k, 0).amax(1)

    @property
    def dimension(self) -> Int[Tensor, " n"]:
        """Return the largest number of orthogonal directions found, over every k tried."""
        return self.fooled.amax(1)

    def carried(self, target: str) -> Int[Tensor, " n"]:
        """Return how many directions of the set behind :attr:`dimension` fool ``target`` as well."""
        at = self.fooled.argmax(1, keepdim=True)
        return self.transferred[target].gather(1, at)[:, 0]

    def json(self) -> dict[str, Any]:
        """Return means over the examples that the source gets right, and the curve over k."""
        kept = self.right

        def mean(values: Tensor) -> float | None:
            return None if not bool(kept.any()) else round(float(values[kept].double().mean()), 4)

        return {
            "eps": self.eps,
            "examples": int(kept.sum()),
            "dimension": mean(self.dimension),
            "complete": mean(self.complete),
            "largest": int(self.dimension.max()),
            "transferred": {name: mean(self.carried(name)) for name in self.transferred},
            "curve": {
                "k": list(self.tried),
                "fooled": [mean(self.fooled[:, i]) for i in range(len(self.tried))],
                "transferred": {
                    name: [mean(found[:, i]) for i in range(len(self.tried))]
                    for name, found in self.transferred.items()
                },
            },
            "outside": self.outside,
            "forward_per_example": self.forward,
        }


def aligned(
    gradient: Float[Tensor, " b d"], basis: Float[Tensor, " k d"]
) -> Float[Tensor, " b k d"]:
    """Return k orthonormal vectors per example with ⟨g, r_i⟩ = ‖g‖ / √k for each.

    The reflection that takes z = Σ q_i / √k to g/‖g‖, applied to k orthonormal q_i. No k orthonormal
    vectors have a larger least product with g (Tramèr et al. 2017, Lemma 1). Where we differ: the
    paper rotates coordinate axes, single pixels of full length; we start from random directions, which
    stay closer to the box.

    Args:
        gradient: g (b, d), not zero.
        basis: orthonormal rows (k, d).

    >>> r = aligned(torch.tensor([[3.0, 4.0]]), torch.eye(2))
    >>> (r @ torch.tensor([3.0, 4.0])).numpy().round(4)
    array([[3.5355, 3.5355]], dtype=float32)
    """
    unit = gradient / gradient.norm(dim=1, keepdim=True)
    w = basis.sum(0) / len(basis) ** 0.5 - unit
    scale = 2 / w.square().sum(1, keepdim=True).clamp_min(1e-12)
    return basis - (scale * (w @ basis.T))[:, :, None] * w[:, None, :]


def adversarial_subspace(
    model: Any,
    x: Float[Tensor, " n *d"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    targets: dict[str, Any] | None = None,
    tried: tuple[int, ...] = COUNTS,
    objective: Objective = cross_entropy(),
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    batch_size: int = 500,
) -> Subspace:
    """Count orthogonal directions of length ``eps`` that fool a network, and those that transfer.

    For each k of ``tried``: k orthogonal r_i with ‖r_i‖₂ = eps and ⟨∇J, r_i⟩ = eps·‖∇J‖/√k, the
    largest increase γ of the linearised loss that all of k directions can have; then which x + r_i are
    misclassified. On a two-class linear network all k fool it exactly while k < (eps·‖w‖/margin)²,
    with w the difference of the two rows and margin that of the logits.

    Args:
        model: network from [0, 1] to logits, with a gradient.
        x: examples (n, ...), y: true labels (n,).
        eps: Euclidean length of every direction, in input units.
        targets: other networks, which are shown the directions that fool ``model``.
        tried: numbers of directions; the cost is their sum, in forward passes an example.
        objective: whose gradient is followed.
        bounds: clip points into this box (clipped directions are orthogonal no more); None as in the
            paper's lemma.
        seed: of the directions that are turned towards the gradient.

    Raises:
        WalnutError: no gradient reaches the input, or no k fits the input.
    """
    d = x[0].numel() if len(x) else 0
    sizes = tuple(sorted({k for k in tried if 1 <= k <= d}))
    if not sizes or not eps > 0:
        raise WalnutError(f"eps must be positive and one of tried from 1 to {d}, not {tried}")
    networks = {"": model, **(targets or {})}
    basis = _basis(d, sizes[-1], seed, x)
    counts = {n: torch.zeros(len(x), len(sizes), dtype=torch.int64) for n in networks}
    outside, right = 0, torch.zeros(len(x), dtype=torch.bool)
    for rows in torch.arange(len(x)).split(max(1, batch_size // sizes[-1])):
        gradient, right[rows] = _gradient(model, x[rows], y[rows], objective)
        for i, k in enumerate(sizes):
            shape = len(rows) * k, *x.shape[1:]
            points = (x[rows].flatten(1)[:, None] + eps * aligned(gradient, basis[:k])).reshape(
                shape
            )
            outside += _outside(points) if bounds is None else 0
            points = points if bounds is None else points.clamp(*bounds)
            wrong = {
                n: _wrong(m, points, y[rows].repeat_interleave(k)) for n, m in networks.items()
            }
            for name, found in wrong.items():
                both = (found & wrong[""]).reshape(len(rows), k).sum(1).cpu()
                counts[name][rows, i] = torch.where(right[rows], both, 0)
    fooled = counts.pop("")
    return Subspace(
        eps, sizes, fooled, counts, right, round(outside / (len(x) * sum(sizes)), 4), sum(sizes) + 1
    )


def _outside(points: Tensor) -> int:
    """Count the points that leave [0, 1] by more than rounding."""
    return int(((points < -1e-6) | (points > 1 + 1e-6)).flatten(1).any(1).sum())


def _basis(d: int, k: int, seed: int, x: Tensor) -> Tensor:
    """Return k random orthonormal rows (k, d), the same for every example."""
    stream = Draws.keyed(torch.zeros(1, dtype=torch.int64, device=x.device)).fold(seed)
    q, r = torch.linalg.qr(stream.normal(d, k)[0])
    return (q * r.diagonal().sign()).T.to(x.dtype).contiguous()


def _gradient(model: Any, x: Tensor, y: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return the objective's gradient (b, d), and which examples the network gets right."""
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        asked = Queried(model)
        x = x.clone()
        _, gradient = plain()(lambda z: objective(asked, z, y), x, Draws.of(x, 0))
        right = asked.logits_at(x).argmax(1) == y  # of the pass just made
    gradient = gradient.flatten(1)
    dead = right & ~((gradient.norm(dim=1) > 0) & gradient.isfinite().all(1))
    if bool(dead.any()):
        raise WalnutError(
            f"the gradient is zero or not a number on {int(dead.sum())} examples: the loss is "
            "saturated or masked; follow the margin: objective=margin()"
        )
    empty = (gradient == 0).all(1, keepdim=True)
    return torch.where(empty, torch.ones_like(gradient), gradient), right.cpu()


def _wrong(model: Any, x: Tensor, y: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad(), frozen(model):
        asked = Queried(model)
        return torch.cat([asked(part) for part in x.split(1000)]).argmax(1) != y
