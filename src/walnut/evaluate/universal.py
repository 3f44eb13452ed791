"""How often a universal pattern fools: on held-out pictures, on other networks, by what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from walnut.attacks.universal import Bounds, Universal, apply
from walnut.core.draws import Draws
from walnut.core.errors import WalnutError
from walnut.core.types import Model

from .accuracy import Share, predict


def fooling_rate(
    model: Model,
    pattern: Float[Tensor, " *d"],
    x: Float[Tensor, " n *d"],
    bounds: Bounds = (0.0, 1.0),
) -> Share:
    """Return the share of pictures whose answer changes: k(clip(x + v)) ≠ k(x).

    (Moosavi-Dezfooli et al. 2017, §2; labels play no part.) On another network than the pattern was
    made on it is that paper's Table 2.

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(3 * torch.eye(2))
    >>> fooling_rate(net, torch.tensor([-0.5, 0.5]), torch.tensor([[0.9, 0.4], [0.4, 0.9]])).value
    0.5
    """
    clean = predict(model, x).argmax(1)
    return Share.of(predict(model, apply(pattern, x, bounds)).argmax(1) != clean)


def target_rate(
    model: Model,
    pattern: Float[Tensor, " *d"],
    x: Float[Tensor, " n *d"],
    target: int,
    bounds: Bounds = (0.0, 1.0),
) -> Share:
    """Return the share of pictures read as ``target``, of those that are not without the pattern."""
    x = x[predict(model, x).argmax(1) != target]
    if len(x) == 0:
        raise WalnutError("every picture is read as the target class already: give some of others")
    return Share.of(predict(model, apply(pattern, x, bounds)).argmax(1) == target)


def shuffled(pattern: Float[Tensor, " *d"], seed: int = 0) -> Float[Tensor, " *d"]:
    """Return the control: the same entries at random places with random signs, so of equal every norm."""
    flat = pattern.flatten()
    draws = Draws.keyed(torch.zeros(1, dtype=torch.int64, device=pattern.device)).fold(seed)
    place = draws.uniform(len(flat))[0].argsort()
    signs = 2 * draws.integers(2, len(flat))[0] - 1
    return (flat[place] * signs).reshape(pattern.shape)


@dataclass(frozen=True)
class LearningPoint:
    """A pattern made from so many pictures.

    Attributes:
        count: pictures it was made from.
        seen: fooling rate on them.
        held_out: on pictures it was not made from.
        control: of the shuffled pattern, on the same held-out pictures.
        forward, backward: passes to make it, of all pictures together.
        made: the pattern's record.
    """

    count: int
    seen: Share
    held_out: Share
    control: Share
    forward: int
    backward: int
    made: Universal = field(repr=False)

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file."""
        shares = {k: v.json() for k, v in vars(self).items() if isinstance(v, Share)}
        return {
            "count": self.count, **shares, "forward": self.forward, "backward": self.backward,
            "attack": self.made.attack,
        }  # fmt: skip


def learning_curve(
    make: Callable[[Any, Tensor, Tensor], Universal],
    model: Model,
    x: Float[Tensor, " n *d"],
    counts: Sequence[int],
    held_out: Float[Tensor, " m *d"],
    y: Tensor | None = None,
    seed: int = 0,
) -> list[LearningPoint]:
    """Return the fooling rate against the number of pictures a pattern is made from.

    Each count takes the first so many of ``x``: the sets are nested (Moosavi-Dezfooli et al. 2017, Fig. 6).

    Args:
        make: ``universal(eps)``, ``universal_sgd(eps)`` or one of your own.
        model: network from [0, 1] to logits.
        x: pictures to make patterns from (n, ...), in random order.
        counts: how many of them.
        held_out: other pictures (m, ...).
        y: true labels of ``x``; the network's own answers unless given.
        seed: of the control.

    Raises:
        WalnutError: a count is not between 1 and the number of pictures.
    """
    if not counts or min(counts) < 1 or max(counts) > len(x):
        raise WalnutError(f"counts must lie between 1 and {len(x)}, the number of pictures")
    labels = predict(model, x).argmax(1) if y is None else y
    points = []
    for count in counts:
        made = make(model, x[:count], labels[:count])
        control = shuffled(made.pattern, seed)
        points.append(
            LearningPoint(
                count, fooling_rate(model, made.pattern, x[:count], made.bounds),
                fooling_rate(model, made.pattern, held_out, made.bounds),
                fooling_rate(model, control, held_out, made.bounds),
                int(made.forward.sum()), int(made.backward.sum()), made,
            )
        )  # fmt: skip
    return points
