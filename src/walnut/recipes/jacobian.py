"""Jacobian-based augmentation: which examples a substitute asks about next, and how they are made.

Papernot et al. 2017 ("Practical black-box attacks against machine learning"), Eq. 4 and §5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from walnut.core.draws import Draws
from walnut.core.frozen import frozen
from walnut.core.gradients import plain

Selection = Callable[[int, int, np.random.Generator], np.ndarray]
"""``(size, round, generator) -> rows``: which of ``size`` examples are augmented in a round."""


@dataclass(frozen=True)
class everything:
    """Augment every example: the set doubles each round."""

    def __call__(self, size: int, round: int, generator: np.random.Generator) -> np.ndarray:
        return np.arange(size)


@dataclass(frozen=True)
class reservoir:
    """Augment every example for ``after`` rounds, then ``keep`` of them a round, drawn evenly.

    Algorithm R (Vitter 1985), as Papernot et al. 2016 ("Transferability in machine learning"), Alg. 1.
    """

    after: int = 3
    keep: int = 400

    def __call__(self, size: int, round: int, generator: np.random.Generator) -> np.ndarray:
        if round < self.after or size <= self.keep:
            return np.arange(size)
        kept = np.arange(self.keep)
        for i in range(self.keep, size):
            place = int(generator.integers(0, i + 1))
            if place < self.keep:
                kept[place] = i
        return kept


@dataclass(frozen=True)
class turning:
    """λ_ρ = λ · (−1)^⌊ρ/τ⌋: towards the label for ``period`` rounds, then away from it, and so on.

    Papernot et al. 2017, §5.2 (periodic step size). A period above the number of rounds never turns.

    >>> [turning(0.1, 2)(at) for at in range(4)]
    [0.1, 0.1, -0.1, -0.1]
    """

    step: float = 0.1
    period: int = 3

    def __call__(self, round: int) -> float:
        return self.step * (-1) ** (round // self.period)


def augmented(
    model: nn.Module,
    x: Float[Tensor, " n *d"],
    labels: Int[Tensor, " n"],
    step: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Float[Tensor, " n *d"]:
    """Return x + step · sign(∂z_label/∂x), in the box (Papernot et al. 2017, Eq. 4).

    Args:
        model: the substitute.
        labels: the oracle's classes (n,).
        step: λ in input units; a negative one moves the other way.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    >>> augmented(net, torch.tensor([[0.5, 0.5]]), torch.tensor([0]), 0.25)
    tensor([[0.7500, 0.2500]])
    """
    found = []
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        for rows, own in zip(x.split(500), labels.split(500), strict=True):
            rows = rows.clone()

            def logit(z: Tensor, own: Tensor = own) -> Tensor:
                return model(z).gather(1, own[:, None])[:, 0]

            _, gradient = plain()(logit, rows, Draws.of(rows, 0))
            found.append((rows + step * gradient.sign()).clamp(*bounds))
    return torch.cat(found)
