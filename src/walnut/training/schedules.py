"""Learning-rate schedules: what share of the optimiser's ``lr`` a step takes.

Each has ``factor(step, total)`` with ``step`` in {0, ..., total − 1}; the rate of that step is
``optimizer.lr · factor``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """How the learning rate goes over a run."""

    def factor(self, step: int, total: int) -> float:
        """Return the share of the learning rate for one step of ``total``."""
        ...


@dataclass(frozen=True)
class constant:
    """The same rate throughout."""

    def factor(self, step: int, total: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class steps:
    """Multiply the rate by ``gamma`` at each milestone (shares of the run, in (0, 1)).

    >>> [steps((0.5, 0.75)).factor(i, 100) for i in (0, 49, 50, 75)]
    [1.0, 1.0, 0.1, 0.010000000000000002]
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def factor(self, step: int, total: int) -> float:
        """Return gamma to the number of milestones passed."""
        return self.gamma ** sum(step >= milestone * total for milestone in self.milestones)


@dataclass(frozen=True)
class cosine:
    """Rise linearly over the first ``warmup`` share, then fall as (1 + cos) / 2 to ``floor``.

    Loshchilov & Hutter 2017, Eq. 5, without restarts.
    """

    warmup: float = 0.0
    floor: float = 0.0

    def factor(self, step: int, total: int) -> float:
        """Return the share of the rate."""
        rise = self.warmup * total
        if step < rise:
            return (step + 1) / (rise + 1)
        done = (step - rise) / max(1.0, total - rise)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class one_cycle:
    """Rise linearly from ``start`` to 1 over the first ``warmup`` share, then fall linearly to 0.

    Smith & Topin 2018. With ``warmup=0`` it is a plain linear decay.
    """

    warmup: float = 0.2
    start: float = 0.1

    def factor(self, step: int, total: int) -> float:
        """Return the share of the rate; it is above 0 at every step."""
        rise = self.warmup * total
        if step < rise:
            return self.start + (1 - self.start) * step / rise
        return (total - step) / (total - rise)
