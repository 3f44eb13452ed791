"""The gradient loop: climb an objective in the input, inside a constraint.

    z ← project(z + step_size · decay(progress) · direction(∇_z objective(model, paint(z), y)))

Every gradient attack is a choice of parts handed to :func:`ascend`; the examples pass through one
continuous batch (:mod:`walnut.core.rows`), and each leaves at the step that decides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .constraints import box
from .directions import sign
from .draws import Draws
from .gradients import plain
from .images import pixels
from .method import Value
from .objectives import misclassified
from .rows import Run
from .steps import constant
from .types import (
    Adversarial,
    Constraint,
    Criterion,
    Direction,
    GradientEstimator,
    Image,
    Model,
    Objective,
)

_LOOK = 2  # steps: on an undefended network nine in ten fall within two, on a defended one few do


@dataclass(frozen=True)
class Climb:
    """What a gradient step is (a :class:`walnut.core.method.Method`)."""

    step_size: float
    direction: Direction
    constraint: Constraint
    gradient: GradientEstimator
    image: Image
    decay: Any
    random_start: bool

    def start(self, x0: Tensor, restart: Tensor, draws: Draws) -> Any:
        """Return the variable at the example, or at a random point of the constraint."""
        z = self.image.start(x0)
        if self.random_start or bool((restart > 0).any()):
            drawn = self.constraint.sample(z, draws)
            wide = ((restart > 0) | self.random_start).reshape(-1, *[1] * (z.ndim - 1))
            z = torch.where(wide, drawn, z)
        return z, self.direction.init(z)

    def point(self, state: Any) -> Tensor:
        """Paint the variable."""
        return self.image.paint(state[0])

    def evaluate(self, value: Value, state: Any, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return values and the gradient in the variable."""
        return self.gradient(lambda z: value(self.image.paint(z)), state[0], draws)

    def advance(
        self, state: Any, seen: Tensor, values: Tensor, x0: Tensor, progress: Tensor, draws: Draws
    ) -> Any:
        """Step along the direction and project."""
        z, memory = state
        step, memory = self.direction.update(seen, memory)
        size = self.step_size * self.decay(progress).reshape(-1, *[1] * (z.ndim - 1))
        moved = torch.addcmul(z, step, size.to(z.dtype))
        return self.constraint.project(moved, self.image.start(x0)), memory


def ascend(
    model: Model,
    x: Float[Tensor, " n *d"],
    y: Tensor,
    *,
    objective: Objective,
    steps: int,
    step_size: float,
    constraint: Constraint = box(),
    direction: Direction = sign(),
    gradient: GradientEstimator = plain(),
    image: Image = pixels(),
    criterion: Criterion = misclassified(),
    decay: Any = constant(),
    random_start: bool = False,
    restarts: int = 1,
    early_stop: bool = True,
    keep_best: bool = True,
    seed: int = 0,
    batch_size: int = 256,
    drop: bool = True,
    name: str = "",
) -> Adversarial:
    """Climb ``objective`` from each example of ``x`` and return the record.

    Args:
        model: network, (b, ...) in [0, 1] to logits (b, classes); left exactly as it was.
        x: examples (n, ...), any shape behind the first dimension.
        y: labels (n,), or target labels with a targeted objective and criterion.
        objective: what to climb, one value per example.
        steps: gradient steps per restart, ≥ 1.
        step_size: length of a step in the direction's norm, in input units.
        constraint: projected onto after every step.
        direction, gradient, image: the parts; see their modules.
        criterion: what counts as success, from the logits.
        decay: factor on the step size as a function of step / steps.
        random_start: start at a random point of the constraint (later restarts always do).
        restarts: runs per example, the later ones only for examples not yet decided.
        early_stop: an example is decided at its first success, and returned as it is there.
        keep_best: return the highest value seen; else the last point.
        seed: with an example's own content, the source of all its random draws.
        batch_size: rows at work at once; changes nothing but speed and memory.
        drop: decided rows leave and others enter; without it they idle to the last step.
        name: recorded in the result.

    Returns:
        :class:`walnut.core.types.Adversarial`, in the order of ``x``.

    Raises:
        WalnutError: the input, the labels or the network's answer cannot be used; the message says how
            to mend it.
    """
    climb = Climb(step_size, direction, constraint, gradient, image, decay, random_start)
    # only a plain gradient asks the network at the very point that the criterion judges
    look = _LOOK if early_stop and drop and isinstance(gradient, plain) else 0
    run = Run(
        objective, criterion, steps, restarts, random_start, early_stop, keep_best, seed,
        batch_size, drop, name, look,
    )  # fmt: skip
    return run(climb, model, x, y)
