"""Examples that fool under a whole distribution of transforms, not only as they are (EOT)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from walnut.core.constraints import linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.gradients import averaged
from walnut.core.objectives import classified_as, cross_entropy, misclassified
from walnut.core.objectives import targeted as towards
from walnut.core.transforms import compose, jitter, noise, readings, rotate, zoom
from walnut.core.transforms_colour import brightness, clip
from walnut.core.types import Adversarial, Constraint, Model, Objective, Transform

from .common import Norm, ball, steepest
from .gradient import Bounds, GradientAttack

HELD_OUT = -2  # a fold that no restart has: these draws are never those of a gradient


def held_out(x: Tensor, seed: int) -> Draws:
    """Return the draws that examples are judged by, keyed by the clean examples ``x`` (n, ...).

    No gradient of any attack with the same seed has seen them.
    """
    return Draws.of(x, seed).fold(HELD_OUT)


def photographed(pixels: float = 2.0) -> Transform:
    """Return what happens to a picture between the printer and the network, in the plane.

    Zoom by 0.9 to 1.4, rotation by up to 22.5 degrees, a shift, light by ±0.05, noise, and the
    sensor's clipping: the 2-D distribution of Athalye et al. 2018.

    Where we differ: the shift is bounded by ``pixels`` (theirs is any that keeps the picture in view),
    and the noise has one deviation, 0.05 (theirs is drawn from 0 to 0.1).
    """
    parts = zoom(0.9, 1.4), rotate(22.5), jitter(pixels), brightness(0.05), noise(0.05), clip()
    return compose(parts)


@dataclass(frozen=True)
class ExpectationAttack:
    """A gradient attack on the mean over transforms, judged by transforms that it has not seen.

    Fields: the climb (with ``averaged(transform, samples)`` for its gradient), and what success means:
    wanted under at least the share ``survives`` of ``draws`` held-out transforms.
    """

    climb: GradientAttack
    transform: Transform
    survives: float = 0.5
    draws: int = 30
    batch_size: int = field(default=256, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.survives <= 1 or self.draws < 1:
            raise WalnutError(
                f"survives is a share in (0, 1] of 1 draw or more, not {self.survives} of {self.draws}"
            )

    @property
    def constraint(self) -> Constraint:
        """The set that examples stay in."""
        return self.climb.constraint

    def __call__(self, model: Model, x: Shaped[Tensor, " n *d"], y: Tensor) -> Adversarial:
        """Attack every example of ``x`` (n, ...) with true labels (or targets) ``y`` (n,)."""
        began, outer = time.perf_counter(), torch.is_inference_mode_enabled()
        made = self.climb(model, x, y)
        judges = held_out(x, self.climb.seed)
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            at = made.x.clone() if outer else made.x
            read = readings(model, at, self.transform, judges, self.draws, self.batch_size)
        wrong = (
            read == y[:, None] if self.climb.criterion == classified_as() else read != y[:, None]
        )
        success = wrong.double().mean(1) >= self.survives - 1e-9
        ended = torch.where(success, self.climb.steps, -1)
        return replace(
            made, success=success, first_success=ended, forward=made.forward + self.draws,
            seconds=time.perf_counter() - began, attack=repr(self),
        )  # fmt: skip


def eot(
    eps: float,
    transform: Transform,
    *,
    norm: Norm = linf,
    steps: int = 40,
    step_size: float | None = None,
    samples: int = 8,
    targeted: bool = False,
    survives: float = 0.5,
    draws: int = 30,
    objective: Objective = cross_entropy(),
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 256,
) -> ExpectationAttack:
    """Expectation over transformation: one example for a whole distribution of transforms.

        max over ‖x̂ − x‖ ≤ eps of E_t[J(t(x̂), y)];  targeted: of E_t[log P(target | t(x̂))]

    What ``success`` means here: the network reads t(x̂) as wanted for at least the share ``survives`` of
    ``draws`` transforms t that no gradient has seen; the same example always gets the same ones. One
    draw would say nothing of the distribution, and neither would the example without a transform.
    ``prediction`` is what the network reads in x̂ itself, so it may be right where success is true. The
    judgement comes once, at the end: ``first_success`` is ``steps`` or −1. The shares themselves, next
    to those of the clean examples, are :func:`walnut.evaluate.expectation.adversariality`'s.

    Reference: Athalye et al. 2018 (ICML), Eq. 2-4. Where we differ: the distance is bounded in the
    input, by a ball and the box; there the expected distance after t, in Lab colours, is added to the
    loss with a weight that is searched for.

    Args:
        eps: radius in input units.
        transform: the distribution, for example :func:`photographed`.
        norm: ``linf``, ``l2`` or ``l1``.
        steps: gradient steps; the last point is returned.
        step_size: 2.5 · eps / steps unless given.
        samples: transforms per step, each a forward and a backward pass.
        targeted: ``y`` are targets to move towards.
        survives: share of held-out transforms that makes a success, in (0, 1].
        draws: held-out transforms per example, each a forward pass.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> found = eot(0.1, rotate(30), steps=5, samples=2)(net, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
    >>> found.backward
    tensor([10, 10])
    """
    climb = GradientAttack(
        towards(objective) if targeted else objective, ball(norm, eps, bounds), steps,
        2.5 * eps / steps if step_size is None else step_size, steepest(norm),
        averaged(transform, samples), criterion=classified_as() if targeted else misclassified(),
        early_stop=False, keep_best=False, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    return ExpectationAttack(climb, transform, survives, draws, batch_size)
