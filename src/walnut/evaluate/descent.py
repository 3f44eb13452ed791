"""Down from the largest radius: each example is attacked at the one just below that at which it fell."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from walnut.attacks.approach import size
from walnut.attacks.minimal import MinimalAttack, Record
from walnut.core.constraints import linf
from walnut.core.objectives import margin
from walnut.core.queried import Queried
from walnut.core.types import Model

from .probes import reach
from .stage import Reached, Setting
from .stages import Make


def inside(radius: float) -> float:
    """Return a radius whose ball, as it is computed in float32, lies in that of ``radius``."""
    return max(radius * (1 - 1e-5) - 2e-7, 0.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class Descent(MinimalAttack):
    """Go down a list of radii for as long as attacks fool the network inside them.

    Each row begins where the stages before ended. One that fools there is drawn towards its example first.
    Then, from the largest of ``radii`` down, rows that are not yet known to fall within one are attacked
    there, each attack on what the others left; who stands is done. So whatever is said to stand at a radius
    was attacked directly at the last one before its own, and the cost is one failed attempt an example and
    the short ones that succeed.

    Args:
        setting: norm and box, and where the rows begin.
        tries: attacks in order, each with the share of what the others left that it has, the most hopeful
            of it. The setting they are made for says where the rows have come: at what fooled at the radius
            above, or at the best attempt.
        radii: in input units, ascending; those beyond the box are left out.
        drawn: passes that draw a row which begins fooled towards its example.
    """

    setting: Setting
    tries: tuple[tuple[Make, float], ...] = field(compare=False)
    radii: tuple[float, ...]
    drawn: int = 4
    norm: Any = linf  # type: ignore[misc]
    refine: int = 4

    def __repr__(self) -> str:
        """Return the record, with the attacks as they are at the largest radius."""
        widest = replace(self.setting, eps=self.radii[-1] if self.radii else 0.0)
        attacks = ", ".join(f"{make(widest)!r} on {part:g}" for make, part in self.tries)
        return f"Descent({attacks}, radii={self.radii}, drawn={self.drawn})"

    def search(self, record: Record, rows: Tensor, model: Model, x: Tensor, y: Tensor) -> None:
        """Go down."""
        begin = self.setting.reached.points
        if begin is not None:
            net = Queried(model)
            record.x[rows] = begin[rows].to(record.x)
            record.check(net, y, rows, self.criterion(), self.batch_size)
            record.first[rows[record.success[rows]]] = 0
            record.refine(net, y, self.norm, self.drawn, self)
        whole = float("inf") if self.bounds is None else reach(self.norm, x, self.bounds)
        live = rows
        for eps in reversed([r for r in self.radii if 0 < r <= whole]):
            within = record.success[live] & (size(record.x[live] - x[live], self.norm) <= eps)
            stood = self._tried(record, live[~within], inside(eps), model, x, y)
            live = live[~torch.isin(live, stood)]

    def _tried(
        self, record: Record, rows: Tensor, eps: float, model: Model, x: Tensor, y: Tensor
    ) -> Tensor:
        """Attack rows at a radius; return those that stand."""
        at = record.x.clone()
        hope = torch.full_like(record.x.flatten(1)[:, 0], float("-inf"))
        for make, part in self.tries:
            few = max(round(part * len(rows)), min(len(rows), 4))
            if few == 0:
                break
            some = rows[hope[rows].topk(few).indices.sort().values]
            setting = replace(self.setting, eps=eps, reached=Reached(at[some]))
            found = make(setting)(model, x[some], y[some])  # type: ignore[arg-type]
            record.nearer(some, found, self.norm)
            failed = (~found.success).nonzero()[:, 0]
            rows = rows[~torch.isin(rows, some[found.success])]
            at[some[failed]] = found.x[failed]
            if len(failed) and found.logits is not None:
                hope[some[failed]] = _margin(found.logits[failed], y[some[failed]]).to(hope)
        return rows


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    return margin()(lambda _: logits, logits, y)
