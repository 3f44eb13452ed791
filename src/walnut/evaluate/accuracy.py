"""Accuracy with its interval, and robust accuracy under a given attack with all three denominators."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from walnut.core.errors import WalnutError
from walnut.core.frozen import frozen
from walnut.core.queried import Queried, label_error, whole
from walnut.core.types import Adversarial, Attack, Model


@dataclass(frozen=True)
class Share:
    """A share of examples with its 95 % Wilson interval (Wilson 1927): ``value = correct / total``."""

    correct: int
    total: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: Bool[Tensor, " n"]) -> Share:
        """Count the true rows."""
        return cls.count(int(hits.sum()), len(hits))

    @classmethod
    def count(cls, correct: int, total: int) -> Share:
        """Return ``correct`` of ``total``; the interval of nothing at all is [0, 1].

        >>> Share.count(90, 100)
        Share(correct=90, total=100, value=0.9, low=0.8256, high=0.9448)
        """
        if total == 0:
            return cls(0, 0, float("nan"), 0.0, 1.0)
        z, p = 1.959964, correct / total
        centre = (p + z * z / (2 * total)) / (1 + z * z / total)
        half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
        half /= 1 + z * z / total
        low, high = max(0.0, centre - half), min(1.0, centre + half)
        return cls(correct, total, p, round(low, 4), round(high, 4))

    def json(self) -> dict[str, Any]:
        """Return plain numbers; the value of nothing is None."""
        return asdict(self) | {"value": None if self.total == 0 else self.value}


def predict(
    model: Model, x: Float[Tensor, " n *d"], batch_size: int = 500
) -> Float[Tensor, " n k"]:
    """Return the logits of every example, in eval mode; nothing of the network changes."""
    if len(x) == 0:
        raise WalnutError("there are no examples to run the network on")
    with torch.inference_mode(False), torch.no_grad(), frozen(model):
        asked = Queried(model)
        return torch.cat([asked(rows) for rows in x.split(batch_size)])


def correct(
    model: Model, x: Float[Tensor, " n *d"], y: Integer[Tensor, " n"], batch_size: int = 500
) -> Bool[Tensor, " n"]:
    """Say which examples a network gets right.

    Raises:
        WalnutError: labels out of range, or answers that are not numbers.
    """
    y = whole(y)
    logits = predict(model, x, batch_size)
    wrong = label_error(y, logits.shape[1])
    if wrong is not None:
        raise wrong
    if not bool(logits.isfinite().all()):
        row = int((~logits.isfinite().all(1)).nonzero()[0, 0])
        raise WalnutError(
            f"the network's answer for example {row} is not a number (NaN or infinite): "
            "check its weights and the input range"
        )
    return logits.argmax(1) == y


def accuracy(
    model: Model, x: Float[Tensor, " n *d"], y: Integer[Tensor, " n"], batch_size: int = 500
) -> Share:
    """Return the share of examples whose largest logit is their label, with a 95 % interval.

    Args:
        model: network from [0, 1] to logits; run in eval mode and left as it was.
        x: examples (n, ...).
        y: labels (n,).

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(3 * torch.eye(2))
    >>> accuracy(net, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])).value
    0.5
    """
    return Share.of(correct(model, x, y, batch_size))


@dataclass(frozen=True)
class Robustness:
    """What one attack left of a network.

    Attributes:
        robust: right before and after the attack, of all examples. An example that is wrong already
            counts as broken.
        fooled: fooled by the attack, of the examples that were right.
        clean: right before the attack, of all.
        adversarial: the attack's record.
    """

    robust: Share
    fooled: Share
    clean: Share
    adversarial: Adversarial = field(repr=False)

    def json(self) -> dict[str, Any]:
        """Return plain numbers for a result file."""
        record = self.adversarial
        return {
            "robust": self.robust.json(),
            "fooled_of_correct": self.fooled.json(),
            "clean": self.clean.json(),
            "attack": record.attack,
            "forward_per_example": float(record.forward.double().mean()),
            "backward_per_example": float(record.backward.double().mean()),
            "seconds": record.seconds,
        }


def robust_accuracy(
    model: Any,
    x: Float[Tensor, " n *d"],
    y: Integer[Tensor, " n"],
    attack: Attack,
    targets: Tensor | None = None,
) -> Robustness:
    """Attack every example and count what is left, over all examples and over the right ones.

    Args:
        model: network from [0, 1] to logits.
        x: examples (n, ...).
        y: true labels (n,).
        attack: ``(model, x, y) -> Adversarial``.
        targets: labels handed to a targeted attack in place of ``y``. An example is then fooled when
            it is no longer called ``y``.
    """
    before = correct(model, x, y)
    record = attack(model, x, y if targets is None else targets)
    after = record.prediction == y
    return Robustness(
        robust=Share.of(before & after),
        fooled=Share.of((~after)[before]),
        clean=Share.of(before),
        adversarial=record,
    )
