"""What a line of classics.py is: a published figure beside ours, or a published order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A published figure, ours ("experiment: figure") and, where there is one, ours under plain noise.

    ``why`` may hold figures of its own, as ``{experiment: figure}``.
    """

    id: str
    experiment: str
    source: str
    published: float
    unit: str
    ours: str
    why: str
    noise: str = ""


@dataclass(frozen=True)
class Order:
    """A published order of figures, smallest first."""

    id: str
    claim: str
    source: str
    rising: tuple[str, ...]
