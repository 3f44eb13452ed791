"""The difference vector: what changed one picture's class, added to other pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from walnut.attacks.universal import Bounds, apply
from walnut.core.errors import WalnutError
from walnut.core.types import Model

from .accuracy import Share, predict
from .universal import shuffled


@dataclass(frozen=True)
class DifferenceRow:
    """One difference x̂ − x on all other pictures, next to a random vector of equal norms.

    Attributes:
        index: of the example among those given.
        source: the network's answer to x.
        adversarial: its answer to x̂.
        l2: length of the difference.
        changed: pictures whose answer changes.
        became: pictures answered ``adversarial``, of those that are not without the difference.
        random_changed, random_became: the same for the random vector.
    """

    index: int
    source: int
    adversarial: int
    l2: float
    changed: Share
    became: Share
    random_changed: Share
    random_became: Share


@dataclass(frozen=True)
class Differences:
    """Pictures × differences. Means give every difference the same weight.

    Pairs that share a picture or a difference are not independent: the intervals are those of each row,
    over pictures, and there is none for the means.

    Attributes:
        rows: one per difference that fools on its own picture.
        prediction: (n, rows) the network's answers to clip(picture + difference).
        others: (n, rows) False where the picture is the one the difference was made on.
    """

    rows: tuple[DifferenceRow, ...]
    prediction: Tensor = field(repr=False)
    others: Bool[Tensor, " n m"] = field(repr=False)

    def mean(self, what: str) -> float:
        """Return the mean over differences of ``changed``, ``became`` or one of their controls."""
        shares = [getattr(row, what) for row in self.rows]
        values = [share.value for share in shares if share.total]
        return sum(values) / len(values) if values else float("nan")

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file."""
        names = ("changed", "became", "random_changed", "random_became")
        rows = [
            asdict(row) | {name: getattr(row, name).json() for name in names} for row in self.rows
        ]
        means = {name: self.mean(name) for name in names}
        return {
            "rows": rows,
            "mean": {k: None if v != v else v for k, v in means.items()},  # NaN is no JSON
        }


def difference_table(
    model: Model,
    x: Float[Tensor, " m *d"],
    adversarial: Float[Tensor, " m *d"],
    pictures: Float[Tensor, " n *d"],
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
) -> Differences:
    """Add the difference x̂ − x of each example to every other picture and ask the network.

    The answer to clip(picture + x̂ − x) is compared with the answer to the picture alone and with the answer
    to x̂. The control is the same entries at random places with random signs, of equal L∞, L2, L1 and L0.

    Args:
        model: network from [0, 1] to logits; run in eval mode and left as it was.
        x: examples (m, ...).
        adversarial: what an attack made of them, ``attack(model, x, y).x``; examples whose answer it
            does not change are left out.
        pictures: (n, ...); one that equals x itself is not counted for that difference.
        bounds: the box pictures live in; None for none.
        seed: of the control.

    Raises:
        WalnutError: no example is adversarial, or there is no other picture.
    """
    if x.shape != adversarial.shape:
        raise WalnutError(
            f"x is {tuple(x.shape)} and adversarial {tuple(adversarial.shape)}: they must be alike"
        )
    source, reached = predict(model, x).argmax(1), predict(model, adversarial).argmax(1)
    clean = predict(model, pictures).argmax(1)
    which = (source != reached).nonzero()[:, 0].tolist()
    if not which:
        raise WalnutError("no example changes the network's answer: attack harder first")
    rows, read, others = [], [], []
    for i in which:
        delta = adversarial[i] - x[i]
        other = (pictures != x[i]).flatten(1).any(1)
        if not bool(other.any()):
            raise WalnutError("there is no picture other than the example's own: give some more")
        seen = predict(model, apply(delta, pictures, bounds)).argmax(1)
        noise = predict(model, apply(shuffled(delta, seed + i), pictures, bounds)).argmax(1)
        there = int(reached[i])
        away = other & (clean != there)
        rows.append(
            DifferenceRow(
                i, int(source[i]), there, float(delta.double().norm()),
                Share.of((seen != clean)[other]), Share.of((seen == there)[away]),
                Share.of((noise != clean)[other]), Share.of((noise == there)[away]),
            )
        )  # fmt: skip
        read.append(seen)
        others.append(other)
    return Differences(tuple(rows), torch.stack(read, 1), torch.stack(others, 1))
