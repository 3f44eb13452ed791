"""Attacks made to transfer: look ahead, smooth, scale, tune the variance, and any chain of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from walnut.core.constraints import linf
from walnut.core.directions import blurred, chain, sign
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.estimators import scale_copies
from walnut.core.gradients import plain
from walnut.core.method import Value
from walnut.core.objectives import classified_as, cross_entropy, misclassified
from walnut.core.objectives import targeted as towards
from walnut.core.queried import whole
from walnut.core.rows import Run
from walnut.core.types import (
    Adversarial,
    Constraint,
    Criterion,
    Direction,
    GradientEstimator,
    Model,
    Objective,
)

from .common import ball, masked, prepare

Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class Tuned:
    """What a step is (a :class:`walnut.core.method.Method`).

        g = ∇J(x + step_size · look_ahead · m) + v
        m ← decay · m + smooth(g) / mean|smooth(g)|
        x ← project(x + step_size · direction(m))
        v ← 1/samples Σ ∇J(x + r_i) − ∇J,   r_i uniform in [−radius, radius]   (v = 0 for samples = 0)

    State: the point, m, v, and what smooth and direction remember.

    Where we differ from the papers: g is divided by its mean |g|, as in their code, not by ‖g‖₁; the
    sign of m is the same, but the looked-ahead distance would be lost.
    """

    step_size: float
    constraint: Constraint
    decay: float = 1.0
    look_ahead: float = 0.0
    samples: int = 0
    radius: float = 0.0
    smooth: Direction = chain(())
    gradient: GradientEstimator = plain()
    direction: Direction = sign()

    def __post_init__(self) -> None:
        if self.samples < 0 or self.radius < 0:
            raise WalnutError("samples and radius must be 0 or more")

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> Any:
        """Return the example, with nothing remembered."""
        zero = torch.zeros_like(x0)
        return x0, zero, zero, self.smooth.init(x0), self.direction.init(x0)

    def point(self, state: Any) -> Tensor:
        """Return the input."""
        return state[0]

    def evaluate(self, value: Value, state: Any, draws: Draws) -> tuple[Tensor, Any]:
        """Return values at the point, the gradient, and how its neighbourhood differs from it."""
        x, m, v = state[:3]
        around = torch.zeros_like(x)
        for i in range(self.samples):
            stream = draws.fold(i + 1)
            shift = self.radius * (2 * stream.uniform(*x.shape[1:], dtype=x.dtype) - 1)
            around = around + self.gradient(value, x + shift, stream)[1]
        ahead = x + self.step_size * self.look_ahead * m if self.look_ahead else x
        values, grad = self.gradient(value, ahead, draws)
        if self.look_ahead:
            with torch.no_grad():
                values = value(x)
        return values, (grad, around / self.samples - grad if self.samples else v)

    def advance(
        self, state: Any, seen: Any, values: Tensor, x0: Tensor, progress: Tensor, draws: Draws
    ) -> Any:
        """Step along what was gathered, and remember the variance for the next step."""
        x, m, v, smooth, memory = state
        grad, tuned = seen
        grad, smooth = self.smooth.update(grad + v, smooth)
        mean = grad.flatten(1).abs().mean(1).clamp_min(torch.finfo(grad.dtype).tiny)
        m = self.decay * m + grad / mean.reshape(-1, *[1] * (grad.ndim - 1))
        step, memory = self.direction.update(m, memory)
        moved = self.constraint.project(x + self.step_size * step, x0)
        return moved, m, tuned, smooth, memory


@dataclass(frozen=True)
class TransferAttack:
    """A chain of transfer parts: call it with ``(model, x, y)``."""

    objective: Objective
    method: Tuned
    steps: int
    criterion: Criterion = misclassified()
    early_stop: bool = False
    seed: int = 0
    batch_size: int = field(default=256, repr=False, compare=False)
    drop: bool = field(default=True, repr=False, compare=False)

    @property
    def constraint(self) -> Constraint:
        """The set that examples stay in."""
        return self.method.constraint

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels (or targets) ``y`` (n,)."""
        prepare(model, x, self.constraint)
        run = Run(
            self.objective, self.criterion, self.steps, 1, False, self.early_stop, self.early_stop,
            self.seed, self.batch_size, self.drop, repr(self),
        )  # fmt: skip
        return run(self.method, model, x, whole(y))


def transferable(
    eps: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    look_ahead: float = 0.0,
    smooth: Direction = chain(()),
    gradient: GradientEstimator = plain(),
    samples: int = 0,
    radius: float = 1.5,
    targeted: bool = False,
    early_stop: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> TransferAttack:
    """Any chain of the transfer tricks under L∞; the presets below are choices of these.

    Made to transfer, so by default it goes on after the source network is fooled and returns the
    last point. NI-SI-TI-DI-VMI: ``transferable(eps, look_ahead=1.0, smooth=blurred(),
    gradient=scale_copies(inner=averaged(resize_pad())), samples=20)``.

    Args:
        eps: radius in input units.
        step_size: eps / steps unless given.
        decay: weight of the past (MI); 0 forgets.
        look_ahead: how far along the past the gradient is taken, in steps (NI: ``decay``).
        smooth: a direction that the gradient passes first (TI: ``blurred()``).
        gradient: ``averaged(resize_pad())`` for DI, ``scale_copies()`` for SI.
        samples: neighbours whose gradients tune the variance (VMI); each costs a gradient.
        radius: how far these are, in units of eps.
        early_stop: return each example at its first success.
        mask: bool, shaped like one example: the entries that may change; None for all.

    >>> import torch
    >>> net = torch.nn.Linear(4, 3).eval()
    >>> found = transferable(0.2, samples=2)(net, torch.rand(2, 4), torch.tensor([0, 1]))
    >>> found.backward
    tensor([30, 30])
    """
    method = Tuned(
        eps / steps if step_size is None else step_size, ball(linf, eps, bounds, mask), decay,
        look_ahead, samples, radius * eps if samples else 0.0, smooth,
        gradient if mask is None else masked(gradient, mask),
    )  # fmt: skip
    return TransferAttack(
        towards(objective) if targeted else objective, method, steps,
        classified_as() if targeted else misclassified(), early_stop, seed, batch_size,
    )  # fmt: skip


def ni_fgsm(
    eps: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    targeted: bool = False,
    early_stop: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    batch_size: int = 256,
) -> TransferAttack:
    """Nesterov iterative FGSM (Lin et al. 2020, Eq. 6-8): the gradient is taken where the past leads.

    Costs a second forward pass a step: the point itself is looked at too.

    Args:
        decay: weight of the past, and how far ahead the gradient is taken.
    """
    return transferable(
        eps, steps=steps, step_size=step_size, decay=decay, look_ahead=decay,
        targeted=targeted, early_stop=early_stop, objective=objective, bounds=bounds,
        mask=mask, batch_size=batch_size,
    )  # fmt: skip


def ti_fgsm(
    eps: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 0.0,
    size: int = 7,
    sigma: float | None = None,
    targeted: bool = False,
    early_stop: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    batch_size: int = 256,
) -> TransferAttack:
    """Translation-invariant FGSM (Dong et al. 2019, Eq. 8): the gradient convolved with a Gaussian.

    With ``decay=1.0`` it is TI-MI-FGSM. Images (b, C, H, W) with any number of channels.

    Args:
        size: width of the kernel in pixels, odd (the paper: 15 for 299 pixels).
        sigma: standard deviation in pixels; a third of the half width unless given.
    """
    return transferable(
        eps, steps=steps, step_size=step_size, decay=decay, smooth=blurred(size, sigma),
        targeted=targeted, early_stop=early_stop, objective=objective, bounds=bounds,
        mask=mask, batch_size=batch_size,
    )  # fmt: skip


def si_fgsm(
    eps: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    copies: int = 5,
    targeted: bool = False,
    early_stop: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    batch_size: int = 256,
) -> TransferAttack:
    """Scale-invariant FGSM (Lin et al. 2020, Eq. 9): gradients at x / 2^i, i < copies, averaged.

    With ``transferable(..., look_ahead=1.0, gradient=scale_copies())`` it is SI-NI-FGSM.

    Args:
        copies: scaled copies per step, each with a forward and a backward pass.
    """
    return transferable(
        eps, steps=steps, step_size=step_size, decay=decay, gradient=scale_copies(copies),
        targeted=targeted, early_stop=early_stop, objective=objective, bounds=bounds,
        mask=mask, batch_size=batch_size,
    )  # fmt: skip


def vmi_fgsm(
    eps: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    samples: int = 20,
    radius: float = 1.5,
    targeted: bool = False,
    early_stop: bool = False,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> TransferAttack:
    """Variance-tuned momentum FGSM (Wang & He 2021, Alg. 1): each gradient corrected by how the
    gradients around the point before differed from its own.

    Args:
        samples: neighbours per step, each with a forward and a backward pass.
        radius: how far they are, in units of eps (the paper's β).
    """
    return transferable(
        eps, steps=steps, step_size=step_size, decay=decay, samples=samples, radius=radius,
        targeted=targeted, early_stop=early_stop, objective=objective, bounds=bounds,
        mask=mask, seed=seed, batch_size=batch_size,
    )  # fmt: skip
