"""Train a network to be small: weights on grids, and the coder's bits in what it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from walnut.core.objectives import cross_entropy, weighted
from walnut.core.types import Objective, Progress
from walnut.training import Batches, History, adam, fit, one_cycle
from walnut.training.optimizers import Optimizer
from walnut.training.rate import ideal_bits, rate
from walnut.training.schedules import Schedule
from walnut.weights import Grid, in_steps, represent, weights


@dataclass(frozen=True)
class Small:
    """What :func:`small` made.

    ``history``: the training's; ``bits``: what the whole numbers should cost a coder, all together;
    ``nonzeros``: of all weights on a grid.
    """

    history: History
    bits: float
    nonzeros: int


def integers(model: nn.Module) -> dict[str, Int[Tensor, "*w"]]:
    """Return the whole numbers of every weight on a grid."""
    with torch.no_grad():
        return {name: v.round().long() for name, v in in_steps(model).items()}


def small(
    model: nn.Module,
    batches: Batches,
    *,
    price: float,
    epochs: int,
    objective: Objective | None = None,
    grid: Grid | Mapping[str, Grid] | None = None,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    every: int = 25,
    validate: Callable[[nn.Module], float] | None = None,
    progress: Progress | None = None,
) -> Small:
    """Train a network, in place, to minimise objective + price · (bits of its file's streams).

    Args:
        model: trained already, best with the objective given here; its weights are put on grids,
            biases and all, unless they are on one.
        batches: the examples.
        price: loss per bit. ln 2 / (number of examples) balances a bit of weights with a bit of
            labels; larger prices make smaller networks.
        epochs: passes; 20 to 60 for a network of the size of LeNet.
        objective: what to learn besides; cross-entropy by default. Distillation is an objective.
        grid: of all weights, or of each that matches a pattern; 15 levels by default.
        optimizer: ``adam(2e-3)`` by default. schedule: ``one_cycle()`` by default.
        every: steps between two counts of the prices.
        validate: called after each epoch, as in :func:`walnut.training.fit`.
        progress: as in :func:`walnut.training.fit`.

    Returns:
        bits, non-zeros and history. The network stays on its grids: ``pack`` it, ``bake`` it, or
        train it on.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    >>> made = small(net, Batches(x, (x[:, 0] > 0.5).long(), 16), price=1e-3, epochs=30)
    >>> made.nonzeros < 55
    True
    """
    if not in_steps(model):
        if isinstance(grid, Mapping):
            represent(model, grid)
        else:
            represent(model, dict.fromkeys(weights(model), grid or Grid()))
    goal = weighted(
        ((1.0, objective or cross_entropy()), (float(price), rate(in_steps, every=every)))
    )
    history = fit(
        model, goal, batches, epochs=epochs, optimizer=optimizer or adam(2e-3),
        schedule=schedule or one_cycle(), validate=validate, progress=progress,
    )  # fmt: skip
    found = integers(model)
    nonzeros = sum(int(k.count_nonzero()) for k in found.values())
    return Small(history, ideal_bits(found), nonzeros)
