"""From a first bound downwards: each example is attacked at the radius just below the one it falls at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from walnut.attacks.approach import size
from walnut.attacks.minimal import MinimalAttack, Record
from walnut.core.constraints import linf
from walnut.core.types import Attack, Model

from .probes import reach


def inside(radius: float) -> float:
    """Return a radius whose ball, as it is computed in float32, lies in that of ``radius``."""
    return max(radius * (1 - 1e-5) - 2e-7, 0.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class Descent(MinimalAttack):
    """Go down a list of radii for as long as an attack fools the network inside them.

    ``first`` gives every example a radius at which it falls, or none. Then, from the largest of ``radii``
    down, those that are not yet known to fall within one are attacked there; who stands is done. So
    whatever is said to stand at a radius was attacked directly at the last one before its own, and the
    cost is one failed attack an example and the short ones that succeed.

    Args:
        first: any attack that looks for near examples.
        attack: from a radius to an attack.
        radii: in input units, ascending; those beyond the box are left out.
        norm: of the radii.
    """

    first: Attack
    attack: Callable[[float], Attack]
    radii: tuple[float, ...]
    norm: Any = linf  # type: ignore[misc]
    refine: int = 0

    def __repr__(self) -> str:
        """Return the record, with the attack as it is at the largest radius."""
        last = f", {self.attack(self.radii[-1])!r}" if self.radii else ""
        return f"Descent({self.first!r}{last}, radii={self.radii})"

    def search(self, record: Record, rows: Tensor, model: Model, x: Tensor, y: Tensor) -> None:
        """Bound the rows, then go down."""
        record.nearer(rows, self.first(model, x[rows], y[rows]), self.norm)  # type: ignore[arg-type]
        whole = float("inf") if self.bounds is None else reach(self.norm, x, self.bounds)
        live = rows
        for eps in reversed([r for r in self.radii if 0 < r <= whole]):
            within = record.success[live] & (size(record.x[live] - x[live], self.norm) <= eps)
            tried = live[~within]
            if len(tried):
                found = self.attack(inside(eps))(model, x[tried], y[tried])  # type: ignore[arg-type]
                record.nearer(tried, found, self.norm)
                live = live[~torch.isin(live, tried[~found.success])]
