"""Universal perturbations by gradient: one pattern climbs the clipped loss of mini-batches of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.core.constraints import linf
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.gradients import input_gradient
from walnut.core.objectives import cross_entropy
from walnut.core.objectives import targeted as towards
from walnut.core.types import Direction, Model, Objective, Progress

from .common import Norm, ball, steepest
from .universal import Bounds, Pictures, UniversalAttack, apply


@dataclass(frozen=True)
class clipped:
    """min(objective, ceiling): a picture that is lost already pulls no more (Shafahi et al. 2020, §3.1)."""

    objective: Objective
    ceiling: float

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Float[Tensor, " b"]:
        return self.objective(model, x, y).clamp_max(self.ceiling)


@dataclass(frozen=True, kw_only=True)
class Ascent(UniversalAttack):
    """A pattern that climbs the mean loss of mini-batches. Fields: see :func:`universal_sgd`."""

    objective: Objective
    direction: Direction
    epochs: int
    pictures: int
    step_size: float

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.pictures < 1:
            raise WalnutError("epochs and pictures must be 1 or more")

    def make(self, data: Pictures, progress: Progress | None) -> tuple[Tensor, list[float], int]:
        """Climb for all epochs; the last pattern is the answer."""
        pattern, step, history = torch.zeros_like(data.x[0]), 0, []
        memory = self.direction.init(pattern[None])
        draws = Draws.of(data.x, self.seed).fold(data.y)  # equal pictures, other labels: told apart
        for epoch in range(self.epochs):
            order = data.rows[draws.fold(epoch).uniform(1)[data.rows, 0].argsort(stable=True)]
            total = 0.0
            for lot in order.split(self.pictures):
                step += 1
                value, grad = self._slope(data, lot, pattern, step - 1)
                move, memory = self.direction.update(grad[None], memory)
                pattern = self.project(pattern + self.step_size * move[0])
                total += value
            history.append(total / len(order))
            if progress is not None:
                progress("making the universal pattern", epoch + 1, self.epochs)
        return pattern, history, step

    def _slope(
        self, data: Pictures, lot: Tensor, pattern: Tensor, step: int
    ) -> tuple[float, Tensor]:
        """Return the summed objective of some pictures, and its mean gradient in the pattern."""
        aim = data.y if self.target is None else torch.full_like(data.y, self.target)

        before = data.asked.forward, data.asked.backward
        v = pattern.detach().requires_grad_()
        shown = apply(v, data.x[lot], self.bounds)
        values = self.objective(data.asked, shown, aim[lot])
        hit = data.succeeds(data.asked.logits_at(shown).argmax(1), lot)
        grad = input_gradient(values, v)
        data.first[lot[hit & (data.first[lot] < 0)]] = step
        data.asked.forget()
        data.forward[lot] += (data.asked.forward - before[0]) // len(lot)
        data.backward[lot] += (data.asked.backward - before[1]) // len(lot)
        if not bool(values.isfinite().all()) or not bool(grad.isfinite().all()):
            raise WalnutError(
                "the network's answer is not a number (NaN or infinite): check its weights and the "
                "input range"
            )
        return float(values.detach().sum()), grad / len(lot)


def universal_sgd(
    eps: float,
    *,
    norm: Norm = linf,
    epochs: int = 10,
    pictures: int = 64,
    step_size: float | None = None,
    ceiling: float = 9.0,
    objective: Objective = cross_entropy(),
    direction: Direction | None = None,
    target: int | None = None,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 256,
) -> Ascent:
    """Universal perturbation by stochastic gradient: one pattern climbs the loss of all pictures.

        v ← P(v + step_size · direction(∇_v 1/|B| Σ_{i∈B} min(J(clip(x_i + v), y_i), ceiling)))

    over mini-batches B of the set (Shafahi et al. 2020, Alg. 2, with their clipped loss and ceiling 9). The
    gradient of a picture whose loss is above the ceiling is zero: without it the few pictures that are
    lost most, whose loss has no bound, pull the pattern for all.

    Where we differ: pictures are cut to the box; with ``target`` −J towards that class is climbed,
    which is bounded above by itself and not clipped, and pictures that are read as it already are left
    out. ``pictures`` belongs to the method and changes the result; ``batch_size`` does not.

    Args:
        eps: radius of the ball, in input units.
        norm: ``linf``, ``l2`` or ``l1``.
        epochs: times through the set; one forward and one backward pass a picture each.
        pictures: per step.
        step_size: eps / 10 unless given.
        ceiling: of the loss, in nats for the cross-entropy.
        objective: J.
        direction: of a step; the norm's steepest ascent unless given.
        target: a class to be read as.
        bounds: the box pictures live in; None for none.

    >>> net = torch.nn.Linear(4, 3, bias=False).eval()
    >>> made = universal_sgd(0.3, epochs=2)(net, torch.rand(8, 4), torch.zeros(8, dtype=torch.int64))
    >>> len(made.history), made.pattern.shape
    (2, torch.Size([4]))
    """
    ball(norm, eps, bounds)
    goal = clipped(objective, ceiling) if target is None else towards(objective)
    return Ascent(
        ball=norm(eps), objective=goal, direction=direction or steepest(norm), epochs=epochs,
        pictures=pictures, step_size=eps / 10 if step_size is None else step_size,
        target=target, bounds=bounds, seed=seed, batch_size=batch_size,
    )  # fmt: skip
