"""The smallest eps at which an attack succeeds, per example, for any attack that takes an eps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from walnut.core.constraints import l0, linf
from walnut.core.errors import WalnutError
from walnut.core.queried import Queried
from walnut.core.types import Attack, Model

from .approach import NAMES, check_norm, size, slack
from .common import Norm
from .minimal import MinimalAttack, Record, between


@dataclass(frozen=True, kw_only=True, repr=False)
class Smallest(MinimalAttack):
    """See :func:`smallest`."""

    attack: Callable[[float], Attack]
    norm: Norm = linf  # type: ignore[misc]
    upper: float = 1.0
    lower: float = 0.001
    searches: int = 8
    first: Any = None

    def __post_init__(self) -> None:
        check_norm(self.norm, tuple(NAMES))
        if not 0 < self.lower < self.upper or self.searches < 1:
            raise WalnutError("smallest() needs 0 < lower < upper and searches >= 1")

    def __repr__(self) -> str:
        """Return the record, with the attack as it is at the largest eps."""
        return (
            f"smallest({self.attack(self.upper)!r}, norm={self.norm.__name__}, lower={self.lower}, "
            f"searches={self.searches}, first={self.first!r}, refine={self.refine})"
        )

    def eps(self, place: int) -> float:
        """Return the radius at a place of the geometric grid; place 2^searches is the upper end."""
        share = 1 - place / 2**self.searches
        return self.upper * (self.lower / self.upper) ** share

    def search(self, record: Record, rows: Tensor, model: Model, x: Tensor, y: Tensor) -> None:
        """Bisect the places of the grid, rows of one place together."""
        net, top = Queried(model), 2**self.searches
        low = torch.zeros(
            len(x), dtype=torch.int64, device=x.device
        )  # fails there, or below the grid
        high = torch.full_like(low, top + 1)
        if self.first is not None:
            self._try(record, rows, model, x, y, self.first, high)
        untried = rows[high[rows] > top]
        if len(untried):
            self._try(record, untried, model, x, y, self.attack(self.upper), high)
        live = rows[high[rows] <= top]
        while len(live := live[high[live] - low[live] > 1]):
            middle = (low[live] + high[live]) // 2
            fools = self._shortened(record, live, net, x, y, middle)
            for place in middle[~fools].unique().tolist():
                part = live[~fools & (middle == place)]
                self._try(record, part, model, x, y, self.attack(self.eps(place)), high)
            shorter = size(record.x[live] - x[live], self.norm)
            ok = fools | (record.success[live] & (shorter <= self._radii(middle, x) * (1 + 1e-6)))
            high[live] = torch.where(ok, torch.minimum(high[live], middle), high[live])
            low[live] = torch.where(ok, low[live], middle)
            low[live] = torch.minimum(low[live], high[live])

    def _radii(self, places: Tensor, x: Tensor) -> Tensor:
        return torch.tensor([self.eps(place) for place in places.tolist()], device=x.device).to(x)

    def _try(
        self,
        record: Record,
        rows: Tensor,
        model: Model,
        x: Tensor,
        y: Tensor,
        attack: Attack,
        high: Tensor,
    ) -> None:
        """Run an attack on some rows; keep what is nearer, or the attempt of those that never fooled."""
        found = attack(model, x[rows], y[rows])  # type: ignore[arg-type]
        record.nearer(rows, found, self.norm)
        places = self._places(found.norms[NAMES[self.norm]].to(x))
        high[rows] = torch.where(found.success, torch.minimum(high[rows], places), high[rows])

    def _places(self, length: Tensor) -> Tensor:
        """Return the lowest place of the grid whose radius holds a length."""
        grid = torch.tensor([self.eps(p) for p in range(2**self.searches + 1)]).to(length)
        return torch.searchsorted(grid * (1 + 1e-6), length.contiguous())

    def _shortened(
        self, record: Record, rows: Tensor, net: Queried, x: Tensor, y: Tensor, places: Tensor
    ) -> Tensor:
        """Draw the points so far to the new radius and say which fool there: one forward pass."""
        if self.norm is l0:
            return torch.zeros_like(rows, dtype=torch.bool)
        found = torch.zeros_like(rows, dtype=torch.bool)
        for part in torch.arange(len(rows), device=x.device).split(self.batch_size):
            at = rows[part]
            share = self._radii(places[part], x) / size(record.x[at] - x[at], self.norm)
            point = between(x[at], record.x[at], share.clamp_max(1.0), self.norm)
            with torch.no_grad():
                logits = net(point)
            record.forward[at] += 1
            fools = self.margin(logits, y[at]) > slack(logits)
            record.x[at[fools]] = point[fools]
            record.prediction[at[fools]] = logits.argmax(1)[fools]
            found[part] = fools
        return found


def smallest(
    attack: Callable[[float], Attack],
    *,
    norm: Norm = linf,
    upper: float = 1.0,
    lower: float = 0.001,
    searches: int = 8,
    first: Attack | None = None,
    targeted: bool = False,
    refine: int = 4,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    batch_size: int = 256,
) -> Smallest:
    """The smallest eps at which ``attack(eps)`` fools the network, searched for each example.

    Bisection over a geometric grid of 2^searches radii, from ``lower`` to ``upper``; the examples that
    stand at one radius are attacked together. A search is warm in three ways: what is found bounds the
    radius by its own norm, not the attack's eps; before the attack is run at a smaller radius, the best
    point is drawn there, which costs one forward pass; and ``first``, a cheap minimal attack, may give
    the bound to begin with.

    Args:
        attack: from a radius to an attack: ``pgd``, or ``lambda eps: pgd(eps, norm=l2, steps=50)``.
        norm: of the radius: ``linf``, ``l2``, ``l1`` or ``l0``.
        upper: largest radius tried, in input units; who is not fooled there is not fooled at all.
        lower: end of the grid.
        searches: halvings; the radius is known to a factor of (upper / lower)^(1 / 2^searches).
        first: attack that gives the first bounds, such as ``deepfool(norm=linf)``.
        targeted: ``attack`` is targeted and ``y`` are targets.
        refine: forward passes that draw the result towards the example at the end.

    >>> from walnut.attacks import fgsm
    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False).eval()
    >>> _ = net.weight.data.copy_(torch.eye(2))
    >>> found = smallest(fgsm)(net, torch.tensor([[0.7, 0.5]]), torch.tensor([0]))
    >>> round(float(found.norms["linf"]), 2)
    0.1
    """
    return Smallest(
        attack=attack, norm=norm, upper=upper, lower=lower, searches=searches, first=first,
        targeted=targeted, refine=refine, bounds=bounds, batch_size=batch_size,
    )  # fmt: skip
