"""What a stage of the cascade is: an attack, the rows it may have, and when it is worth running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from walnut.core.types import Attack

from .survey import Survey

Rows = Callable[[Survey], Int[Tensor, " m"]]
When = Callable[[Survey, "Suspicion"], str]


@dataclass(frozen=True)
class Setting:
    """What the user asked for; every stage's attack is made from it.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: radius in input units.
        bounds: the box inputs live in.
        seed: of every draw.
        batch_size: rows at work at once.
        span: a range that inputs stay in where there is no box, for attacks that need one.
    """

    norm: Any
    eps: float
    bounds: tuple[float, float] | None = (0.0, 1.0)
    seed: int = 0
    batch_size: int = 512
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Suspicion:
    """What is odd about the network before any attack: reasons to ask it without gradients."""

    reasons: tuple[str, ...] = ()
    gradients: bool = True


@dataclass(frozen=True)
class Stage:
    """One attack on some of the rows that still stand.

    Args:
        name: as it is called in tables.
        make: the attack for a setting.
        family: ``gradient``, ``query``, ``noise`` or ``transfer``.
        rows: which of the standing rows it has.
        when: the reason to run it, or "" to leave it out.
    """

    name: str
    make: Callable[[Setting], Attack]
    family: str = "gradient"
    rows: Rows = lambda survey: survey.standing
    when: When = lambda survey, suspicion: "always"
