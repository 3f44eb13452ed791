"""Gradient attacks on networks without a gradient: estimated from values, or borrowed from a twin."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Shaped
from torch import Tensor

from walnut.core import estimators
from walnut.core.constraints import linf
from walnut.core.objectives import classified_as, margin, misclassified
from walnut.core.objectives import targeted as towards
from walnut.core.types import Adversarial, Attack, GradientEstimator, Model, Objective

from .common import Norm, ball, steepest
from .gradient import GradientAttack

Bounds = tuple[float, float] | None


def _estimated(
    eps: float, norm: Norm, steps: int, step_size: float | None, gradient: GradientEstimator,
    objective: Objective, targeted: bool, bounds: Bounds, mask: Tensor | None,
    seed: int, batch_size: int,
) -> GradientAttack:  # fmt: skip
    return GradientAttack(
        towards(objective) if targeted else objective, ball(norm, eps, bounds, mask), steps,
        2.5 * eps / steps if step_size is None else step_size, steepest(norm, mask), gradient,
        criterion=classified_as() if targeted else misclassified(), seed=seed, batch_size=batch_size,
    )  # fmt: skip


def nes(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 20,
    step_size: float | None = None,
    pairs: int = 25,
    sigma: float = 0.001,
    targeted: bool = False,
    objective: Objective = margin(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> GradientAttack:
    """PGD along gradients estimated by natural evolution strategies (Ilyas et al. 2018, Alg. 1).

    Costs 2 · pairs + 1 forward passes a step, up to two at the end, and no backward pass.

    Args:
        eps: radius in input units.
        step_size: 2.5 · eps / steps unless given.
        pairs: antithetic pairs of queries per step.
        sigma: width of the search distribution in input units; larger for networks that round.
        targeted: ``y`` are targets to move towards.
        mask: bool, shaped like one example: the entries that may change; None for all.
    """
    estimator = estimators.nes(pairs, sigma)
    return _estimated(
        eps, norm, steps, step_size, estimator, objective, targeted, bounds, mask, seed, batch_size
    )


def spsa(
    eps: float,
    *,
    norm: Norm = linf,
    steps: int = 20,
    step_size: float | None = None,
    pairs: int = 64,
    sigma: float = 0.01,
    targeted: bool = False,
    objective: Objective = margin(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> GradientAttack:
    """PGD along simultaneous-perturbation gradients (Spall 1992; Uesato et al. 2018, Alg. 1).

    Costs 2 · pairs + 1 forward passes a step, up to two at the end, and no backward pass. Where we
    differ: the steps are PGD's, Uesato et al. use Adam's.

    Args:
        pairs: pairs of queries per step.
        sigma: step of the difference in input units (their δ).
        mask: bool, shaped like one example: the entries that may change; None for all.
    """
    estimator = estimators.spsa(pairs, sigma)
    return _estimated(
        eps, norm, steps, step_size, estimator, objective, targeted, bounds, mask, seed, batch_size
    )


@dataclass(frozen=True)
class BorrowedAttack:
    """An attack whose gradients come from a twin; ``success`` is what the network itself says."""

    attack: Attack
    through: estimators.straight_through

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...)."""
        return replace(self.attack(self.through(model), x, y), attack=repr(self))


def bpda(attack: Attack, twin: Model) -> BorrowedAttack:
    """Backward-pass differentiable approximation (Athalye et al. 2018, §4.1) with any gradient attack.

        gradient = J'(z_model(x)) · ∂z_twin/∂x

    A forward pass in the record is one of the network, and one of the twin where a gradient is wanted;
    a backward pass is the twin's. A network attacked so is flattered: query it too.

    Args:
        attack: what takes the steps, ``pgd(0.03)`` for example.
        twin: maps the same inputs to the same classes, differentiably.

    >>> import torch
    >>> from walnut.attacks import pgd
    >>> twin = torch.nn.Linear(4, 3).eval()
    >>> coarse = lambda x: twin((x * 15).round() / 15)
    >>> found = bpda(pgd(0.2, steps=5), twin)(coarse, torch.rand(2, 4), torch.tensor([0, 1]))
    >>> bool((found.norms["linf"] > 0).any() or found.success.all())
    True
    """
    return BorrowedAttack(attack, estimators.straight_through(twin))
