"""How the density falls: at once, by the same factor in each round, or along a cubic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from walnut.core.errors import WalnutError

from .prune import Score, Scores, lamp, prune

Density = Callable[[float], float]
"""``progress in [0, 1] -> density``, not rising."""


def _check(final: float) -> None:
    if not 0.0 < final <= 1.0:
        raise WalnutError(f"a density is the share that stays, above 0 and at most 1: {final}")


@dataclass(frozen=True)
class one_shot:
    """All at once, at the beginning.

    >>> one_shot(0.1)(0.0)
    0.1
    """

    final: float

    def __post_init__(self) -> None:
        _check(self.final)

    def __call__(self, progress: float) -> float:
        return self.final


@dataclass(frozen=True)
class geometric:
    """d_t = d^t: equal steps take away the same share of what is left (Han et al. 2015, rounds).

    >>> geometric(0.25)(0.5)
    0.5
    """

    final: float

    def __post_init__(self) -> None:
        _check(self.final)

    def __call__(self, progress: float) -> float:
        return float(self.final ** min(1.0, max(0.0, progress)))


@dataclass(frozen=True)
class cubic:
    """s_t = s_f + (s_i − s_f)(1 − t)³ with s the sparsity: fast at first, slow at the end.

    Zhu & Gupta 2017, Eq. 1, with t from 0 at ``begin`` to 1 at ``end``, both shares of the
    training; before ``begin`` nothing is pruned (s_i = 0), after ``end`` the weights that stay are
    trained on.

    >>> cubic(0.1)(0.0), round(cubic(0.1, end=1.0)(0.5), 4), cubic(0.1)(1.0)
    (1.0, 0.2125, 0.1)
    """

    final: float
    begin: float = 0.0
    end: float = 0.75

    def __post_init__(self) -> None:
        _check(self.final)
        if not 0.0 <= self.begin < self.end <= 1.0:
            raise WalnutError(f"begin < end must both lie in [0, 1]: {self.begin}, {self.end}")

    def __call__(self, progress: float) -> float:
        t = min(1.0, max(0.0, (progress - self.begin) / (self.end - self.begin)))
        if t == 1.0:
            return self.final
        return 1.0 - (1.0 - self.final) * (1.0 - (1.0 - t) ** 3)


@dataclass
class Gradual:
    """Prune while a network trains: give it to ``fit`` as ``after_step=[Gradual(...)]``.

    Masks stand from the beginning (with nothing masked), so that the optimiser and checkpoints see
    the same parameters throughout; build this before ``fit``.

    Args:
        model: the network; it is given masks.
        density: ``progress -> density``, such as ``cubic(0.1)``.
        steps: of the whole training, epochs × batches.
        every: steps between two prunings (Zhu & Gupta: 100 to 1000).
        score: how layers share the density.
        scores: gives scores from data at each pruning, in place of ``score``:
            ``Movement(model).scores``.

    >>> import torch
    >>> net = nn.Linear(16, 8)
    >>> prune_at = Gradual(net, cubic(0.25), steps=10, every=1)
    >>> for step in range(1, 11):
    ...     _ = prune_at(step)
    >>> int(net.weight.count_nonzero())
    32
    """

    model: nn.Module
    density: Density
    steps: int
    every: int = 100
    score: Score = lamp
    scores: Callable[[], Scores] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.every < 1:
            raise WalnutError("gradual pruning needs at least one step, and one step between")
        self.now = self.density(0.0)
        self._prune()

    def __call__(self, step: int) -> float:
        """Prune where it is time; return the density."""
        if step % self.every == 0 or step == self.steps:
            wanted = self.density(step / self.steps)
            if wanted < self.now:
                self.now = wanted
                self._prune()
        return self.now

    def _prune(self) -> None:
        prune(self.model, self.now, score=self.scores() if self.scores else self.score)
