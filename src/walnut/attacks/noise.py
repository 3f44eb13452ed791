"""The control: noise as large as an attack's perturbation, in no particular direction."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Shaped
from torch import Tensor

from walnut.core.constraints import linf
from walnut.core.objectives import margin
from walnut.core.search import Proposal, far, search
from walnut.core.types import Adversarial, Constraint, Model, Objective

from .common import Norm, ball, prepare


@dataclass(frozen=True)
class NoiseAttack:
    """Random points of a constraint; the one that fools, or comes nearest to it, is returned."""

    constraint: Constraint
    draws: int
    propose: Proposal = far()
    objective: Objective = margin()
    early_stop: bool = False
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Try noise on every example of ``x`` (n, ...) with true labels ``y`` (n,)."""
        prepare(model, x, self.constraint)
        return search(
            model, x, y, objective=self.objective, propose=self.propose, queries=self.draws,
            constraint=self.constraint, early_stop=self.early_stop, seed=self.seed,
            batch_size=self.batch_size, drop=self.drop, name=repr(self),
        )  # fmt: skip


def noise(
    eps: float,
    *,
    norm: Norm = linf,
    draws: int = 1,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> NoiseAttack:
    """Noise of the full length ``eps``: ±eps in every entry for L∞, a random direction for L2.

    It must do almost nothing where FGSM does much; otherwise the network is fragile, not fooled.

    Args:
        eps: radius in input units.
        draws: tries per example; the most damaging is kept.
        mask: bool, shaped like one example: the entries that may change; None for all.
    """
    return NoiseAttack(ball(norm, eps, bounds, mask), draws, seed=seed, batch_size=batch_size)
