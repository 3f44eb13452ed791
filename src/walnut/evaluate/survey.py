"""What is known of each example while the cascade runs: standing or fallen, to what, at which radius."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WRONG, STANDING = -2, -1
"""``fell_to`` of an example that is wrong already, and of one that nothing has broken."""


@dataclass(frozen=True)
class StageRecord:
    """One stage as it went: counts are of examples, passes are sums over examples."""

    name: str
    attack: str
    family: str
    why: str
    entered: int
    broke: int
    forward: int
    backward: int
    seconds: float
    examples: tuple[int, ...] = field(default=(), repr=False)  # that it broke

    def json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "name": self.name, "attack": self.attack, "family": self.family, "why": self.why,
            "entered": self.entered, "broke": self.broke, "forward": self.forward,
            "backward": self.backward, "seconds": round(self.seconds, 3),
        }  # fmt: skip


@dataclass
class Survey:
    """All examples, side by side.

    Attributes:
        x, y: the examples (n, ...) and their labels (n,).
        prediction: what the network says of the example itself.
        fell_to: number of the stage that broke it, or :data:`WRONG`, or :data:`STANDING`.
        step: the step of that stage at which it fell; -1 where it stands.
        radius: of the smallest perturbation known to break it; 0 where wrong, inf where none is known.
        hope: the largest margin max z_k − z_y that any failed attempt reached.
        found: the adversarial example, or the example itself where there is none.
        reached: where that margin was reached; the example itself before any attempt.
        forward, backward: passes spent on it.
    """

    x: Float[Tensor, " n *d"]
    y: Int[Tensor, " n"]
    prediction: Int[Tensor, " n"]
    fell_to: Int[Tensor, " n"]
    step: Int[Tensor, " n"]
    radius: Float[Tensor, " n"]
    hope: Float[Tensor, " n"]
    found: Float[Tensor, " n *d"]
    reached: Float[Tensor, " n *d"]
    forward: Int[Tensor, " n"]
    backward: Int[Tensor, " n"]
    stages: list[StageRecord] = field(default_factory=list)

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Survey:
        """Return a survey in which nothing is known yet."""
        n = torch.zeros_like(y)
        far = torch.full_like(y, float("inf"), dtype=torch.float64)
        return cls(
            x, y, y.clone(), n - 1, n - 1, far, -far, x.clone(), x.clone(), n.clone(), n.clone()
        )  # fmt: skip

    @property
    def standing(self) -> Int[Tensor, " m"]:
        """The rows that nothing has broken."""
        return (self.fell_to == STANDING).nonzero()[:, 0]

    @property
    def clean(self) -> Bool[Tensor, " n"]:
        """Which examples the network gets right untouched."""
        return self.fell_to != WRONG

    def hopeful(self, count: int) -> Int[Tensor, " m"]:
        """Return the standing rows that came nearest to falling, at most ``count``, in their order."""
        rows = self.standing
        if len(rows) <= count:
            return rows
        nearest = self.hope[rows].argsort(descending=True, stable=True)[: max(count, 0)]
        return rows[nearest.sort().values]

    def sample(self, count: int) -> Int[Tensor, " m"]:
        """Return at most ``count`` standing rows: half the most hopeful, half spread over the rest."""
        near = self.hopeful(count - count // 2)
        rest = self.standing[~torch.isin(self.standing, near)]
        if len(rest) == 0:
            return near
        few = min(count - len(near), len(rest))
        spread = rest[torch.arange(few, device=rest.device) * len(rest) // max(few, 1)]
        return torch.cat([near, spread]).sort().values

    def ends(self, rows: Tensor) -> Float[Tensor, " m *d"]:
        """Return where what was run on some rows ended: at what fools, or at the best attempt."""
        fell = (self.fell_to[rows] >= 0).reshape(-1, *[1] * (self.x.ndim - 1))
        return torch.where(fell, self.found[rows], self.reached[rows])

    def take(self, stage: int, rows: Tensor, outcome: dict[str, Tensor]) -> None:
        """Note the outcome of a stage on some rows."""
        success = outcome[
            "success"
        ].bool()  # inside the ball; fooled at any radius is "radius" < inf
        fallen = rows[success]
        self.radius[rows] = torch.minimum(self.radius[rows], outcome["radius"].double())
        self.forward[rows] += outcome["forward"].long()
        self.backward[rows] += outcome["backward"].long()
        hope, x = outcome["hope"].double(), outcome["x"].to(self.found)
        rose = ~success & (hope > self.hope[rows])
        self.hope[rows[rose]], self.reached[rows[rose]] = hope[rose], x[rose]
        first = outcome["first"][success]
        new = self.fell_to[fallen] == STANDING
        self.fell_to[fallen[new]] = stage
        self.step[fallen[new]] = first[new]
        self.found[fallen[new]] = x[success][new]

    def take_clean(self, rows: Tensor, prediction: Tensor, passes: int) -> None:
        """Note what the network says of the examples themselves."""
        self.prediction[rows] = prediction
        self.forward[rows] += passes
        wrong = rows[prediction != self.y[rows]]
        self.fell_to[wrong], self.step[wrong], self.radius[wrong] = WRONG, 0, 0.0
